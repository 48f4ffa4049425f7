"""Repair: moves a whole batch of students into a budget, deterministically, without rejecting any.

    1. widths go onto the grid of their groups;
    2. a student that is too large even at its smallest widths loses skips (where memory is limited: they make tensors live longer), then
       its costliest removable layers;
    3. a student that is too large shrinks: one factor on all its widths, then single steps of groups fill the rest;
    4. a student that uses less than 90 % of every limit grows: one factor, then group by group, then removed layers come back;
    5. one that still does not use 90 % is searched nearby: a removed layer comes back, or one group takes a step, while the rest shrinks
       for it; or one group gives a step to the others.

A student inside the budget that uses 90 % of it is left as it is, and step 5 ends where none of its moves helps: repairing twice changes
nothing. No cost falls where a width grows, a layer comes back or a skip is added; that is all that repair knows of the limits.

Notation: B candidates, G groups, M limits, L layers, R removable layers, P skip pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from raysearch.architecture.drafts import Drafts
from raysearch.architecture.edits import EditsBatch
from raysearch.architecture.filling import Filler
from raysearch.architecture.groups import ChannelGroup
from raysearch.architecture.limits import Limits, Load

ENOUGH = 0.9
"""A student that uses this share of a limit is not grown any more."""
_HALVINGS = 24
_MOVED_LAYERS = 32
"""How many of the costliest removable layers the search nearby brings back."""
_GAIN = 1e-9
"""A move must use so much more: the rounding of costs that are no whole numbers is not a gain."""


@dataclass(frozen=True, eq=False)
class Repairer:
    """What repair needs to know of a space.

    Attributes:
        limits: the limited metrics.
        fill: gives what is left to single groups; knows sizes and steps.
        smallest: [G] int64, the smallest widths (the teacher's where shrinking is not an operation).
        removable: [R] int64 layer indices that may be removed or restored, costliest first.
        targets: [P] int64, the layers that the skip pairs lead to.
        skip_order: [P] int64, the skip pairs, those first that hold most for longest.
        grow: fill the budget (steps 4 and 5).
    """

    limits: Limits
    fill: Filler
    smallest: np.ndarray
    removable: np.ndarray
    targets: np.ndarray
    skip_order: np.ndarray
    grow: bool

    @classmethod
    def of(
        cls,
        limits: Limits,
        groups: Sequence[ChannelGroup],
        *,
        shrink: bool,
        removable: Sequence[int],
        skip_pairs: np.ndarray,
        num_layers: int,
        grow: bool = True,
    ) -> Repairer:
        """Prepares repair to limits; without `shrink` widths stay the teacher's."""
        one = np.zeros((1, num_layers), bool), np.zeros((1, len(skip_pairs)), bool)
        fill = Filler.of(limits, groups, one)
        smallest = np.array([group.min_channels for group in groups], np.int64)
        layers = np.array(removable, np.int64)
        if limits.columns and len(layers):
            layers = _costliest(limits, layers, fill.sizes, num_layers, len(skip_pairs))
        order = np.arange(len(skip_pairs))
        if limits.liveness is not None:
            order = _longest(limits, smallest, skip_pairs)
        widths = smallest if shrink else fill.sizes
        return cls(limits, fill, widths, layers, skip_pairs[:, 1], order, grow)

    def __call__(self, batch: EditsBatch, bounds: np.ndarray | None = None) -> EditsBatch:
        """Repairs a batch; the result has no skips into removed layers.

        Args:
            batch: `remove` has a column for every layer.
            bounds: [B, M], limits of each student that are tighter than the space's; the smallest student must be inside them.
        """
        remove, widths = batch.remove.copy(), self.snap(batch.widths)
        kept = np.ones(len(batch.skip_rows), bool)
        if bounds is None:
            bounds = np.broadcast_to(self.limits.bounds, (len(widths), len(self.limits.bounds)))
        if self.limits.columns:
            for start in range(0, len(widths), self.limits.chunk):
                rows = slice(start, start + self.limits.chunk)
                entries = slice(*np.searchsorted(batch.skip_rows, [start, rows.stop]))
                skips = batch.skip_rows[entries] - start, batch.skip_pairs[entries]
                drafts = self._drafts(remove[rows], widths[rows], skips, bounds[rows])
                self._repair(drafts)
                if drafts.skips.shape[1]:
                    kept[entries] = drafts.skips[skips]
        kept &= ~remove[batch.skip_rows, self.targets[batch.skip_pairs]]
        return EditsBatch(remove, widths, batch.skip_rows[kept], batch.skip_pairs[kept])

    def snap(self, widths: np.ndarray) -> np.ndarray:
        """Rounds widths [B, G] down onto the grid; never below the smallest nor above the teacher's."""
        sizes, steps = self.fill.sizes, self.fill.steps
        floor = np.floor(widths).astype(np.int64)
        return np.where(floor >= sizes, sizes, np.maximum(floor // steps * steps, self.smallest))

    def _drafts(
        self,
        remove: np.ndarray,
        widths: np.ndarray,
        skips: tuple[np.ndarray, np.ndarray],
        bounds: np.ndarray,
    ) -> Drafts:
        """A chunk to be edited in place; skips as (rows, pairs)."""
        dense = np.zeros(
            (len(remove), len(self.targets) if self.limits.liveness is not None else 0), bool
        )
        if dense.shape[1]:
            dense[skips] = True
            dense &= ~remove[:, self.targets]
        return Drafts(remove, widths, dense, bounds)

    def _repair(self, drafts: Drafts) -> None:
        """Repairs one chunk in place."""
        self._drop_skips(drafts)
        self._remove_to_fit(drafts)
        load, widths = self._load(drafts), drafts.widths
        rows = np.flatnonzero(~self._fits(load, widths))
        if len(rows):
            widths[rows] = self.fill(load[rows], self._shrink(load[rows], widths[rows]), once=True)
        if not self.grow:
            return
        rows = self._hungry(load, widths, np.arange(len(widths)))
        if len(rows):
            widths[rows] = self.fill(load[rows], self._grow(load[rows], widths[rows]), once=True)
            rows = self._hungry(load, widths, rows)
        if len(rows):
            widths[rows] = self.fill(load[rows], widths[rows])
            rows = self._hungry(load, widths, rows)
        if len(rows):
            used = self.limits.used(load, widths)
            while len(rows):
                rows = self._search_nearby(drafts, rows, used)

    def _load(self, drafts: Drafts) -> Load:
        return drafts.load(self.limits)

    def _fits(self, load: Load, widths: np.ndarray) -> np.ndarray:
        return self.limits.fits(load, widths)

    def _hungry(self, load: Load, widths: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Those of the rows that use too little of every limit."""
        return rows[self.limits.used(load[rows], widths[rows]) < ENOUGH]

    def _drop_skips(self, drafts: Drafts) -> None:
        """Takes the costliest skips, as few as possible, from students that are too large at the smallest widths; in place."""
        if not drafts.skips.any():
            return
        smallest = self.smallest[None]
        rows = np.flatnonzero(~self._fits(self._load(drafts), smallest))
        rank = np.cumsum(drafts.skips[np.ix_(rows, self.skip_order)], axis=1)  # [n, P], from 1
        ranks = np.empty_like(rank)
        ranks[:, self.skip_order] = rank
        skips, trial = drafts.skips[rows], drafts[rows]
        fewest, most = np.zeros(len(rows), np.int64), rank[:, -1]
        while (fewest < most).any():
            middle = (fewest + most) // 2
            trial.keep_skips(np.arange(len(rows)), skips & (ranks > middle[:, None]))
            fits = self._fits(self._load(trial), smallest)
            fewest, most = np.where(fits, fewest, middle + 1), np.where(fits, middle, most)
        drafts.keep_skips(rows, skips & (ranks > fewest[:, None]))

    def _change_layer(self, drafts: Drafts, rows: np.ndarray, layer: int, gone: bool) -> None:
        drafts.change_layer(rows, layer, gone, np.flatnonzero(self.targets == layer))

    def _remove_to_fit(self, drafts: Drafts, spared: int = -1) -> None:
        """Removes the costliest layers of students that are too large at the smallest widths; in place."""
        smallest = self.smallest[None]
        rows = np.flatnonzero(~self._fits(self._load(drafts), smallest))
        for layer in self.removable[self.removable != spared]:
            if not len(rows):
                return
            self._change_layer(drafts, rows, int(layer), gone=True)
            rows = rows[~self._fits(self._load(drafts[rows]), smallest)]

    def _restore(self, drafts: Drafts, rows: np.ndarray, used: np.ndarray) -> None:
        """Brings removed layers back, the costliest first, where they fit; in place, as is `used` [B]."""
        for layer in self.removable:
            rows = rows[used[rows] < ENOUGH]
            back = rows[drafts.remove[rows, layer]]
            if not len(back):
                continue
            trial = drafts[back]
            self._change_layer(trial, np.arange(len(back)), int(layer), gone=False)
            slack = self.limits.slack(self._load(trial), trial.widths)
            fits = np.all(slack >= 0, axis=1)
            self._change_layer(drafts, back[fits], int(layer), gone=False)
            used[back[fits]] = (1.0 - (slack / trial.bounds).min(axis=1))[fits]

    def _shrink(
        self, load: Load, widths: np.ndarray, least: np.ndarray | None = None
    ) -> np.ndarray:
        """Scales widths that are too large down by the largest factor that fits; none below `least` [B, G], which fits."""
        low, high = np.zeros(len(widths)), np.ones(len(widths))
        return self._scale(load, widths, low, high, self.smallest if least is None else least)

    def _grow(self, load: Load, widths: np.ndarray) -> np.ndarray:
        """Scales widths up by the largest factor that fits."""
        high = (self.fill.sizes / widths).max(axis=1, initial=1.0)
        return self._scale(load, widths, np.ones(len(widths)), high, self.smallest)

    def _scale(
        self,
        load: Load,
        widths: np.ndarray,
        low: np.ndarray,
        high: np.ndarray,
        least: np.ndarray,
    ) -> np.ndarray:
        """Multiplies each student's widths by the largest factor in [low, high] that fits; low always does.

        Args:
            load: of the B students.
            widths: [B, G].
            low, high: [B].
            least: [G] or [B, G], widths on the grid that no factor goes below.
        """

        def scaled(factor: np.ndarray) -> np.ndarray:
            return np.maximum(self.snap(widths * factor[:, None]), least)

        best, top = scaled(low), scaled(high)
        whole = self._fits(load, top)
        best[whole] = top[whole]
        low = np.where(whole, high, low)
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            trial = scaled(middle)
            fits = self._fits(load, trial)
            best[fits] = trial[fits]
            low, high = np.where(fits, middle, low), np.where(fits, high, middle)
        return best

    def _search_nearby(self, drafts: Drafts, rows: np.ndarray, used: np.ndarray) -> np.ndarray:
        """Tries every move once on students that use too little, and keeps what uses more; in place.

        Args:
            drafts: B students.
            rows: those that use too little.
            used: [B], the largest used share of a limit; in place.

        Returns:
            The rows that improved and still use too little.
        """
        self._restore(drafts, rows, used)
        improved = np.zeros(len(drafts), bool)
        costliest = self.removable[:_MOVED_LAYERS]
        moves: list[tuple[_Move, int]] = [(self._bring_back, int(layer)) for layer in costliest]
        for move in (self._widen, self._narrow):
            moves += [(move, group) for group in self.fill.order]
        for move, place in moves:
            rows = rows[used[rows] < ENOUGH]
            if not len(rows):
                break
            able, trial = move(drafts, rows, place)
            if not len(able):
                continue
            after = self.limits.used(self._load(trial), trial.widths)
            better = after > used[able] + _GAIN
            if better.any():
                drafts[able[better]] = trial[better]
                used[able[better]], improved[able[better]] = after[better], True
        return rows[improved[rows] & (used[rows] < ENOUGH)]

    # A move takes the students, the rows to try, and a layer or group; it returns the rows where it is possible, and what they become.

    def _bring_back(
        self, drafts: Drafts, rows: np.ndarray, layer: int
    ) -> tuple[np.ndarray, Drafts]:
        """Restores a layer; all widths shrink to make room, and where that is not enough others are removed."""
        rows = rows[drafts.remove[rows, layer]]
        trial = drafts[rows]
        if not len(rows):
            return rows, trial
        self._change_layer(trial, np.arange(len(rows)), layer, gone=False)
        self._remove_to_fit(trial, spared=layer)
        possible = self._fits(self._load(trial), self.smallest[None])
        rows, trial = rows[possible], trial[possible]
        load = self._load(trial)
        trial.widths = self.fill(load, self._shrink(load, trial.widths))
        self._restore(trial, np.arange(len(rows)), self.limits.used(load, trial.widths))
        return rows, trial

    def _widen(self, drafts: Drafts, rows: np.ndarray, group: int) -> tuple[np.ndarray, Drafts]:
        """Gives a group one step; the other widths shrink to make room."""
        size, step = self.fill.sizes[group], self.fill.steps[group]
        self._load(drafts)
        rows = rows[drafts.widths[rows, group] < size]
        trial = drafts[rows]
        trial.widths[:, group] = np.minimum(trial.widths[:, group] + step, size)
        least = np.broadcast_to(self.smallest, trial.widths.shape).copy()
        least[:, group] = trial.widths[:, group]
        possible = self._fits(self._load(trial), least)
        rows, trial, least = rows[possible], trial[possible], least[possible]
        load = self._load(trial)
        trial.widths = self.fill(load, self._shrink(load, trial.widths, least))
        return rows, trial

    def _narrow(self, drafts: Drafts, rows: np.ndarray, group: int) -> tuple[np.ndarray, Drafts]:
        """Takes one step from a group; the others are filled."""
        self._load(drafts)
        rows = rows[drafts.widths[rows, group] > self.smallest[group]]
        trial = drafts[rows]
        step = self.fill.steps[group]
        narrower = (trial.widths[:, group] - 1) // step * step
        trial.widths[:, group] = np.maximum(narrower, self.smallest[group])
        trial.widths = self.fill(self._load(trial), trial.widths, last=group)
        return rows, trial


_Move = Callable[[Drafts, np.ndarray, int], tuple[np.ndarray, Drafts]]


def _costliest(
    limits: Limits, layers: np.ndarray, sizes: np.ndarray, num_layers: int, num_pairs: int
) -> np.ndarray:
    """The layers [R] in the order of what removing one from the teacher saves, as a share of a limit."""
    remove = np.zeros((len(layers) + 1, num_layers), bool)
    remove[np.arange(len(layers)), layers] = True
    slack = []
    for start in range(0, len(remove), limits.chunk):
        chunk = remove[start : start + limits.chunk]
        load = limits.load(chunk, np.zeros((len(chunk), num_pairs), bool))
        slack.append(limits.slack(load, sizes[None]))
    used = limits.bounds - np.concatenate(slack)  # [R + 1, M]
    saved = ((used[-1] - used[:-1]) / limits.bounds).max(axis=1)
    return layers[np.argsort(-saved, kind="stable")]


def _longest(limits: Limits, smallest: np.ndarray, skip_pairs: np.ndarray) -> np.ndarray:
    """The skip pairs [P] in the order of what they hold at the smallest widths times for how many layers."""
    assert limits.liveness is not None
    sources, targets = skip_pairs.T
    elements = limits.liveness.elements[sources]
    held = elements[:, :-1] @ smallest + elements[:, -1]
    return np.argsort(-held * (targets - sources), kind="stable")
