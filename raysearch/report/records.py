"""The records of a run's folder: scores, learning curves, finally trained students, the search's evaluations.

Each reads a JSON object leniently: what is absent, of the wrong type or not finite is None, so that a report can be made of any run.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Json = Mapping[str, Any]
Role = Literal["student", "baseline"]


@dataclass(frozen=True)
class Scores:
    """What is known of a trained network; accuracies in [0, 1], None where not measured."""

    accuracy: float | None = None
    test_accuracy: float | None = None
    num_params: int | None = None
    macs: int | None = None

    @classmethod
    def from_json(cls, data: Json) -> Scores:
        """Reads the keys of `summary.json`'s entries; others are ignored."""
        return cls(
            accuracy=number(data.get("accuracy")),
            test_accuracy=number(data.get("test_accuracy")),
            num_params=integer(data.get("num_params")),
            macs=integer(data.get("macs")),
        )


@dataclass(frozen=True)
class Epoch:
    """One point of a learning curve, measured on the validation part."""

    epoch: int
    accuracy: float | None
    loss: float | None


@dataclass(frozen=True)
class Trained:
    """A student that the finish trained (one `metrics.json`).

    Attributes:
        name: unique within the run: "001" for a student, "uniform" for a baseline (with "/001" where it has several).
        role: "student" below `students/`, "baseline" below `baselines/`.
        origin: who proposed it: "search", "uniform" or "random".
        path: its folder, relative to the run's.
        search: accuracy, loss and reward of its short run in the search, where it had one.
    """

    name: str
    role: Role
    origin: str
    path: str
    scores: Scores
    loss: float | None
    reward: float | None
    compression: float | None
    epochs: int | None
    curve: tuple[Epoch, ...]
    search: Mapping[str, float | None]
    architecture: str
    architecture_id: str
    trial_id: str
    metrics: Json = field(repr=False)

    @classmethod
    def from_json(cls, data: Json, *, name: str, role: Role, path: str) -> Trained:
        """Reads a `metrics.json`; a baseline without an origin is its folder's."""
        search, curve = data.get("search"), data.get("curve")
        points = (
            [point for point in curve if isinstance(point, Mapping)]
            if isinstance(curve, list)
            else []
        )
        return cls(
            name=text_of(name),
            role=role,
            origin=text_of(
                data.get("origin"), "search" if role == "student" else name.split("/")[0]
            ),
            path=path,
            scores=Scores.from_json(data),
            loss=number(data.get("loss")),
            reward=number(data.get("reward")),
            compression=number(data.get("compression")),
            epochs=integer(data.get("epochs")),
            curve=tuple(
                Epoch(epoch, number(point.get("accuracy")), number(point.get("loss")))
                for point in points
                if (epoch := integer(point.get("epoch"))) is not None
            ),
            search={
                key: number(search.get(key)) if isinstance(search, Mapping) else None
                for key in ("accuracy", "loss", "reward")
            },
            architecture=text_of(data.get("architecture")),
            architecture_id=text_of(data.get("architecture_id")),
            trial_id=text_of(data.get("trial_id")),
            metrics=data,
        )


@dataclass(frozen=True)
class Evaluation:
    """One line of `observations.jsonl`: a student that the search really trained.

    `status` is the searcher's (full, stopped, failed); `result_status` the trial's (ok, invalid, diverged). `origin` is how the
    method came to it, "" where it was given to the method; `predicted` and `predicted_sd` are what its model expected of the value.
    `method_stage` and `iteration` say which policy proposed it, and how often that had been updated.
    """

    status: str
    result_status: str
    value: float | None
    accuracy: float | None
    num_params: int | None
    macs: int | None
    stage: str
    trial_id: str
    architecture_id: str
    curve: tuple[float, ...]
    origin: str
    predicted: float | None
    predicted_sd: float | None
    compression: float | None
    method_stage: str
    iteration: int | None

    @property
    def ending(self) -> str:
        """How it ended, in one word."""
        odd = self.status == "failed" and self.result_status != "ok"
        return self.result_status if odd else self.status

    @classmethod
    def from_json(cls, data: Json, stage: str = "search") -> Evaluation:
        """Reads one line; `stage` stands in where the line names none."""
        curve = data.get("curve")
        points = [number(point) for point in curve] if isinstance(curve, list) else []
        return cls(
            status=text_of(data.get("status"), "full"),
            result_status=text_of(data.get("result_status"), "ok"),
            value=number(data.get("value")),
            accuracy=number(data.get("accuracy")),
            num_params=integer(data.get("num_params")),
            macs=integer(data.get("macs")),
            stage=text_of(data.get("stage"), stage),
            trial_id=text_of(data.get("trial_id")),
            architecture_id=text_of(data.get("architecture_id")),
            curve=tuple(point for point in points if point is not None),
            origin=text_of(data.get("origin")),
            predicted=number(data.get("predicted")),
            predicted_sd=number(data.get("predicted_sd")),
            compression=number(data.get("compression")),
            method_stage=text_of(data.get("method_stage")),
            iteration=integer(data.get("iteration")),
        )


def number(value: Any) -> float | None:
    """A finite number, or None (also for NaN, which our writers may leave for a diverged student)."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        finite = float(value)
    except OverflowError:  # JSON's whole numbers have no limit
        return None
    return finite if math.isfinite(finite) else None


def integer(value: Any) -> int | None:
    finite = number(value)
    return None if finite is None else round(finite)


def text_of(value: Any, default: str = "") -> str:
    """The value as text that can be written as UTF-8; JSON and file names can hold halves of characters."""
    return default if value is None else str(value).encode("utf-8", "replace").decode("utf-8")
