"""Ranks of methods over blocks (a problem and a seed), and Friedman's test of whether they differ at all (Friedman 1937; Demšar 2006)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float64]
BLOCK = ["problem", "seed"]


@dataclass(frozen=True)
class Friedman:
    """Friedman's test over all methods.

    Attributes:
        num_blocks: problems and seeds that all methods have.
        statistic: chi squared, ties corrected; its p is an approximation that is rough below ten blocks.
        agreement: Kendall's W in [0, 1]; 1: every block ranks the methods alike.
    """

    num_blocks: int
    statistic: float
    p: float
    agreement: float


def score_table(cells: pd.DataFrame, metric: str, methods: Sequence[str]) -> pd.DataFrame:
    """The scores as blocks by methods; NaN where a method has no value.

    Args:
        cells: columns `problem, seed, method` and the metric.
        methods: the columns of the result, in this order.
    """
    table = cells.pivot_table(
        index=BLOCK, columns="method", values=metric, aggfunc="first", dropna=False
    )
    return table.reindex(columns=list(methods)).dropna(how="all")


def rank_blocks(scores: ArrayLike, *, higher_is_better: bool = True) -> Floats:
    """The ranks of each block, 1 for the best; ties share the mean of their places.

    Args:
        scores: [blocks, methods] without NaN.

    Returns:
        [blocks, methods]
    """
    from scipy import stats

    array = np.asarray(scores, np.float64)
    if not array.size:
        return array
    return np.asarray(stats.rankdata(-array if higher_is_better else array, axis=1))


def average_ranks(table: pd.DataFrame, *, higher_is_better: bool = True) -> dict[str, float]:
    """The mean rank of each method over the blocks that all methods have; empty where there are none.

    Args:
        table: from `score_table`.
    """
    complete = table.dropna()
    if complete.empty:
        return {}
    ranks = rank_blocks(complete.to_numpy(), higher_is_better=higher_is_better)
    return {str(method): float(rank) for method, rank in zip(table, ranks.mean(0), strict=True)}


def friedman(table: pd.DataFrame) -> Friedman | None:
    """The test over the complete blocks; None for fewer than three methods or two blocks, or where all methods tie everywhere."""
    from scipy import stats

    scores = table.dropna().to_numpy()
    num_blocks, num_methods = scores.shape
    if num_methods < 3 or num_blocks < 2 or (scores == scores[:, :1]).all():
        return None
    statistic, p = stats.friedmanchisquare(*scores.T)
    agreement = float(statistic) / (num_blocks * (num_methods - 1))
    return Friedman(num_blocks, float(statistic), float(p), agreement)
