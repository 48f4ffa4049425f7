"""A table of trained students, and what it answers: exactly for the students that it holds, by its surrogate for all others."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from raysearch.architecture import Architecture, SearchSpace
from raysearch.config import Config, parse_config
from raysearch.errors import InputError, TableError
from raysearch.tables.features import describe_students
from raysearch.tables.files import DIVERGED_LOSS, SCHEMA, read_file
from raysearch.tables.surrogate import MIN_ARCHITECTURES, Surrogate, fit_surrogate
from raysearch.tables.validation import deviations, ranks_by_budget

if TYPE_CHECKING:
    import pandas as pd

    from raysearch.architecture.edits import EditsBatch


@dataclass(frozen=True)
class TeacherCard:
    """What is known of the teacher: accuracies in [0, 1], validation cross-entropy in nats, sizes."""

    accuracy: float
    loss: float
    test_accuracy: float
    num_params: int
    macs: int


@dataclass(frozen=True)
class Curve:
    """A short training.

    Attributes:
        accuracy, loss: on the validation part after each epoch; a diverged student has accuracy 0 and infinite loss.
        cpu_seconds: of these epochs.
        exact: from a row of the table; otherwise predicted.
    """

    accuracy: tuple[float, ...]
    loss: tuple[float, ...]
    cpu_seconds: float
    exact: bool


@dataclass(frozen=True)
class FullResult:
    """A full training that continued from the weights of the short one.

    Attributes:
        accuracy, loss: on the validation part at its end.
        test_accuracy, test_loss: on the test part.
        accuracy_curve, loss_curve: on the validation part after each epoch.
        cpu_seconds: of the full training alone.
        exact: from a row of the table; otherwise predicted.
    """

    accuracy: float
    loss: float
    test_accuracy: float
    test_loss: float
    accuracy_curve: tuple[float, ...]
    loss_curve: tuple[float, ...]
    cpu_seconds: float
    exact: bool


class Table:
    """Thousands of trainings, replayed.

    Attributes:
        problem: its name.
        config: what its students were trained with.
        architecture: the teacher.
        teacher: what is known of it.
        records: one for each training (docs/tables.md names the keys), as they stand in the file; `rows` is the same as a pandas frame.
        about: the file's metadata.
    """

    def __init__(self, about: Mapping[str, Any], records: Sequence[Mapping[str, Any]]) -> None:
        """Takes checked rows and their metadata; raises InputError where these do not fit each other."""
        self.about = dict(about)
        self.problem: str = about["problem"]
        self.config: Config = parse_config(about["config"])
        self.architecture: Architecture = Architecture.from_json(about["architecture"])
        self.teacher = _card(about["teacher"])
        self.records = [dict(row) for row in records]
        self._space = self.space()
        self._check_students()
        self._ids: dict[str, str] = {
            row["architecture"]: row["architecture_id"] for row in self.records
        }
        self._described: dict[str, np.ndarray] = {}
        self._rows_of: dict[str, list[dict[str, Any]]] = {}
        for row in sorted(self.records, key=lambda row: row["seed"]):
            self._rows_of.setdefault(row["architecture_id"], []).append(row)

    @classmethod
    def read(cls, path: str | Path) -> Table:
        """Reads and checks a file.

        Raises:
            TableError: one sentence that names the file, what is wrong, and the remedy.
        """
        path = Path(path)
        about, records = read_file(path)
        try:
            return cls(about, records)
        except InputError as error:
            raise TableError(f"{path}: {error}") from None

    def __repr__(self) -> str:
        return (
            f"Table({self.problem}: {len(self.records)} trainings of {len(self._rows_of)} students)"
        )

    def __len__(self) -> int:
        return len(self.records)

    @cached_property
    def rows(self) -> pd.DataFrame:
        """One row for each training, the columns of `SCHEMA`."""
        import pandas as pd

        return pd.DataFrame(self.records, columns=SCHEMA.names)

    @property
    def epochs(self) -> int:
        """Of a short training."""
        return len(self.records[0]["accuracy"])

    @property
    def full_epochs(self) -> int:
        """Of a full training; where none was made, what the configuration says."""
        found = (len(row["full_accuracy"]) for row in self.records if row["full_accuracy"])
        return next(found, self.config.finish.epochs)

    def space(self, budget: Mapping[str, Any] | None = None) -> SearchSpace:
        """The students of the teacher, within a budget or without one."""
        return SearchSpace(self.architecture, **self.config.space.model_dump(), budget=budget)

    def identify(self, edits: str) -> str:
        """The id of a student; raises InvalidArchitecture where the text does not fit the space."""
        if edits not in self._ids:
            self._ids[edits] = self._space.architecture_id(edits)
        return self._ids[edits]

    def apply(self, edits: str) -> Architecture:
        """The student; raises InvalidArchitecture."""
        return self._space.apply(edits)

    def holds(self, edits: str) -> bool:
        """Whether a student's short training is in the table."""
        return self.identify(edits) in self._rows_of

    def evaluate(self, edits: str, *, seed: int = 0, epochs: int | None = None) -> Curve:
        """The short training of a student.

        Args:
            edits: its text.
            seed: of the training; where the table holds k of a student, the row of `seed` modulo k.
            epochs: only the first ones, of a training that was planned to its full length; None: all.

        Raises:
            InvalidArchitecture: the text does not fit the space.
            TableError: the table does not hold the student, and is too small for a surrogate.
        """
        key = self.identify(edits)
        found = self._rows_of.get(key)
        if found:
            row = found[seed % len(found)]
            accuracy, loss, seconds = row["accuracy"], row["loss"], row["cpu_seconds"]
        else:
            values = self.surrogate.predict_short(self._describe(edits, key), key, seed)
            accuracy, loss = np.split(values, 2)
            seconds = self._seconds("cpu_seconds", edits)
        count = len(accuracy) if epochs is None else min(max(epochs, 1), len(accuracy))
        return Curve(
            _floats(accuracy[:count]),
            _floats(loss[:count]),
            float(seconds) * count / len(accuracy),
            exact=bool(found),
        )

    def finish(self, edits: str, *, seed: int = 0) -> FullResult:
        """The full training of a student after its short one; as `evaluate`."""
        key = self.identify(edits)
        found = [row for row in self._rows_of.get(key, []) if row["full_accuracy"] is not None]
        if found:
            row = found[seed % len(found)]
            accuracy, loss = _floats(row["full_accuracy"]), _floats(row["full_loss"])
            test = _floats([row["test_accuracy"], row["test_loss"]])
            seconds = row["full_cpu_seconds"]
        else:
            short = self.evaluate(edits, seed=seed)
            values = self._predict_full(edits, key, short, seed)
            test = values[-2], values[-1]
            accuracy, loss = (_floats(part) for part in np.split(values[:-2], 2))
            seconds = self._seconds("full_cpu_seconds", edits)
        return FullResult(
            accuracy=accuracy[-1],
            loss=loss[-1],
            test_accuracy=float(test[0]),
            test_loss=float(test[1]),
            accuracy_curve=accuracy,
            loss_curve=loss,
            cpu_seconds=float(seconds),
            exact=bool(found),
        )

    @cached_property
    def surrogate(self) -> Surrogate:
        """The model of all rows; fitted at the first use (seconds), always the same.

        Raises:
            TableError: the table is too small.
        """
        if len(self._rows_of) < MIN_ARCHITECTURES:
            raise TableError(
                f"{self.problem}: the table holds {len(self._rows_of)} students, and a surrogate needs {MIN_ARCHITECTURES}; "
                "ask for students that it holds, or train more of them with benchmarks/make_tables.py"
            )
        rows, width = self.records, self.full_epochs
        return fit_surrogate(
            describe_students(self._space, self._batch()),
            [row["architecture_id"] for row in rows],
            _budgets(rows),
            _finite(np.array([[*row["accuracy"], *row["loss"]] for row in rows])),
            _finite(np.array([_full(row, width) for row in rows])),
        )

    @cached_property
    def ranking(self) -> pd.DataFrame:
        """How well the short training ranks students that were trained fully too (one row of each).

        Columns: signal ("loss" or "accuracy" after the short training), truth ("full_accuracy", "full_loss", "test_accuracy"), budget,
        rows, spearman, kendall. Losses are negated, so that 1 is a perfect ranking everywhere.
        """
        import pandas as pd

        first = (found[0] for found in self._rows_of.values())
        rows = [row for row in first if row["full_accuracy"] is not None]
        signals = {"loss": -_last(rows, "loss"), "accuracy": _last(rows, "accuracy")}
        truths = {
            "full_accuracy": _last(rows, "full_accuracy"),
            "full_loss": -_last(rows, "full_loss"),
            "test_accuracy": _last(rows, "test_accuracy"),
        }
        return pd.DataFrame(ranks_by_budget(_budgets(rows), signals, truths))

    @cached_property
    def seed_spread(self) -> dict[str, float]:
        """The standard deviation of a result over seeds, within students that were trained several times; NaN where there are none."""
        spread = {}
        for name in ("accuracy", "loss", "full_accuracy", "full_loss", "test_accuracy"):
            rows = [row for row in self.records if row[name] is not None]
            keys = [row["architecture_id"] for row in rows]
            _, parts = deviations(_last(rows, name)[:, None], keys)
            spread[name] = float(np.sqrt(np.square(parts).mean())) if len(parts) else math.nan
        return spread

    def describe(self) -> dict[str, Any]:
        """JSON-native: counts, the teacher, the surrogate's cross-validated errors, the spread over seeds, how well a short training ranks."""
        return {
            "problem": self.problem,
            "trainings": len(self.records),
            "students": len(self._rows_of),
            "full_trainings": sum(row["full_accuracy"] is not None for row in self.records),
            "teacher": vars(self.teacher),
            "diverged": self.surrogate.num_diverged,
            "surrogate_errors": _records(self.surrogate.errors),
            "seed_spread": {key: _number(value) for key, value in self.seed_spread.items()},
            "ranking": _records(self.ranking),
        }

    def _batch(self) -> EditsBatch:
        return self._space.batch(row["architecture"] for row in self.records)

    def _check_students(self) -> None:
        """Texts that fit the space, and sizes that are theirs: else the rows are of another teacher or space."""
        batch = self._batch()
        counts = {"num_params": self._space.num_params(batch), "macs": self._space.macs(batch)}
        for name, counted in counts.items():
            for number, (row, count) in enumerate(zip(self.records, counted, strict=True)):
                if row[name] != count:
                    raise TableError(
                        f"row {number}: {name} is {row[name]}, but its architecture has {count}; "
                        "the rows are of another teacher or space: make the table again"
                    )

    def _describe(self, edits: str, key: str) -> np.ndarray:
        if key not in self._described:
            self._described[key] = describe_students(self._space, self._space.batch([edits]))[0]
        return self._described[key]

    def _predict_full(self, edits: str, key: str, short: Curve, seed: int) -> np.ndarray:
        if self.surrogate.full is None:
            raise TableError(
                f"{self.problem}: too few full trainings to predict one (of {MIN_ARCHITECTURES} students at least); "
                "ask for students that were trained fully, or add some with benchmarks/make_tables.py"
            )
        values = np.array([*short.accuracy, *short.loss])
        if not np.isfinite(values).all():  # a diverged training goes on as it is
            width = self.full_epochs
            return np.array([*[0.0] * width, *[np.inf] * width, 0.0, np.inf])
        return self.surrogate.predict_full(self._describe(edits, key), values, key, seed)

    def _seconds(self, column: str, edits: str) -> float:
        """Processor seconds by multiply-accumulates: the mean of the five rows whose students are nearest in their number."""
        rows = self._seconds_of[column]
        macs = int(self._space.macs(self._space.batch([edits]))[0])
        nearest = np.argsort(np.abs(np.log(rows[:, 0] / macs)), kind="stable")[:5]
        return float(rows[nearest, 1].mean())

    @cached_property
    def _seconds_of(self) -> dict[str, np.ndarray]:
        """By column the rows' (MACs, seconds): [n, 2]."""
        return {
            name: np.array([(row["macs"], row[name]) for row in self.records if row[name]])
            for name in ("cpu_seconds", "full_cpu_seconds")
        }


def _card(values: Mapping[str, Any]) -> TeacherCard:
    names = TeacherCard.__annotations__
    numbers = {key: values.get(key) for key in names}
    if not all(isinstance(value, int | float) for value in numbers.values()):
        raise TableError(
            f"the metadata's teacher is {dict(values)!r}, expected numbers for {', '.join(names)}"
        )
    return TeacherCard(**{key: values[key] for key in names})


def _budgets(rows: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """[n] float64; NaN: none."""
    return np.array([math.nan if row["budget"] is None else row["budget"] for row in rows])


def _full(row: Mapping[str, Any], width: int) -> list[float]:
    """What the model of the full training is fitted to: [2 F + 2]; NaN where there was none."""
    if row["full_accuracy"] is None:
        return [math.nan] * (2 * width + 2)
    return [*row["full_accuracy"], *row["full_loss"], row["test_accuracy"], row["test_loss"]]


def _finite(values: np.ndarray) -> np.ndarray:
    """Losses that stand for diverged trainings as infinities."""
    return np.where(values >= DIVERGED_LOSS, np.inf, values)


def _floats(values: Sequence[float] | np.ndarray) -> tuple[float, ...]:
    return tuple(float(value) for value in _finite(np.asarray(values, np.float64)))


def _last(rows: Sequence[Mapping[str, Any]], name: str) -> np.ndarray:
    """The end of a curve, or the number that a column holds: [n]."""
    values = [row[name] for row in rows]
    return np.array([value[-1] if isinstance(value, list) else value for value in values])


def _number(value: Any) -> Any:
    """NaN as None, for JSON."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(k): _number(v) for k, v in row.items()} for row in frame.to_dict(orient="records")]
