"""Repair: moves a whole batch of students into a budget, deterministically, without rejecting any.

    1. widths go onto the grid of their groups;
    2. a student that is too large even at its smallest widths loses its costliest removable layers;
    3. a student that is too large shrinks: one factor on all its widths, then single steps of groups fill the rest;
    4. a student that uses less than 90 % of the budget grows: one factor, then group by group, then removed layers come back;
    5. one that still does not use 90 % is searched nearby: a removed layer comes back, or one group takes a step, while the rest shrinks
       for it; or one group gives a step to the others.

A student inside the budget that uses 90 % of it is left as it is, and step 5 ends where none of its moves helps: repairing twice changes
nothing.

Notation: B candidates, G groups, T terms of the cost model, M limits, L layers, R removable layers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from raysearch.architecture.costs import CostModel
from raysearch.architecture.filling import Filler
from raysearch.architecture.groups import ChannelGroup

ENOUGH = 0.9
"""A student that uses this share of a limit is not grown any more."""
_HALVINGS = 24
_CHUNK = 256
"""Candidates at a time: BLAS stays on one thread (a second one only spins on products this small), arrays stay in the cache."""
_MOVED_LAYERS = 32
"""How many of the costliest removable layers the search nearby brings back."""


@dataclass(frozen=True, eq=False)
class Repairer:
    """What repair needs to know of a space.

    Attributes:
        fill: gives what is left to single groups; knows costs, limits, sizes and steps.
        smallest: [G] int64, the smallest widths (the teacher's where shrinking is not an operation).
        removable: [R] int64 layer indices that may be removed or restored, costliest first.
    """

    fill: Filler
    smallest: np.ndarray
    removable: np.ndarray

    @classmethod
    def of(
        cls,
        costs: CostModel,
        groups: Sequence[ChannelGroup],
        limits: Mapping[int, int],
        *,
        shrink: bool,
        removable: Sequence[int],
        num_layers: int,
    ) -> Repairer:
        """Prepares repair to limits (by column of the cost model); without `shrink` widths stay the teacher's."""
        bounds = np.array(list(limits.values()), np.float64)
        fill = Filler.of(costs, groups, tuple(limits), bounds, num_layers)
        smallest = np.array([group.min_channels for group in groups], np.int64)
        layers = np.array(removable, np.int64)
        if limits and len(layers):
            remove = np.zeros((len(layers) + 1, num_layers), bool)
            remove[np.arange(len(layers)), layers] = True
            totals = costs.totals(costs.keep(remove), fill.sizes[None], fill.metrics)  # [R + 1, M]
            saved = ((totals[-1] - totals[:-1]) / bounds).max(axis=1)
            layers = layers[np.argsort(-saved, kind="stable")]
        return cls(fill, smallest if shrink else fill.sizes, layers)

    def __call__(self, remove: np.ndarray, widths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Repairs remove [B, L] bool and widths [B, G]; returns new arrays."""
        remove, widths = remove.copy(), self.snap(widths)
        if self.fill.metrics:
            for start in range(0, len(widths), _CHUNK):
                rows = slice(start, start + _CHUNK)
                self._repair(remove[rows], widths[rows])
        return remove, widths

    def snap(self, widths: np.ndarray) -> np.ndarray:
        """Rounds widths [B, G] down onto the grid; never below the smallest nor above the teacher's."""
        sizes, steps = self.fill.sizes, self.fill.steps
        floor = np.floor(widths).astype(np.int64)
        return np.where(floor >= sizes, sizes, np.maximum(floor // steps * steps, self.smallest))

    def _repair(self, remove: np.ndarray, widths: np.ndarray) -> None:
        """Repairs one chunk in place."""
        self._remove_to_fit(remove)
        keep = self._keep(remove)
        rows = np.flatnonzero(~self._fits(keep, widths))
        if len(rows):
            widths[rows] = self.fill(keep[rows], self._shrink(keep[rows], widths[rows]), once=True)
        rows = self._hungry(keep, widths, np.arange(len(widths)))
        if len(rows):
            widths[rows] = self.fill(keep[rows], self._grow(keep[rows], widths[rows]), once=True)
            rows = self._hungry(keep, widths, rows)
        if len(rows):
            widths[rows] = self.fill(keep[rows], widths[rows])
            rows = self._hungry(keep, widths, rows)
        while len(rows):
            rows = self._search_nearby(remove, widths, rows)

    def _keep(self, remove: np.ndarray) -> np.ndarray:
        return self.fill.costs.keep(remove)

    def _fits(self, keep: np.ndarray, widths: np.ndarray) -> np.ndarray:
        return np.all(self.fill.slack(keep, widths) >= 0, axis=1)

    def _used(self, keep: np.ndarray, widths: np.ndarray) -> np.ndarray:
        """The largest used share of a limit: [B]."""
        return 1.0 - (self.fill.slack(keep, widths) / self.fill.limits).min(axis=1)

    def _hungry(self, keep: np.ndarray, widths: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Those of the rows that use too little of every limit."""
        return rows[self._used(keep[rows], widths[rows]) < ENOUGH]

    def _remove_to_fit(self, remove: np.ndarray, spared: int = -1) -> None:
        """Removes the costliest layers of students that are too large at the smallest widths; in place."""
        smallest = self.smallest[None]
        rows = np.flatnonzero(~self._fits(self._keep(remove), smallest))
        for layer in self.removable[self.removable != spared]:
            if not len(rows):
                return
            remove[rows, layer] = True
            rows = rows[~self._fits(self._keep(remove[rows]), smallest)]

    def _restore(self, remove: np.ndarray, widths: np.ndarray, rows: np.ndarray) -> None:
        """Brings removed layers back, the costliest first, where they fit; in place."""
        for layer in self.removable:
            back = rows[remove[rows, layer]]
            if not len(back):
                continue
            trial = remove[back]
            trial[:, layer] = False
            fits = self._fits(self._keep(trial), widths[back])
            remove[back[fits], layer] = False
            rows = self._hungry(self._keep(remove), widths, rows)

    def _shrink(
        self, keep: np.ndarray, widths: np.ndarray, least: np.ndarray | None = None
    ) -> np.ndarray:
        """Scales widths that are too large down by the largest factor that fits; none below `least` [B, G], which fits."""
        low, high = np.zeros(len(widths)), np.ones(len(widths))
        return self._scale(keep, widths, low, high, self.smallest if least is None else least)

    def _grow(self, keep: np.ndarray, widths: np.ndarray) -> np.ndarray:
        """Scales widths up by the largest factor that fits."""
        high = (self.fill.sizes / widths).max(axis=1, initial=1.0)
        return self._scale(keep, widths, np.ones(len(widths)), high, self.smallest)

    def _scale(
        self,
        keep: np.ndarray,
        widths: np.ndarray,
        low: np.ndarray,
        high: np.ndarray,
        least: np.ndarray,
    ) -> np.ndarray:
        """Multiplies each student's widths by the largest factor in [low, high] that fits; low always does.

        Args:
            keep: [B, T].
            widths: [B, G].
            low, high: [B].
            least: [G] or [B, G], widths on the grid that no factor goes below.
        """

        def scaled(factor: np.ndarray) -> np.ndarray:
            return np.maximum(self.snap(widths * factor[:, None]), least)

        best, top = scaled(low), scaled(high)
        whole = self._fits(keep, top)
        best[whole] = top[whole]
        low = np.where(whole, high, low)
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            trial = scaled(middle)
            fits = self._fits(keep, trial)
            best[fits] = trial[fits]
            low, high = np.where(fits, middle, low), np.where(fits, high, middle)
        return best

    def _search_nearby(
        self, remove: np.ndarray, widths: np.ndarray, rows: np.ndarray
    ) -> np.ndarray:
        """Tries every move once on students that use too little, and keeps what uses more; in place.

        Returns:
            The rows that improved and still use too little.
        """
        self._restore(remove, widths, rows)
        improved = np.zeros(len(widths), bool)
        costliest = self.removable[:_MOVED_LAYERS]
        moves: list[tuple[_Move, int]] = [(self._bring_back, int(layer)) for layer in costliest]
        for move in (self._widen, self._narrow):
            moves += [(move, group) for group in self.fill.order]
        for move, place in moves:
            rows = self._hungry(self._keep(remove), widths, rows)
            if not len(rows):
                break
            able, trial_remove, trial = move(remove, widths, rows, place)
            before = self._used(self._keep(remove[able]), widths[able])
            better = self._used(self._keep(trial_remove), trial) > before
            remove[able[better]], widths[able[better]] = trial_remove[better], trial[better]
            improved[able[better]] = True
        return rows[improved[rows]]

    # A move takes remove [B, L], widths [B, G], the rows to try, and a layer or group; it returns the rows where it is possible, and
    # their new remove and widths.

    def _bring_back(
        self, remove: np.ndarray, widths: np.ndarray, rows: np.ndarray, layer: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Restores a layer; all widths shrink to make room, and where that is not enough others are removed."""
        rows = rows[remove[rows, layer]]
        trial = remove[rows]
        trial[:, layer] = False
        self._remove_to_fit(trial, spared=layer)
        possible = self._fits(self._keep(trial), self.smallest[None])
        rows, trial = rows[possible], trial[possible]
        keep = self._keep(trial)
        shrunk = self.fill(keep, self._shrink(keep, widths[rows]))
        self._restore(trial, shrunk, self._hungry(keep, shrunk, np.arange(len(rows))))
        return rows, trial, shrunk

    def _widen(
        self, remove: np.ndarray, widths: np.ndarray, rows: np.ndarray, group: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Gives a group one step; the other widths shrink to make room."""
        size, step = self.fill.sizes[group], self.fill.steps[group]
        rows = rows[widths[rows, group] < size]
        trial = widths[rows]
        trial[:, group] = np.minimum(trial[:, group] + step, size)
        least = np.broadcast_to(self.smallest, trial.shape).copy()
        least[:, group] = trial[:, group]
        possible = self._fits(self._keep(remove[rows]), least)
        rows, trial, least = rows[possible], trial[possible], least[possible]
        keep = self._keep(remove[rows])
        return rows, remove[rows], self.fill(keep, self._shrink(keep, trial, least))

    def _narrow(
        self, remove: np.ndarray, widths: np.ndarray, rows: np.ndarray, group: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Takes one step from a group; the others are filled."""
        rows = rows[widths[rows, group] > self.smallest[group]]
        trial = widths[rows]
        step = self.fill.steps[group]
        narrower = (trial[:, group] - 1) // step * step
        trial[:, group] = np.maximum(narrower, self.smallest[group])
        return rows, remove[rows], self.fill(self._keep(remove[rows]), trial, last=group)


_Move = Callable[
    [np.ndarray, np.ndarray, np.ndarray, int], tuple[np.ndarray, np.ndarray, np.ndarray]
]
