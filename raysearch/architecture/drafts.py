"""Students under repair: arrays of a chunk that repair edits in place."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from raysearch.architecture.limits import Limits, Load


@dataclass(eq=False)
class Drafts:
    """Students under repair.

    Attributes:
        remove: [B, L] bool.
        widths: [B, G] int64.
        skips: [B, P] bool, without those into removed layers; [B, 0] where skips do not matter.
        bounds: [B, M] float64, the limits of each student.
    """

    remove: np.ndarray
    widths: np.ndarray
    skips: np.ndarray
    bounds: np.ndarray
    _load: Load | None = None

    def __len__(self) -> int:
        return len(self.widths)

    def __getitem__(self, rows: np.ndarray) -> Drafts:
        """Copies of some students."""
        load = None if self._load is None else self._load[rows]
        return Drafts(
            self.remove[rows], self.widths[rows], self.skips[rows], self.bounds[rows], load
        )

    def __setitem__(self, rows: np.ndarray, others: Drafts) -> None:
        if not np.array_equal(self.remove[rows], others.remove):
            self._load = None
        self.remove[rows], self.widths[rows] = others.remove, others.widths
        self.skips[rows] = others.skips

    def load(self, limits: Limits) -> Load:
        """What the costs depend on besides the widths; kept until layers or skips change."""
        if self._load is None:
            self._load = limits.load(self.remove, self.skips, self.bounds)
        return self._load

    def change_layer(self, rows: np.ndarray, layer: int, gone: bool, into: np.ndarray) -> None:
        """Removes a layer, with the skips into it (pairs `into`), or restores it."""
        if not len(rows):
            return
        self.remove[rows, layer] = gone
        if gone and len(into) and self.skips.shape[1]:
            self.skips[np.ix_(rows, into)] = False
        self._load = None

    def keep_skips(self, rows: np.ndarray, skips: np.ndarray) -> None:
        """Gives some students other skips [n, P]."""
        if not len(rows):
            return
        self.skips[rows] = skips
        self._load = None
