"""What a step gives, and how it is called."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from searchers.ahead import Cancelled
from searchers.batches import Snapshot
from searchers.insight import Insight

if TYPE_CHECKING:
    from raysearch.architecture import Edits


@dataclass(frozen=True)
class Choice:
    """A student to propose.

    Attributes:
        edits: its edits.
        predicted, predicted_sd: what the model expects a training to measure: mean and standard deviation.
    """

    edits: Edits
    predicted: float
    predicted_sd: float


class Step(Protocol):
    """A mode of the search: from a snapshot to students, the most wanted first. Pure but for caches; called in a thread."""

    def __call__(self, snapshot: Snapshot, cancelled: Cancelled) -> list[Choice]: ...
    def insight(self, snapshot: Snapshot) -> Insight: ...
