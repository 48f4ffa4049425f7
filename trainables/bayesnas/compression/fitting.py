"""Structures within limits: what goes first where a budget asks for more than the prior does."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch

from raysearch.architecture import SearchSpace
from trainables.bayesnas.compression.saliency import Coherence, Unit, units
from trainables.bayesnas.compression.structure import Builder, Structure

CLOSE = 1.05
"""Within this factor of the limits the last cut is made; farther away, half of the way (by factors) is gone, and prices are taken anew."""
FILLING = 64
"""So many of the units that were taken last may come back where they fit."""
MAX_CUTS = 4
"""So many cuts are compared."""
FILLED = 0.99
"""A cut that leaves so much of a limit in use is good enough."""

Limits = Mapping[str, float]


class Fitter:
    """Takes channels and inputs away until limits are met.

    Args:
        builder: of structures.
        space: counts students; its limits are the budget.
    """

    def __init__(self, builder: Builder, space: SearchSpace) -> None:
        self._builder = builder
        self._counts = {"params": space.num_params, "macs": space.macs, "memory": space.memory}
        self._limits = dict(space.limits)
        self._weight_costs = self._find_weight_costs()

    def cost(self, metric: str, structure: Structure) -> float:
        """What a structure's student costs, exactly."""
        return float(self._counts[metric](self._builder.edits(structure))[0])

    def fits(self, structure: Structure, limits: Limits) -> bool:
        """Whether a structure's student is within limits; without any it is."""
        return all(self.cost(metric, structure) <= limit for metric, limit in limits.items())

    def interim(self, share: float) -> dict[str, float]:
        """The limits on the way to the budget, from the teacher's costs (0) to it (1), by factors."""
        whole = self._builder.whole()
        return {
            metric: self.cost(metric, whole) ** (1 - share) * limit**share
            for metric, limit in self._limits.items()
        }

    def within(
        self,
        structure: Structure,
        limits: Limits,
        *,
        losses: Mapping[str, torch.Tensor],
        worth: np.ndarray,
        together: Coherence | None = None,
    ) -> Structure:
        """Takes away the units of the least price until limits are met; as far as that goes.

        Args:
            structure: what is there.
            limits: by metric.
            losses: the quadratic loss of each weight.
            worth: [G] that of each group.
            together: what weights lose together.
        """
        while not self.fits(structure, limits):
            smaller = self._cut(structure, limits, losses, worth, together)
            if smaller.living.sum() >= structure.living.sum():
                break  # nothing is left to take
            structure = smaller
        return structure

    def _cut(
        self,
        structure: Structure,
        limits: Limits,
        losses: Mapping[str, torch.Tensor],
        worth: np.ndarray,
        together: Coherence | None,
    ) -> Structure:
        """One cut: to the limits where they are close, else half of the way there."""
        builder = self._builder
        masks = builder.masks(structure, losses)
        living = {key: loss * masks[key] if key in masks else loss for key, loss in losses.items()}
        costs = self._weight_costs
        order = units(builder.places, builder.groups, structure, living, costs, together)
        if not order:
            return structure
        close = self.fits(structure, {metric: limit * CLOSE for metric, limit in limits.items()})
        goal = {
            metric: limit if close else max(limit, math.sqrt(limit * self.cost(metric, structure)))
            for metric, limit in limits.items()
        }
        return self._cut_to(structure, order, goal, worth)

    def _cut_to(
        self, structure: Structure, order: Sequence[Unit], goal: Limits, worth: np.ndarray
    ) -> Structure:
        """The cut of the least loss among some that meet a goal.

        The unit that carries the first one there may be far larger than what is still too much. So another one spares it and whatever is as large, and so on.
        """

        def without(gone: Sequence[Unit]) -> Structure:
            left = structure.living.copy()
            if gone:
                left[np.concatenate([unit.groups for unit in gone])] = False
            return self._builder.settle(left, worth)

        def fits(gone: Sequence[Unit]) -> bool:
            return self.fits(without(gone), goal)

        best, least = structure, math.inf
        for _ in range(MAX_CUTS):
            gone = _fewest(order, fits)
            if not gone or (least < math.inf and not fits(gone)):
                break
            if self._is_filled(without(gone), goal):
                return without(gone) if sum(unit.loss for unit in gone) < least else best
            carrying, before = gone[-1], gone[:-1]
            # widths have grids, and a last step may be a large one: what still fits comes back
            for unit in gone[: -FILLING - 1 : -1]:
                others = [one for one in gone if one is not unit]
                if fits(others):
                    gone = others
            if (loss := sum(unit.loss for unit in gone)) < least:
                best, least = without(gone), loss
            smaller = [unit for unit in order[len(before) :] if unit.saved < carrying.saved]
            order = [*before, *smaller]
        return best

    def _is_filled(self, structure: Structure, limits: Limits) -> bool:
        return any(
            self.cost(metric, structure) >= FILLED * limit for metric, limit in limits.items()
        )

    def _find_weight_costs(self) -> dict[str, float]:
        """Layer -> what one weight takes of the tightest limit: a parameter, or as many MACs as its filter has places."""
        found: dict[str, float] = {}
        places = self._builder.places
        for filters in places.filters:
            layer = filters.layer
            size = layer.shape[places.architecture.axis(layer.name)]
            each = {"params": 1.0, "memory": 4.0, "macs": math.prod(layer.shape) / max(1, size)}
            found[layer.name] = max(
                each[metric] / self._limits.get(metric, 1.0)
                for metric in (self._limits or ("params",))
            )
        return found


def _fewest(order: Sequence[Unit], fits: Callable[[Sequence[Unit]], bool]) -> list[Unit]:
    """As few of the first units as fit, by bisection; all of them where they do not."""
    fewest, most = 1, len(order)
    while fewest < most:
        middle = (fewest + most) // 2
        if fits(order[:middle]):
            most = middle
        else:
            fewest = middle + 1
    return list(order[:most])
