"""Early-stopped students as a second fidelity: what they would have come to.

A value after t epochs is not comparable with one after all of them. But every full training has passed epoch t, too: a line from there to
the end, fitted to those, says what a stopped one would have come to. Schedulers stop the weakest, so the estimate matters for where not to
look; it is never above the best full training.

Notation
    a_t, a   the target after t epochs and after all of them, of a full training: the objective over the factor c that is known beforehand
             (`searchers.targets`)
    b        slope: a ~ mean(a) + b (a_t - mean(a_t)), least squares
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from searchers.algorithm import Observation
from searchers.targets import Targets

if TYPE_CHECKING:
    from raysearch.architecture import SearchSpace

MIN_PAIRS = 5
"""Full trainings that a line is fitted to, at least."""
MAX_SLOPE = 2.0
"""Of a line: few points must not promise that a bad beginning ends in a far worse end."""


def estimated_ends(
    space: SearchSpace,
    targets: Targets,
    full: Sequence[Observation],
    stopped: Sequence[Observation],
) -> tuple[list[Observation], np.ndarray]:
    """The stopped students whose end can be estimated, and the estimates of their targets.

    Args:
        space: where the students come from.
        targets: what is modelled.
        full: observations of full trainings, with curves as far as there are any.
        stopped: those of stopped ones.

    Returns:
        m of the stopped ones in their order, and [m] float64.
    """
    curves, ends = _targets_of(space, targets, full), targets.values(full)
    found, values = [], []
    lines: dict[int, tuple[float, float, float] | None] = {}
    for one, curve in zip(stopped, _targets_of(space, targets, stopped), strict=True):
        t = len(curve)
        if t not in lines:
            lines[t] = _line([(c[t - 1], a) for c, a in zip(curves, ends, strict=True) if t and len(c) > t])  # fmt: skip
        line = lines[t]
        if line is not None and np.isfinite(curve[-1]):
            b, mean_t, mean = line
            found.append(one)
            values.append(min(mean + b * (curve[-1] - mean_t), float(ends.max())))
    return found, np.array(values, np.float64)


def _targets_of(
    space: SearchSpace, targets: Targets, observations: Sequence[Observation]
) -> list[np.ndarray]:
    """The curves in units of the target."""
    if not observations:
        return []
    factor = targets.factor(space.batch(one.architecture for one in observations))
    return [
        np.asarray(one.curve, np.float64) / c for one, c in zip(observations, factor, strict=True)
    ]


def _line(pairs: Sequence[tuple[float, float]]) -> tuple[float, float, float] | None:
    """Slope, mean(a_t) and mean(a); None: too few pairs tell nothing."""
    points = np.array([pair for pair in pairs if np.isfinite(pair).all()], np.float64)
    if len(points) < MIN_PAIRS:
        return None
    mean_t, mean = points.mean(axis=0)
    x, y = points[:, 0] - mean_t, points[:, 1] - mean
    square = float(x @ x)
    slope = float(x @ y) / square if square > 0 else 0.0
    return min(max(slope, 0.0), MAX_SLOPE), float(mean_t), float(mean)
