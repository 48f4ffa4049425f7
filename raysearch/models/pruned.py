"""Pruned students: the teacher's least important channels go until the budget is met.

Channels are ranked over the whole network. As in isomorphic pruning (Fang et al. 2024, section 3.2) importance is compared after it has
been divided by the mean of its channel group, because raw importance of different layers says little. Coupled channels are one channel. The
result is inside the budget by our exact counts, and fills it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from raysearch.architecture.channels import ChannelVariable, analyse
from raysearch.architecture.edits import Edits
from raysearch.architecture.groups import ChannelGroup
from raysearch.architecture.space import SearchSpace
from raysearch.errors import ConfigError
from raysearch.models.keep import Scores

FORMS = ("l2", "taylor", "ours-l1", "ours-taylor")
"""How students can be pruned: torch-pruning's global L2 norms, its isomorphic Taylor importance, and our ranking by two importances."""

TORCH_PRUNING_FORMS = FORMS[:2]


@dataclass(frozen=True, eq=False)
class Pruned:
    """A pruned student.

    Attributes:
        edits: its widths.
        scores: which channels it keeps: the highest, in each channel variable.
    """

    edits: Edits
    scores: Scores


def check_prunable(space: SearchSpace, field: str) -> None:
    """Checks that a space has pruned students.

    Args:
        field: what asks for them, for the message.

    Raises:
        ConfigError: there is no budget to prune to, or widths are fixed.
    """
    if not space.limits:
        raise ConfigError(
            f"{field}: pruning needs a size to prune to; set budget.params, budget.macs, budget.memory or budget.latency_ms"
        )
    if "shrink" not in space.operations:
        raise ConfigError(
            f"{field}: pruning takes channels away, but space.operations lacks 'shrink'; add it"
        )


def pruned_student(space: SearchSpace, scores: Scores, *, per_cost: bool = False) -> Edits:
    """The student that keeps the most important channels of the whole network.

    Args:
        space: with a budget. Widths are on its grid, none below its smallest.
        scores: the importance of every channel (`raysearch.models.importance`), none negative.
        per_cost: importance is divided by what a channel of its group costs in the teacher, as a share of the tightest limit.

    Returns:
        Edits within the budget. Where the smallest widths exceed it, layers are removed as `SearchSpace.repair` does.
    """
    groups, widths, values = _steps(space, scores)
    if per_cost:
        values = values / _step_costs(space)[groups]
    order = np.argsort(-values, kind="stable")
    smallest = np.array([group.min_channels for group in space.groups], np.int64)

    def first(count: int) -> np.ndarray:
        found = smallest.copy()
        np.add.at(found, groups[order[:count]], widths[order[:count]])
        return found

    fewest, most = 0, len(order)
    while fewest < most:
        middle = (fewest + most + 1) // 2
        if _fits(space, first(middle)):
            fewest = middle
        else:
            most = middle - 1
    found = first(fewest)
    if "latency_ms" not in space.limits:  # a measurement for each step would take too long
        _fill(space, found, groups[order[fewest:]], widths[order[fewest:]])
    return space.repair(space.batch([Edits(widths=tuple(found))]))[0]


def _fill(space: SearchSpace, found: np.ndarray, groups: np.ndarray, widths: np.ndarray) -> None:
    """Takes the steps that still fit, in their order; a group that has lost one gets no later one; in place."""
    full: set[int] = set()
    for group, width in zip(groups.tolist(), widths.tolist(), strict=True):
        if group in full:
            continue
        found[group] += width
        if not _fits(space, found):
            found[group] -= width
            full.add(group)


def _fits(space: SearchSpace, widths: np.ndarray) -> bool:
    return bool(space.within_budget(Edits(widths=tuple(widths)))[0])


def _steps(space: SearchSpace, scores: Scores) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What can be added to the smallest widths: three [N], the group, the channels, and the mean normalised importance of each step.

    Steps of a group stand in their order, and their values never rise.
    """
    variables = analyse(space.teacher).variables
    parts: list[tuple[int, int, float]] = []
    for group in space.groups:
        members = [number for number, own in enumerate(space.group_of) if own == group.id]
        curve = np.mean([_curve(variables[one], scores[one], group) for one in members], axis=0)
        edges = [*range(group.min_channels, group.size, group.divisor), group.size]
        parts += [
            (group.id, stop - start, float(curve[start:stop].mean()))
            for start, stop in pairwise(edges)
        ]
    groups, widths, values = zip(*parts, strict=True) if parts else ((), (), ())
    return np.array(groups, np.int64), np.array(widths, np.int64), np.array(values, np.float64)


def _curve(variable: ChannelVariable, scores: np.ndarray, group: ChannelGroup) -> np.ndarray:
    """[size] the importance of the best channel, the second best, ..., over its mean.

    Grouped convolutions keep equally many channels of each block: then k-th best is meant in each block, averaged.
    """
    blocks = variable.divisor if group.size % variable.divisor == 0 else 1
    grid = np.nan_to_num(np.asarray(scores, np.float64)).reshape(blocks, -1)
    best = -np.sort(-grid, axis=1).mean(axis=0)  # [size / blocks] -> by falling value
    mean = best.mean()
    return np.repeat(best / mean if mean > 0 else best, blocks)


def _step_costs(space: SearchSpace) -> np.ndarray:
    """[G] what one channel of each group costs in the teacher, as a share of the limit that it weighs most in."""
    sizes = np.array([group.size for group in space.groups], np.int64)
    steps = np.array([group.divisor for group in space.groups], np.int64)
    students = [Edits(widths=tuple(row)) for row in (sizes - np.diag(steps)).clip(1)]
    batch = space.batch([*students, space.largest()])
    counts = {"params": space.num_params, "macs": space.macs, "memory": space.memory}
    limited = [metric for metric in space.limits if metric in counts] or ["macs"]
    shares = []
    for metric in limited:
        cost = counts[metric](batch).astype(np.float64)
        shares.append((cost[-1] - cost[:-1]) / space.limits.get(metric, cost[-1]))
    return np.maximum(np.max(shares, axis=0) / steps, 1e-12)


def check_forms(field: str, forms: object) -> tuple[str, ...]:
    """Returns a list of forms after checking it.

    Raises:
        ConfigError: not a list of different `FORMS`.
    """
    found = list(forms) if isinstance(forms, Sequence) and not isinstance(forms, str) else []
    if not found or len(set(map(str, found))) < len(found) or any(f not in FORMS for f in found):
        raise ConfigError(f"{field} must list some of {', '.join(FORMS)}, each once, got {forms!r}")
    return tuple(found)
