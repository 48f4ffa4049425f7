"""The model of one stage of training: what it predicts, what it cannot explain, and what a seed changes.

A model alone would be too easy a problem: it is smoother than training, its values spread less than real ones, and a searcher's model on
the same features would learn it exactly. So each prediction gets back what the model could not explain, in the size that cross-validation
found:

    z(x, seed) = m(x) + b(x) + e(x, seed)

    m  the model (smooth.py)
    b  the residual that belongs to the architecture: fixed for it, the same for every seed, drawn from the architecture's id
    e  the noise of a training: another for each seed; its variance is that within the table's architectures of several seeds

Var(e) is measured, Var(b) is the mean squared error of cross-validation less Var(e). Both are borrowed from real rows: b is the (shrunken)
residual vector of a random one of the rows that are the nearest in prediction and size, e the deviation from its mean of a random one of
the repeated rows, so that epochs, loss and accuracy hang together as they do in real curves. Neighbours in the space borrow independently
of each other: what real neighbours share beyond the features is lost, and a surrogate is a little harder for local search than the truth.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from raysearch.tables.smooth import Blend, tune
from raysearch.tables.validation import NUM_FOLDS, deviations, fold_of

NUM_LENDERS = 20


@dataclass(frozen=True)
class Columns:
    """The outcome of a training of E epochs as a vector of T numbers: E accuracies, E losses, and with `test` accuracy and loss on the
    test part.

    Losses are modelled as logarithms, accuracies as asin(sqrt(p)), which makes the noise of counted images equal everywhere and has no
    trouble at 1.
    """

    epochs: int
    test: bool = False

    @property
    def is_accuracy(self) -> np.ndarray:
        """[T] bool."""
        curve = [True] * self.epochs + [False] * self.epochs
        return np.array(curve + [True, False] * self.test)

    @property
    def accuracy(self) -> int:
        """The place of the last validation accuracy."""
        return self.epochs - 1

    @property
    def loss(self) -> int:
        """The place of the last validation loss."""
        return 2 * self.epochs - 1

    def to_z(self, values: np.ndarray) -> np.ndarray:
        """Accuracies and losses [..., T] as they are modelled."""
        accuracy = np.arcsin(np.sqrt(np.clip(values, 0, 1)))
        return np.where(self.is_accuracy, accuracy, np.log(np.maximum(values, 1e-9)))

    def to_values(self, z: np.ndarray) -> np.ndarray:
        """The inverse: accuracies in [0, 1], positive losses."""
        accuracy = np.square(np.sin(np.clip(z, 0, np.pi / 2)))
        return np.where(self.is_accuracy, accuracy, np.exp(np.where(self.is_accuracy, 0, z)))


@dataclass(frozen=True, eq=False)
class Lenders:
    """Rows that lend what the model could not explain of them.

    Attributes:
        places: [n, 2] the last loss that was predicted for them (z), and the logarithm of their parameters; each of unit variance.
        lent: [n, T].
    """

    places: np.ndarray
    lent: np.ndarray

    def borrow(self, place: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """[T] of a random one of the `NUM_LENDERS` that are the nearest to a place [2]."""
        distance = np.abs(self.places - place).sum(axis=1)
        nearest = np.argsort(distance, kind="stable")[:NUM_LENDERS]
        return self.lent[nearest[rng.integers(len(nearest))]]


@dataclass(frozen=True, eq=False)
class StageModel:
    """See the module's docstring; n rows, T targets.

    Attributes:
        columns: what the targets are.
        model: of all rows.
        expected: [n, T] outcomes predicted for each row, without noise, by a model that has not seen its architecture (but for its
            kernel's three numbers).
        scale: [2], what places are divided by.
        own: lends b.
        repeated: lends e; None: no student was trained twice, and the whole residual counts as the architecture's.
    """

    columns: Columns
    model: Blend
    expected: np.ndarray
    scale: np.ndarray
    own: Lenders
    repeated: Lenders | None

    @classmethod
    def fit(
        cls,
        columns: Columns,
        x: np.ndarray,
        values: np.ndarray,
        keys: Sequence[str],
        trend: tuple[int, ...] = (),
    ) -> StageModel:
        """Fits the model and finds its errors.

        Args:
            x: [n, D]; the first column is the logarithm of the parameters.
            values: [n, T] outcomes.
            keys: [n] architecture ids.
            trend: columns of x that the model's straight line is of.
        """
        z = columns.to_z(values)
        kernel, folds = tune(x, z, trend), fold_of(keys)
        expected = np.empty_like(z)
        for fold in range(NUM_FOLDS):
            held = folds == fold
            expected[held] = Blend.fit(x[~held], z[~held], trend, kernel)(x[held])
        residuals = z - expected
        places = np.stack([expected[:, columns.loss], x[:, 0]], axis=1)
        scale = np.maximum(places.std(axis=0), 1e-9)
        rows, deviating = deviations(residuals, keys)
        kept, repeated = np.ones(z.shape[1]), None
        if len(rows):
            noise = np.square(deviating).mean(axis=0)  # [T]
            total = np.maximum(np.square(residuals).mean(axis=0), 1e-12)
            kept = np.sqrt(np.clip(1 - noise / total, 0, 1))
            repeated = Lenders(places[rows] / scale, deviating)
        own = Lenders(places / scale, residuals * kept)
        model = Blend.fit(x, z, trend, kernel)
        return cls(columns, model, columns.to_values(expected), scale, own, repeated)

    def predict(self, x: np.ndarray, architecture_id: str, seed: int) -> np.ndarray:
        """One outcome [T] of a student x: [D] that is in no row; the same for the same arguments."""
        mean = self.model(x[None])[0]
        place = np.array([mean[self.columns.loss], x[0]]) / self.scale
        stage = f"{architecture_id}:{self.columns.epochs}"
        z = mean + self.own.borrow(place, _generator(stage))
        if self.repeated is not None:
            z = z + self.repeated.borrow(place, _generator(f"{stage}:{seed}"))
        return self.columns.to_values(z)


def _generator(text: str) -> np.random.Generator:
    """A generator of its own for a student (and a seed), whoever asks and when."""
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return np.random.default_rng(int.from_bytes(digest))
