"""How good a surrogate is on students that it has not seen, and how well a short training ranks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd

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
        "spearman": float(stats.spearmanr(a, b).statistic),
        "kendall": float(stats.kendalltau(a, b).statistic),
    }


def by_budget(budget: pd.Series) -> Iterator[tuple[str, np.ndarray]]:
    """("all", every row), then each budget's label and rows [n] bool; "none" are students that were drawn for no budget."""
    yield "all", np.ones(len(budget), bool)
    for value in sorted(budget.dropna().unique()):
        yield f"{value:g}", (budget == value).to_numpy()
    if budget.isna().any():
        yield "none", budget.isna().to_numpy()


def errors_by_budget(
    budget: pd.Series, truth: Mapping[str, np.ndarray], predicted: Mapping[str, np.ndarray]
) -> pd.DataFrame:
    """A row for each target and budget: target, budget, rows, mae, rmse, spearman, kendall, spread (the standard deviation of the truth)."""
    lines = [
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
    return pd.DataFrame(lines)
