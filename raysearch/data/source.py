"""A source: what a loader found, before anything is split, checked or normalised."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Source:
    """The parts of a data set as they were stored.

    Attributes:
        name: as in DataSet.
        parts: "train" and perhaps "validation" and "test" -> (images [N, C, H, W], or [N, C, L] or [N, C, D, H, W], labels [N]).
        classes: the classes' names, or None where only the labels tell.
        scale: see Preprocessing; None: 1/255. Floating-point images are not normalised at all.
        augment: what `data.augment: auto` means here; None: decided by the size.
        notes: as in DataSet.
        num_test: rows to split off for the test part where there is none; None: 15 %.
    """

    name: str
    parts: Mapping[str, tuple[np.ndarray, np.ndarray]]
    classes: tuple[str, ...] | None = None
    scale: float | None = None
    augment: str | None = None
    notes: tuple[str, ...] = ()
    num_test: int | None = None
