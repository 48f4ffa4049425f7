"""How good a surrogate is on students that it has not seen, and how well a short training ranks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

NUM_FOLDS = 5


def fold_of(keys: Sequence[str], num_folds: int = NUM_FOLDS) -> np.ndarray:
    """The fold of each row: [n] int64. Rows of one architecture share a fold; the same keys give the same folds in any order."""
    distinct = sorted(set(keys))
    shuffled = np.random.default_rng(0).permutation(len(distinct))
    place = {
        key: int(position) % num_folds for key, position in zip(distinct, shuffled, strict=True)
    }
    return np.array([place[key] for key in keys], np.int64)


def agreement(truth: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """Mean absolute and root mean square error, and the rank correlations (NaN where one side is constant)."""
    difference = predicted - truth
    return {
        "mae": float(np.abs(difference).mean()),
        "rmse": float(np.sqrt(np.square(difference).mean())),
        **rank_correlations(truth, predicted),
    }


def rank_correlations(a: np.ndarray, b: np.ndarray) -> dict[str, float]:
    """Spearman's rho and Kendall's tau-b."""
    from scipy import stats

    if len(a) < 3 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return {"spearman": float("nan"), "kendall": float("nan")}
    return {
        "spearman": float(np.asarray(stats.spearmanr(a, b))[0]),
        "kendall": float(np.asarray(stats.kendalltau(a, b))[0]),
    }


def by_budget(budget: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """("all", every row), then each budget's label and rows [n] bool; "none" are students that were drawn for no budget (NaN)."""
    yield "all", np.ones(len(budget), bool)
    unlimited = np.isnan(budget)
    for value in np.unique(budget[~unlimited]):
        yield f"{value:g}", budget == value
    if unlimited.any():
        yield "none", unlimited


def errors_by_budget(
    budget: np.ndarray, truth: Mapping[str, np.ndarray], predicted: Mapping[str, np.ndarray]
) -> list[dict[str, Any]]:
    """A line for each target and budget: target, budget, rows, mae, rmse, spearman, kendall, spread (the standard deviation of the truth)."""
    return [
        {
            "target": target,
            "budget": label,
            "rows": int(rows.sum()),
            **agreement(values[rows], predicted[target][rows]),
            "spread": float(values[rows].std()),
        }
        for target, values in truth.items()
        for label, rows in by_budget(budget)
    ]


def ranks_by_budget(
    budget: np.ndarray, signals: Mapping[str, np.ndarray], truths: Mapping[str, np.ndarray]
) -> list[dict[str, Any]]:
    """A line for each signal, truth and budget: signal, truth, budget, rows, spearman, kendall."""
    return [
        {
            "signal": signal,
            "truth": truth,
            "budget": label,
            "rows": int(rows.sum()),
            **rank_correlations(values[rows], targets[rows]),
        }
        for signal, values in signals.items()
        for truth, targets in truths.items()
        for label, rows in by_budget(budget)
    ]


def deviations(values: np.ndarray, keys: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Of the architectures that have several rows: these rows [m], and their deviations from their mean [m, T], times sqrt(k / (k - 1)).

    The mean square of the deviations is the (unbiased) variance of one training over seeds.
    """
    groups: dict[str, list[int]] = {}
    for row, key in enumerate(keys):
        groups.setdefault(key, []).append(row)
    several = [rows for rows in groups.values() if len(rows) > 1]
    if not several:
        return np.zeros(0, np.int64), values[:0]
    parts = [
        (values[rows] - values[rows].mean(axis=0)) * np.sqrt(len(rows) / (len(rows) - 1))
        for rows in several
    ]
    return np.concatenate(several), np.concatenate(parts)
