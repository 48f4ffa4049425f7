"""What answers for students that a table does not hold: a model of the table's rows. Its answers are predictions, never measurements.

Two forests: the short training from the architecture, and the full one from the architecture and the outcome of the short one. Losses are
modelled as logarithms, accuracies as asin(sqrt(p)), which makes the noise of counted images equal everywhere and has no trouble at 1.

A forest alone would be too easy a problem: it is smoother than training, and a searcher's model on the same features would learn it
exactly. So each prediction gets back what the forest could not explain, in the size that cross-validation found it:

    z(x, seed) = forest(x) + b(x) + e(x, seed)

    b  the residual that belongs to the architecture: fixed for it, the same for every seed, drawn from the architecture's id
    e  the noise of a training: another for each seed; its variance is that within the table's architectures of several seeds

Var(e) is measured, Var(b) is the mean squared error of cross-validation less Var(e). Both are borrowed from real rows: b is the (shrunken)
residual vector of a random one of the rows whose predictions are the nearest, e the deviation from its mean of a random one of the repeated
rows, so that epochs, loss and accuracy hang together as they do in real curves. Neighbours in the space borrow independently of each
other: what real neighbours share beyond the features is lost, and a surrogate is a little harder for local search than the truth.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from raysearch.tables.forest import Forest
from raysearch.tables.validation import NUM_FOLDS, deviations, errors_by_budget, fold_of

MIN_ARCHITECTURES = 2 * NUM_FOLDS
"""Fewer are not modelled."""
NUM_LENDERS = 20
"""So many rows with the nearest predictions lend their residuals."""


@dataclass(frozen=True)
class Columns:
    """Where the curves lie in a target vector z of a training of E epochs, and how they are transformed.

    Attributes:
        epochs: E. Columns 0 .. E-1 are accuracies, E .. 2E-1 losses.
        test: two more follow, the accuracy and the loss on the test part.
    """

    epochs: int
    test: bool = False

    @property
    def is_accuracy(self) -> np.ndarray:
        """[T] bool."""
        curve = [True] * self.epochs + [False] * self.epochs
        return np.array(curve + [True, False] * self.test)

    def to_z(self, values: np.ndarray) -> np.ndarray:
        """Accuracies and losses [n, T] as they are modelled."""
        accuracy = np.arcsin(np.sqrt(np.clip(values, 0, 1)))
        return np.where(self.is_accuracy, accuracy, np.log(np.maximum(values, 1e-9)))

    def to_values(self, z: np.ndarray) -> np.ndarray:
        """The inverse: accuracies in [0, 1], positive losses."""
        accuracy = np.square(np.sin(np.clip(z, 0, np.pi / 2)))
        return np.where(self.is_accuracy, accuracy, np.exp(np.where(self.is_accuracy, 0, z)))


@dataclass(frozen=True, eq=False)
class StageModel:
    """The model of one stage of training; n rows, m repeated rows, T targets.

    Attributes:
        forest: of all rows.
        expected: [n, T] predictions of each row by a forest that has not seen its architecture.
        residuals: [n, T] what these lacked.
        kept: [T] the share of a residual's standard deviation that belongs to the architecture and not to the seed.
        repeated: [m, T] deviations of repeated rows from their architecture's mean; scaled to the variance of one training.
        repeated_at: [m, T] the predictions of those rows.
        key: the target by which predictions are near each other.
    """

    forest: Forest
    expected: np.ndarray
    residuals: np.ndarray
    kept: np.ndarray
    repeated: np.ndarray
    repeated_at: np.ndarray
    key: int

    @classmethod
    def fit(cls, x: np.ndarray, z: np.ndarray, keys: Sequence[str], *, key: int) -> StageModel:
        """x: [n, D], z: [n, T], keys: [n] architecture ids."""
        folds = fold_of(keys)
        expected = np.empty_like(z)
        for fold in range(NUM_FOLDS):
            held = folds == fold
            expected[held] = Forest.fit(x[~held], z[~held])(x[held])
        residuals = z - expected
        rows, repeated = deviations(residuals, keys)
        kept = np.ones(z.shape[1])
        if len(rows):
            noise = np.square(repeated).mean(axis=0)  # [T]
            total = np.maximum(np.square(residuals).mean(axis=0), 1e-12)
            kept = np.sqrt(np.clip(1 - noise / total, 0, 1))
        return cls(Forest.fit(x, z), expected, residuals, kept, repeated, expected[rows], key)

    def predict(self, x: np.ndarray, architecture_id: str, seed: int) -> np.ndarray:
        """One outcome z: [T] of a student x: [D] that is in no row."""
        mean = self.forest(x[None])[0]
        own = _generator(architecture_id)
        z = mean + self.kept * _borrow(self.residuals, self.expected, mean, self.key, own)
        if len(self.repeated):
            again = _generator(architecture_id, seed)
            z = z + _borrow(self.repeated, self.repeated_at, mean, self.key, again)
        return z

    @property
    def seed_spread(self) -> np.ndarray:
        """[T] standard deviation of z over seeds; NaN where no student was trained twice."""
        if not len(self.repeated):
            return np.full(self.residuals.shape[1], np.nan)
        return np.sqrt(np.square(self.repeated).mean(axis=0))


@dataclass(frozen=True, eq=False)
class Surrogate:
    """The models of both stages.

    Attributes:
        short, full: the models; `full` is None where too few students were trained fully.
        short_columns, full_columns: their targets.
        errors: cross-validated, grouped by architecture, in natural units and without the noise: target, budget, rows, mae, rmse,
            spearman, kendall, spread. The full training's are given the real short one.
        num_diverged: rows that are not modelled, as their training diverged.
    """

    short: StageModel
    short_columns: Columns
    full: StageModel | None
    full_columns: Columns
    errors: pd.DataFrame = field(repr=False)
    num_diverged: int = 0

    def predict_short(self, x: np.ndarray, architecture_id: str, seed: int) -> np.ndarray:
        """Accuracies and losses of the short training: [2 E]."""
        return self.short_columns.to_values(self.short.predict(x, architecture_id, seed))

    def predict_full(
        self, x: np.ndarray, short: np.ndarray, architecture_id: str, seed: int
    ) -> np.ndarray:
        """Accuracies and losses of the full training, test accuracy, test loss: [2 F + 2]; `short`: [2 E], real or predicted."""
        assert self.full is not None
        given = np.concatenate([x, self.short_columns.to_z(short)])
        return self.full_columns.to_values(self.full.predict(given, architecture_id, seed))


def fit_surrogate(
    x: np.ndarray,
    keys: Sequence[str],
    budget: np.ndarray,
    short: np.ndarray,
    full: np.ndarray,
) -> Surrogate:
    """Fits both stages.

    Args:
        x: [n, D] descriptions of the rows' students.
        keys: [n] their ids.
        budget: [n] that they were drawn for; NaN: none.
        short: [n, 2 E] accuracies, then losses; not finite in rows that diverged.
        full: [n, 2 F + 2]; NaN in rows without a full training.
    """
    short_columns = Columns(short.shape[1] // 2)
    full_columns = Columns(full.shape[1] // 2 - 1, test=True)
    names = np.array(keys)
    rows = np.asarray(np.isfinite(short).all(axis=1))
    z = short_columns.to_z(np.where(rows[:, None], short, 1.0))
    last = short_columns.epochs - 1
    model = StageModel.fit(x[rows], z[rows], list(names[rows]), key=2 * last + 1)
    expected = short_columns.to_values(model.expected)
    of = {"accuracy": last, "loss": 2 * last + 1}
    errors = _errors(budget[rows], short[rows], expected, of)

    finished, second = np.logical_and(rows, np.isfinite(full).all(axis=1)), None
    if len(set(names[finished])) >= MIN_ARCHITECTURES:
        given = np.concatenate([x, z], axis=1)[finished]
        target = full_columns.to_z(full[finished])
        last = full_columns.epochs - 1
        second = StageModel.fit(given, target, list(names[finished]), key=2 * last + 1)
        expected = full_columns.to_values(second.expected)
        of = {
            "full_accuracy": last,
            "full_loss": 2 * last + 1,
            "test_accuracy": 2 * last + 2,
            "test_loss": 2 * last + 3,
        }
        errors += _errors(budget[finished], full[finished], expected, of)
    return Surrogate(
        model, short_columns, second, full_columns, pd.DataFrame(errors), int((~rows).sum())
    )


def _errors(
    budget: np.ndarray, truth: np.ndarray, expected: np.ndarray, of: dict[str, int]
) -> list[dict[str, Any]]:
    return errors_by_budget(
        budget,
        {name: truth[:, column] for name, column in of.items()},
        {name: expected[:, column] for name, column in of.items()},
    )


def _borrow(
    lent: np.ndarray, at: np.ndarray, mean: np.ndarray, key: int, rng: np.random.Generator
) -> np.ndarray:
    """One row of `lent`, of the `NUM_LENDERS` whose `at[:, key]` is the nearest to `mean[key]`."""
    distance = np.abs(at[:, key] - mean[key])
    nearest = np.argsort(distance, kind="stable")[:NUM_LENDERS]
    return lent[nearest[rng.integers(len(nearest))]]


def _generator(architecture_id: str, *more: int) -> np.random.Generator:
    """A generator of its own for a student (and a seed), whoever asks and when."""
    text = ":".join([architecture_id, *map(str, more)])
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return np.random.default_rng(int.from_bytes(digest))
