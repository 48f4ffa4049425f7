"""What answers for students that a table does not hold: two models of its rows. Its answers are predictions, never measurements.

One predicts the short training from the architecture, the other the full training from the architecture and the outcome of the short one.
Both keep within the range of what they were fitted to; `stage.py` says what is added to them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from raysearch.tables.features import NUM_COSTS
from raysearch.tables.stage import Columns, StageModel
from raysearch.tables.validation import NUM_FOLDS, errors_by_budget

if TYPE_CHECKING:
    import pandas as pd

MIN_ARCHITECTURES = 2 * NUM_FOLDS
"""Fewer are not modelled."""


@dataclass(frozen=True, eq=False)
class Surrogate:
    """The models of both stages.

    Attributes:
        short, full: the models; `full` is None where too few students were trained fully.
        errors: cross-validated, grouped by architecture, in natural units, of the models alone: target, budget, rows, mae, rmse,
            spearman, kendall, spread. Those of the full training are given the real short one.
        num_diverged: rows that are not modelled, as their training diverged.
    """

    short: StageModel
    full: StageModel | None
    errors: pd.DataFrame = field(repr=False)
    num_diverged: int = 0

    def predict_short(self, x: np.ndarray, architecture_id: str, seed: int) -> np.ndarray:
        """Accuracies and losses of the short training: [2 E]."""
        return self.short.predict(x, architecture_id, seed)

    def predict_full(
        self, x: np.ndarray, short: np.ndarray, architecture_id: str, seed: int
    ) -> np.ndarray:
        """Accuracies and losses of the full training, test accuracy, test loss: [2 F + 2]; `short`: [2 E], real or predicted."""
        assert self.full is not None
        given = np.concatenate([x, self.short.columns.to_z(short)])
        return self.full.predict(given, architecture_id, seed)


def fit_surrogate(
    x: np.ndarray, keys: Sequence[str], budget: np.ndarray, short: np.ndarray, full: np.ndarray
) -> Surrogate:
    """Fits both stages.

    Args:
        x: [n, D] descriptions of the rows' students (`features.py`).
        keys: [n] their ids.
        budget: [n] that they were drawn for; NaN: none.
        short: [n, 2 E] accuracies, then losses; not finite in rows that diverged.
        full: [n, 2 F + 2]; NaN in rows without a full training.
    """
    import pandas as pd

    names = np.array(keys)
    usable = np.asarray(np.isfinite(short).all(axis=1))
    x, names, budget, short, full = (a[usable] for a in (x, names, budget, short, full))
    first = StageModel.fit(Columns(short.shape[1] // 2), x, short, list(names))
    errors = _errors("", first, budget, short)

    done, second = np.isfinite(full).all(axis=1), None
    if len(set(names[done])) >= MIN_ARCHITECTURES:
        given = np.concatenate([x, first.columns.to_z(short)], axis=1)
        columns = Columns(full.shape[1] // 2 - 1, test=True)
        ends = (first.columns.accuracy, first.columns.loss)  # what the short training came to
        trend = (*range(NUM_COSTS), *(x.shape[1] + column for column in ends))
        second = StageModel.fit(columns, given[done], full[done], list(names[done]), trend)
        errors += _errors("full_", second, budget[done], full[done])
    return Surrogate(first, second, pd.DataFrame(errors), int((~usable).sum()))


def _errors(
    prefix: str, stage: StageModel, budget: np.ndarray, truth: np.ndarray
) -> list[dict[str, Any]]:
    """The lines of `Surrogate.errors` for one stage."""
    columns = stage.columns
    places = {f"{prefix}accuracy": columns.accuracy, f"{prefix}loss": columns.loss}
    if columns.test:
        places |= {"test_accuracy": columns.loss + 1, "test_loss": columns.loss + 2}
    return errors_by_budget(
        budget,
        {name: truth[:, place] for name, place in places.items()},
        {name: stage.expected[:, place] for name, place in places.items()},
    )
