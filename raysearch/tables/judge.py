"""How a replayed student is rewarded: as a run with the same budget would reward it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from raysearch.architecture import Architecture
from raysearch.architecture.budget import cost
from raysearch.objective import (
    REWARDS,
    Measurement,
    ObjectiveName,
    floor_reward,
    parse_floor,
    resolve_objective,
)
from raysearch.tables.table import Table

_SIZES = ("params", "macs", "memory")


@dataclass(frozen=True, eq=False)
class Judge:
    """The objective of a search on a table.

    Attributes:
        objective: its name, resolved.
        teacher: the teacher's architecture, and `teacher_accuracy` on the validation part.
        floor: the accuracy that is wanted at least; None: none.
        size: what is made small: "params", "macs" or "memory".
    """

    objective: ObjectiveName
    teacher: Architecture
    teacher_accuracy: float
    floor: float | None = None
    size: str = "params"

    @classmethod
    def of(
        cls, table: Table, budget: Mapping[str, Any] | None = None, objective: str = "auto"
    ) -> Judge:
        """What a run with this budget and this `objective` of the configuration would use; raises BudgetError for a wrong floor."""
        given = {key: value for key, value in (budget or {}).items() if value is not None}
        floor = parse_floor(given["accuracy"]) if "accuracy" in given else None
        name = resolve_objective(objective, has_budget=bool(given), has_floor=floor is not None)
        accuracy = table.teacher.accuracy
        if floor is None:  # C is that of the papers then, of parameters
            return cls(name, table.architecture, accuracy)
        size = next((key for key in _SIZES if key in given), _SIZES[0])
        return cls(name, table.architecture, accuracy, floor.accuracy(accuracy), size)

    @property
    def worst(self) -> float:
        """The reward of a student that could not be trained."""
        return floor_reward(self.objective)

    def reward(self, student: Architecture, accuracy: float, loss: float) -> float:
        """The reward of a student with this accuracy and cross-entropy on the validation part."""
        measurement = Measurement(
            accuracy=accuracy,
            loss=loss,
            num_params=cost(student, self.size),
            teacher_accuracy=self.teacher_accuracy,
            teacher_num_params=cost(self.teacher, self.size),
            floor=self.floor,
        )
        return REWARDS[self.objective](measurement)
