"""What a step of the search gives, and how it is called."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from searchers.ahead import Cancelled
from searchers.batches import Snapshot
from searchers.insight import Insight

if TYPE_CHECKING:
    from searchers.embedding_gradient.autoencoder import Networks


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
