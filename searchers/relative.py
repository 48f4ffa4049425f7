"""Hand-made features of students that mean the same whatever the teacher, so that one search's model can read another's students.

Everything is relative to the teacher: shares of layers and channels, by thirds of its depth, and what is left of its parameters and
MACs. The columns' number does not depend on the network (`SearchSpace.features`, with a column for each layer and width, does).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from raysearch.architecture import Architecture, EditsBatch, SearchSpace

THIRDS = 3
KINDS = ("weights", "norm", "other")
"""Of removable layers: convolutions and linear layers; normalisations; all else."""

_OCTAVES, _DECADES = 4.0, 3.0
"""log2 of the usual smallest share of a width, and log10 of that of the parameters: they scale columns to about unit range."""

BLOCKS = {
    "kept": slice(0, 9),
    "width": slice(9, 12),
    "narrowest": slice(12, 13),
    "skips": slice(13, 14),
    "params": slice(14, 15),
    "macs": slice(15, 16),
}
"""The columns of each block."""


def relative_features(space: SearchSpace, batch: EditsBatch) -> np.ndarray:
    """The features [n, 16] float64 of a space's students.

    `kept`: the share of removable layers that are left, by kind and third (1 where there are none); `width`: the mean log2 of the share of
    channels that convolutions and linear layers make, by third, and `narrowest` its least; `skips`: log(1 + number) over the log of all
    pairs; `params` and `macs`: log10 of the teacher's share.
    """
    teacher = space.teacher
    kept = 1.0 - batch.remove[:, list(space.removable)]  # [n, R]
    kept = _means(kept, _places(teacher, space.removable), empty=1.0)  # [n, 9]
    makers = tuple(i for i, layer in enumerate(teacher.layers) if _kind(layer.op) == "weights")
    full = space.channel_numbers(np.array([space.largest().widths], np.int64))  # [1, L]
    share = space.channel_numbers(batch.widths) / np.maximum(full, 1)
    width = np.log2(share[:, list(makers)]) / _OCTAVES  # [n, makers]
    thirds = _thirds(teacher)
    places = np.array([thirds[i] == np.arange(THIRDS) for i in makers]).reshape(-1, THIRDS)
    widths = _means(width, places, empty=0.0)  # [n, 3]
    skips = np.bincount(batch.skip_rows, minlength=len(batch))
    columns = [
        kept,
        widths,
        width.min(axis=1, initial=0.0)[:, None],
        (np.log1p(skips) / np.log1p(max(len(space.skip_pairs), 1)))[:, None],
        _log_share(space.num_params(batch), teacher.num_params)[:, None],
        _log_share(space.macs(batch), teacher.macs)[:, None],
    ]
    return np.concatenate(columns, axis=1)


def _kind(op: str) -> str:
    if op in ("conv", "conv_transpose", "linear"):
        return "weights"
    return "norm" if op.endswith("_norm") else "other"


def _thirds(teacher: Architecture) -> np.ndarray:
    """[L] which third of the depth each layer is in."""
    count = len(teacher.layers)
    return np.arange(count) * THIRDS // count


def _places(teacher: Architecture, layers: tuple[int, ...]) -> np.ndarray:
    """For each layer the column of its kind and third: one-hot [k, 9]."""
    thirds = _thirds(teacher)
    kinds = [KINDS.index(_kind(teacher.layers[i].op)) for i in layers]
    columns = np.arange(len(KINDS) * THIRDS)
    places = [kind * THIRDS + thirds[i] == columns for i, kind in zip(layers, kinds, strict=True)]
    return np.array(places).reshape(-1, len(columns))


def _means(values: np.ndarray, places: np.ndarray, *, empty: float) -> np.ndarray:
    """Means of columns [n, k] over their places, one-hot [k, c]: [n, c]; `empty` where a place has none."""
    counts = places.sum(axis=0)
    return np.where(counts > 0, values @ places.astype(float) / np.maximum(counts, 1), empty)


def _log_share(number: np.ndarray, whole: int) -> np.ndarray:
    return np.log10(np.maximum(number, 1) / max(whole, 1)) / _DECADES
