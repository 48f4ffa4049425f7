"""torch-pruning's own students of a teacher (Fang et al. 2023, "DepGraph"; 2024, "Isomorphic Pruning"); needs the extra `prune`.

torch-pruning is given a ratio of channels and decides which ones go; the ratio is searched so that the student fills the budget. What it
decides is written in our channel variables, and proved: our student has its weights, bit for bit.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from raysearch.architecture.channels import analyse
from raysearch.architecture.edits import Edits
from raysearch.architecture.graph import Architecture
from raysearch.architecture.space import SearchSpace
from raysearch.errors import BudgetError, MissingPackageError, WeightsError
from raysearch.models.build import State, build, module_path
from raysearch.models.importance import Batch, creates_channels
from raysearch.models.keep import keep_sets
from raysearch.models.pruned import Pruned
from raysearch.models.pruning import ITS_ERRORS

COARSE = 64
"""Ratios that are tried first, evenly spaced: near 1 sizes rise again, because torch-pruning leaves a group whole whose last channel would go."""


def check_torch_pruning(space: SearchSpace, state: State, field: str) -> None:
    """Lets torch-pruning take half of the channels, whatever the budget, before anything is computed.

    Args:
        state: the teacher's weights, trained or not.
        field: what asks for it, for the message.

    Raises:
        MissingPackageError, WeightsError: as `GlobalPruner`.
    """
    try:
        pruner = GlobalPruner(space, state, "l2", tuple)
        pruner.prove(0.5, pruner.pruned(0.5))
    except (MissingPackageError, WeightsError) as error:
        raise type(error)(f"{field}: {error}") from error


class GlobalPruner:
    """torch-pruning's global pruning of one teacher at any ratio, written in our channel variables.

    Args:
        space: the students; widths that its grid lacks are possible, as torch-pruning knows no grid.
        state: the teacher's weights.
        form: "l2" (group L2 norms, one ranking) or "taylor" (first-order Taylor, a ranking for each kind of group).
        batches: images and labels for "taylor".

    Raises:
        MissingPackageError: torch-pruning is not installed.
        WeightsError: it does not understand the network, or its groups are not ours.
    """

    def __init__(
        self, space: SearchSpace, state: State, form: str, batches: Callable[[], Iterable[Batch]]
    ) -> None:
        try:
            import torch_pruning  # noqa: F401  # only whether it is there
        except ImportError:
            raise MissingPackageError(
                f"pruning by {form!r} needs torch-pruning; run: pip install 'raysearch[prune]'"
            ) from None
        self.space, self.form = space, form
        self._state = state
        architecture = space.teacher
        self._analysis = analyse(architecture)
        self._module = build(architecture, inherit_from=state).eval()
        self._layers = dict(_filters(architecture, self._module))
        with _understood(form):
            if form == "taylor":
                for images, labels in batches():
                    cross_entropy(self._module(images), labels).backward()
            self._pruner = self._make()
            graph = self._pruner.DG
            self._all = list(
                graph.get_all_groups(
                    ignored_layers=self._pruner.ignored_layers,
                    root_module_types=self._pruner.root_module_types,
                )
            )
            # the groups are the same at every ratio, and finding them is most of the work
            graph.get_all_groups = lambda **_: self._all

    def _make(self) -> Any:
        """torch-pruning's pruner; layers whose channels must stay (the classifier) are left out, as its documentation asks."""
        import torch_pruning

        architecture = self.space.teacher
        taylor = self.form == "taylor"
        kind = torch_pruning.importance
        measure = kind.GroupTaylorImportance() if taylor else kind.GroupMagnitudeImportance(p=2)
        known: dict[int, Any] = {}

        def importance(group: Any) -> Any:  # the same at every ratio
            root = id(group[0].dep.target.module)
            if root not in known:
                known[root] = measure(group)
            return known[root]

        device = next(iter(self._state.values())).device
        return torch_pruning.pruner.BasePruner(
            self._module,
            torch.zeros(2, *architecture.input_shape, device=device),
            importance=importance,
            global_pruning=True,
            isomorphic=taylor,
            pruning_ratio=0.0,
            ignored_layers=[
                self._module.get_submodule(path)
                for name, path in self._layers.items()
                if any(self._analysis.variables[v].frozen for v, _ in self._blocks(name))
            ],
        )

    def _blocks(self, name: str) -> Any:
        return self._analysis.outputs[self.space.teacher.index[name]]

    def _groups(self, ratio: float) -> Iterator[Any]:
        """What torch-pruning would remove at a ratio, group by group; nothing is removed by asking."""
        self._pruner.reset()
        self._pruner.per_step_pruning_ratio = [0.0, ratio]
        return self._pruner.step(interactive=True)

    def kept(self, ratio: float) -> list[np.ndarray]:
        """Which channels stay: for each channel variable [size] bool."""
        graph = self._pruner.DG
        removed: dict[nn.Module, set[int]] = {}
        with _understood(self.form):
            for group in self._groups(ratio):
                for dependency, indices in group:
                    if graph.is_out_channel_pruning_fn(dependency.handler):
                        removed.setdefault(dependency.target.module, set()).update(indices)
        kept: list[np.ndarray | None] = [None] * len(self._analysis.variables)
        for name, path in self._layers.items():
            rows = np.ones(self._rows(name), bool)
            rows[sorted(removed.get(self._module.get_submodule(path), ()))] = False
            self._enter(name, rows, kept)
        return [
            np.ones(variable.size, bool) if found is None else found
            for variable, found in zip(self._analysis.variables, kept, strict=True)
        ]

    def _rows(self, name: str) -> int:
        layer = self.space.teacher[name]
        return layer.shape[self.space.teacher.axis(name)]

    def _enter(self, name: str, rows: np.ndarray, kept: list[np.ndarray | None]) -> None:
        """Writes a layer's kept rows [C] into the channel variables that stand there."""
        start = 0
        for variable, multiplicity in self._blocks(name):
            size = self._analysis.variables[variable].size
            part = rows[start : start + size * multiplicity].reshape(size, multiplicity)
            start += size * multiplicity
            found: np.ndarray = np.all(part, axis=1)
            before = kept[variable]
            whole = np.array_equal(part.any(axis=1), found)
            if not whole or (before is not None and not np.array_equal(before, found)):
                raise _other_groups(self.form, name)
            kept[variable] = found

    def pruned(self, ratio: float) -> Pruned:
        """The student at a ratio.

        Raises:
            WeightsError: as `GlobalPruner`; or layers of one width in the space have different ones.
        """
        kept = self.kept(ratio)
        widths = [-1] * len(self.space.groups)
        for number, group in enumerate(self.space.group_of):
            width = int(kept[number].sum())
            if group < 0:
                continue
            if width % self.space.groups[group].alignment:
                raise _other_groups(self.form, self._analysis.variables[number].producers[0])
            if widths[group] not in (-1, width):
                raise WeightsError(
                    f"pruning by {self.form!r} is not possible with this space: torch-pruning gives layers of one size different "
                    "widths; set space.grouping to 'coupled', or use the forms ours-l1 and ours-taylor"
                )
            widths[group] = width
        return Pruned(Edits(widths=tuple(widths)), [mask.astype(np.float64) for mask in kept])

    def prove(self, ratio: float, found: Pruned) -> None:
        """Prunes the teacher in earnest, and compares. The pruner is of no use after it.

        Raises:
            WeightsError: our student is not torch-pruning's.
        """
        with _understood(self.form):
            del self._pruner.DG.get_all_groups
            for group in self._groups(ratio):
                group.prune()
        architecture = self.space.teacher
        student = self.space.apply(found.edits)
        keep = keep_sets(student, architecture, found.scores)
        ours = build(student, inherit_from=self._state, keep=keep).state_dict()
        theirs = self._module.state_dict()
        for key in ours.keys() | theirs.keys():
            one, other = ours.get(key), theirs.get(key)
            if one is None or other is None or not torch.equal(one, other.to(one.device)):
                raise _other_groups(self.form, key)


def prune_to_budget(
    space: SearchSpace, state: State, form: str, batches: Callable[[], Iterable[Batch]]
) -> Pruned:
    """torch-pruning's student that fills the budget best; arguments and errors as of `GlobalPruner`.

    Raises:
        BudgetError: at no ratio torch-pruning's student is inside the budget.
    """
    pruner = GlobalPruner(space, state, form, batches)
    ratio = _fitting(space, pruner)
    if ratio is None:
        raise _too_small(space, pruner)
    found = pruner.pruned(ratio)
    pruner.prove(ratio, found)
    return found


def _fitting(space: SearchSpace, pruner: GlobalPruner) -> float | None:
    """A ratio whose student is inside the budget, while with a quarter of a channel more it is not; None without one."""

    def fits(ratio: float) -> bool:
        return bool(space.within_budget(pruner.pruned(ratio).edits)[0])

    if fits(0.0):
        return 0.0
    # costs fall about with the square of the widths: from there up, then down
    start = int(COARSE * (1 - math.sqrt(_smallest_share(space))))
    tried = (*range(start, COARSE), *range(start - 1, 0, -1))
    inside = next((n / COARSE for n in tried if fits(n / COARSE)), None)
    if inside is None:
        return None
    outside = 0.0
    channels = sum(variable.size for variable in analyse(space.teacher).variables)
    for _ in range(math.ceil(math.log2(4 * channels))):
        middle = (inside + outside) / 2
        if fits(middle):
            inside = middle
        else:
            outside = middle
    return inside


def _smallest_share(space: SearchSpace) -> float:
    """The tightest counted limit as a share of the teacher's cost, at most 1; 1 where only latency is limited."""
    counts = {"params": space.num_params, "macs": space.macs, "memory": space.memory}
    teacher = space.largest()
    shares = [
        space.limits[metric] / float(count(teacher)[0])
        for metric, count in counts.items()
        if metric in space.limits
    ]
    return min(1.0, *shares) if shares else 1.0


def _too_small(space: SearchSpace, pruner: GlobalPruner) -> BudgetError:
    """The error that names the smallest student."""
    students = [pruner.pruned(n / COARSE).edits for n in range(COARSE)]
    smallest = min(students, key=lambda edits: int(space.num_params(edits)[0]))
    student = space.apply(smallest)
    return BudgetError(
        f"pruning by {pruner.form!r} cannot meet the budget {dict(space.limits)}: torch-pruning's smallest student has "
        f"{student.num_params:,} parameters and {student.macs:,} MACs; raise the budget, or use the forms ours-l1 and ours-taylor"
    )


def _filters(architecture: Architecture, module: nn.Module) -> Iterator[tuple[str, str]]:
    """(layer, path of its module) of the layers that create channels."""
    for layer in architecture.layers:
        path = module_path(layer)
        if path is not None and creates_channels(architecture, layer):
            yield layer.name, path


@contextmanager
def _understood(form: str) -> Iterator[None]:
    """Turns what torch-pruning raises for a network that it does not understand into one sentence."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns of parameters that it leaves alone
            yield
    except ITS_ERRORS as error:
        raise WeightsError(
            f"pruning by {form!r} is not possible for this teacher, torch-pruning stops with {type(error).__name__} ({error}); "
            "use the forms ours-l1 and ours-taylor, or another method"
        ) from error


def _other_groups(form: str, name: str) -> WeightsError:
    return WeightsError(
        f"pruning by {form!r} is not possible for this teacher: torch-pruning removes channels at {name} that belong together, or "
        "leaves others; use the forms ours-l1 and ours-taylor, or another method"
    )
