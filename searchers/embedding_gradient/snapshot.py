"""What a step of the search is computed from, and what it gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from searchers.ahead import Cancelled
from searchers.algorithm import Observation
from searchers.insight import Insight

if TYPE_CHECKING:
    from searchers.embedding_gradient.autoencoder import Networks


@dataclass(frozen=True)
class Snapshot:
    """What is known when a step begins.

    Attributes:
        full: the outcomes of full trainings, in the order of telling.
        known: texts of all students that were proposed or told.
        seed: of everything random in the step; its first number is the search's.
    """

    full: tuple[Observation, ...]
    known: frozenset[str]
    seed: tuple[int, ...]


@dataclass(frozen=True)
class Choice:
    """A student to propose.

    Attributes:
        text: its architecture.
        origin: how it was found.
        predicted, predicted_sd: mean and standard deviation of the value that a training will measure; None where the model speaks
            in other units.
    """

    text: str
    origin: str
    predicted: float | None = None
    predicted_sd: float | None = None


class Step(Protocol):
    """A mode of the search: from a snapshot to students, the most wanted first. Pure but for caches; called in a thread."""

    def __call__(self, snapshot: Snapshot, cancelled: Cancelled) -> list[Choice]: ...
    def insight(self, snapshot: Snapshot) -> Insight: ...
    def networks(self, snapshot: Snapshot) -> Networks: ...
