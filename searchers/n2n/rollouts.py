"""One rollout of a policy: the actions that made a student, and its reward once that is known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Rollout:
    """A rollout, open until it has a reward.

    Attributes:
        id: counts from 0 over the whole search.
        stage: "remove" or "shrink".
        iteration: updates of the stage's policy before it was sampled.
        actions: T, those that were executed; forced ones included.
        architecture: the student's text; None: a degenerate one.
        architecture_id: its id, or None.
        known: its student had a result, or was in training, when it was sampled.
        reward: R_k; None while it is not known.
    """

    id: int
    stage: str
    iteration: int
    actions: tuple[int, ...]
    architecture: str | None
    architecture_id: str | None
    known: bool = False
    reward: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON-native form; `from_dict` inverts it."""
        return self.__dict__ | {"actions": list(self.actions)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Rollout:
        """Reads what `to_dict` wrote."""
        return cls(**{**values, "actions": tuple(values["actions"])})
