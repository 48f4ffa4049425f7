"""Anytime curves: the best value so far against what a search has spent, as a mean with its error band over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float64]
NUM_POINTS = 200
"""Of a curve over a continuous axis."""


@dataclass(frozen=True, eq=False)
class Band:
    """The curve of one method.

    Attributes:
        x: [n] what was spent.
        mean: [n] over seeds; NaN before every seed has a first value, so that the mean is always over the same seeds.
        error: [n] the standard error of the mean; 0 for one seed.
        num_seeds: how many searches it is the mean of.
    """

    x: Floats
    mean: Floats
    error: Floats
    num_seeds: int


def best_so_far(values: ArrayLike) -> Floats:
    """The running maximum; NaN (failed, or stopped early and so not comparable) counts as nothing. [n] -> [n]"""
    array = np.asarray(values, np.float64)
    return np.fmax.accumulate(array) if array.size else array


def at(x: ArrayLike, spent: ArrayLike, best: ArrayLike) -> Floats:
    """The step function of a search at given points: its best value among the evaluations that had ended by then.

    Args:
        x: [m] ascending.
        spent: [n] what was spent when each evaluation ended, ascending.
        best: [n] the best value then.

    Returns:
        [m], NaN before the first evaluation; the last value goes on after the end.
    """
    places = np.searchsorted(np.asarray(spent), np.asarray(x), side="right") - 1
    values = np.append(np.asarray(best, np.float64), np.nan)  # place -1 is "nothing yet"
    return values[places]


def band(x: ArrayLike, searches: Sequence[tuple[ArrayLike, ArrayLike]]) -> Band:
    """Mean and standard error over searches.

    Args:
        x: [m] where.
        searches: (spent, best) of each seed, as in `at`.
    """
    grid = np.asarray(x, np.float64)
    curves = np.stack([at(grid, spent, best) for spent, best in searches])  # [seeds, m]
    count = len(curves)
    mean = curves.mean(0)
    error = curves.std(0, ddof=1) / np.sqrt(count) if count > 1 else np.zeros_like(mean)
    return Band(grid, mean, error, count)


def anytime(evaluations: pd.DataFrame, axis: str) -> dict[str, Band]:
    """The curves of all methods on one axis.

    Args:
        evaluations: columns `problem, method, seed, best` and the axis, in the order of finishing within each search.
        axis: "evaluation" (its number), or a running total such as "epochs_spent" or "seconds_spent".

    Returns:
        By method, all to the end of the longest search: one that ended earlier keeps its best value until there.
    """
    found = {}
    end = float(np.max(np.asarray(evaluations[axis])))
    grid = np.arange(1, end + 1) if axis == "evaluation" else np.linspace(0, end, NUM_POINTS)
    for method, rows in evaluations.groupby("method", sort=False):
        groups = rows.groupby(["problem", "seed"], sort=True)
        searches = [(one[axis].to_numpy(), one["best"].to_numpy()) for _, one in groups]
        found[str(method)] = band(grid, searches)
    return found
