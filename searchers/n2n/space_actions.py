"""Actions on a search space: they choose edits, which within a budget are repaired before they are evaluated.

Removal: the space's own removable layers. Shrinkage: one ratio for each channel group, decided at the first of its producers that is left.

    without a budget   a group's ratio is one of its width in the best student of stage one
    within a budget    repair grows whatever leaves room, so that ratios are relative to each other: they are of twice that width (at
                       most the teacher's), which lets a group take what others give

What is credited is what was executed: layers that repair removed or brought back, and the ratio nearest to the width that repair gave
to a group. A width that is only rounded to the group's grid counts as the ratio that was asked for.

Notation: G channel groups, T steps.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from raysearch.architecture import Edits, SearchSpace
from raysearch.architecture.edits import EditsBatch
from raysearch.architecture.refit import FACTORS
from searchers.n2n.steps import (
    FULL,
    KEEP,
    NUM_RATIOS,
    REMOVE,
    Executed,
    removal_steps,
    shrinkage_steps,
)

HEADROOM = 2
"""Within a budget a group may grow to so many times its width in the student of stage one."""
_FILTERS = FACTORS.index("filters")


class SpaceRemoval:
    """Keeps or removes each removable layer of the teacher.

    Attributes:
        steps: the teacher's layers.
    """

    def __init__(self, space: SearchSpace) -> None:
        self.space = space
        self.steps = removal_steps(space.teacher, frozenset(space.removable).__contains__)

    def execute(self, actions: np.ndarray) -> Executed:
        gone = self.steps.free & (actions == REMOVE)
        index = self.space.teacher.index
        remove = tuple(index[self.steps.layers[step]] for step in np.flatnonzero(gone))
        edits = _repaired(self.space, replace(self.space.largest(), remove=remove))
        removed = set(edits.remove)
        executed = [REMOVE if index[name] in removed else KEEP for name in self.steps.layers]
        return Executed(_text(self.space, edits), np.array(executed, np.int64))


class SpaceShrinkage:
    """Shrinks the channel groups of a student.

    Args:
        space: where the students come from.
        base: the student; its removals and skips stay.

    Attributes:
        steps: its layers; a free step decides on a group.
    """

    def __init__(self, space: SearchSpace, base: Edits) -> None:
        self.space = space
        self.base = base
        network = space.apply(base)
        deciding: dict[int, list[int]] = {}  # a layer's index -> the groups that it decides on
        shrinkable = space.groups if "shrink" in space.operations else ()
        for number, group in enumerate(shrinkable):
            left = (name for name in group.producers if network[name].op != "identity")
            first = next(left, None)
            if first is not None:
                deciding.setdefault(network.index[first], []).append(number)
        self.steps, places = shrinkage_steps(
            network, lambda place: [_FILTERS] * len(deciding.get(place, ()))
        )
        queues = {place: iter(groups) for place, groups in deciding.items()}
        self._groups = [
            next(queues[place]) for place, free in zip(places, self.steps.free, strict=True) if free
        ]
        self._reference = self._of_what()

    def _of_what(self) -> np.ndarray:
        """The widths that ratios are of: [G] int64."""
        widths = np.array(self.base.widths, np.int64)
        if not self.space.limits:
            return widths
        return np.minimum(HEADROOM * widths, [group.size for group in self.space.groups])

    def execute(self, actions: np.ndarray) -> Executed:
        asked = np.array(self.base.widths, np.int64)
        decided = actions[self.steps.free]
        asked[self._groups] = np.maximum(
            self._reference[self._groups] * (decided + 1) // NUM_RATIOS, 1
        )
        edits = _repaired(self.space, replace(self.base, widths=tuple(asked.tolist())))
        executed = np.full(len(self.steps), FULL, np.int64)
        executed[self.steps.free] = self._credited(decided, asked, np.array(edits.widths))
        return Executed(_text(self.space, edits), executed)

    def _credited(self, decided: np.ndarray, asked: np.ndarray, given: np.ndarray) -> np.ndarray:
        """The actions that lead to the widths `given` [G]; [decisions]."""
        groups = self._groups
        shares = given[groups] / self._reference[groups]
        nearest = np.clip(np.rint(shares * NUM_RATIOS).astype(np.int64) - 1, 0, FULL)
        steps = np.array([group.divisor for group in self.space.groups], np.int64)[groups]
        only_rounded = np.abs(given - asked)[groups] < steps
        return np.where(only_rounded, decided, nearest)


def _repaired(space: SearchSpace, edits: Edits) -> Edits:
    return space.repair(EditsBatch.from_edits([edits]))[0]


def _text(space: SearchSpace, edits: Edits) -> str | None:
    """The student's text; without a budget None where it is not smaller than the teacher (N2N's code rejects it)."""
    if not space.limits and space.num_params(edits)[0] >= space.teacher.num_params:
        return None
    return str(edits)
