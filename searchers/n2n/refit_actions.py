"""Actions with refit, as in the paper: any layer may go, its neighbours take the channels that arrive, and the students are networks of
their own (`raysearch.architecture.refit`).

A student that is not smaller than the teacher, that cannot be made, or whose linear layers would read too many or too few features, is
degenerate: it gets the reward -1 without a trial.

CHOICE: smaller than the teacher in both stages (the authors' code compares stage two with the student of stage one, the paper with the
teacher). `paper` are the rules of `faithful`: everything that the graph allows, so that hidden linear layers shrink too.

Notation: L layers, T steps.
"""

from __future__ import annotations

import numpy as np

from raysearch.architecture import Architecture
from raysearch.architecture.refit import (
    FACTORS,
    Rules,
    may_remove,
    may_shrink,
    remove_layers,
    shrink_layers,
)
from raysearch.errors import InvalidArchitecture
from searchers.n2n.steps import (
    FULL,
    KEEP,
    NUM_RATIOS,
    REMOVE,
    Executed,
    removal_steps,
    shrinkage_steps,
)

MOST_FEATURES = 50_000
"""A linear layer reads no more (the authors' code)."""
FEWEST_FEATURES = 10
"""And, in stage two, no fewer."""


class RefitRemoval:
    """Keeps or removes layers of the teacher.

    Attributes:
        steps: the teacher's layers.
    """

    def __init__(self, teacher: Architecture, rules: Rules) -> None:
        self.teacher = teacher
        self.rules = rules
        self.steps = removal_steps(teacher, may_remove(teacher, rules).__getitem__)
        self._places = [teacher.index[name] for name in self.steps.layers]

    def execute(self, actions: np.ndarray) -> Executed:
        asked = np.zeros(len(self.teacher.layers), bool)
        asked[self._places] = self.steps.free & (actions == REMOVE)
        try:
            refit = remove_layers(self.teacher, asked, self.rules)
        except InvalidArchitecture:
            return Executed(None, actions)
        executed = np.where(refit.actions[self._places], REMOVE, KEEP)
        return Executed(_text(refit.student, self.teacher, fewest=1), executed)


class RefitShrinkage:
    """Shrinks layers of a student.

    Args:
        base: the student.
        teacher: what its students must be smaller than.
        windows: kernels and paddings shrink too.

    Attributes:
        steps: the student's layers; a free step decides on the factor of one.
    """

    def __init__(
        self, base: Architecture, teacher: Architecture, rules: Rules, *, windows: bool
    ) -> None:
        self.base = base
        self.teacher = teacher
        self.rules = rules
        allowed = may_shrink(base, rules)  # [L, 3]
        if not windows:
            allowed[:, 1:] = False
        self.steps, places = shrinkage_steps(
            base, lambda place: np.flatnonzero(allowed[place]).tolist()
        )
        free = np.flatnonzero(self.steps.free)
        self._at = ([places[step] for step in free], self.steps.factors[free])

    def execute(self, actions: np.ndarray) -> Executed:
        factors = np.ones((len(self.base.layers), len(FACTORS)))
        factors[self._at] = (actions[self.steps.free] + 1) / NUM_RATIOS
        try:
            refit = shrink_layers(self.base, factors, self.rules)
        except InvalidArchitecture:
            return Executed(None, actions)
        executed = np.full(len(self.steps), FULL, np.int64)
        ratios = np.rint(refit.actions[self._at] * NUM_RATIOS).astype(np.int64)
        executed[self.steps.free] = ratios - 1
        return Executed(_text(refit.student, self.teacher, fewest=FEWEST_FEATURES), executed)


def _text(student: Architecture, teacher: Architecture, *, fewest: int) -> str | None:
    """The student's text; None where it is degenerate."""
    read = [layer.attrs["in_features"] for layer in student.layers if layer.op == "linear"]
    if student.num_params >= teacher.num_params or any(
        not fewest <= features <= MOST_FEATURES for features in read
    ):
        return None
    return student.to_compact()
