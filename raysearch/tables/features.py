"""What the surrogate of a table sees of a student: all of it exact and known before any training."""

from __future__ import annotations

import numpy as np

from raysearch.architecture import SearchSpace
from raysearch.architecture.edits import EditsBatch
from raysearch.architecture.encoding import ALL_TYPES

NUM_COSTS = 2
"""The first columns."""
_OUT = 5  # the column of output channels in the compact form's attributes


def describe_students(space: SearchSpace, batch: EditsBatch) -> np.ndarray:
    """[n, D] float64: the logarithms of parameters and MACs (columns 0 and 1); `SearchSpace.features` (bits, widths, depth of each stage,
    skips, share of parameters); log channels of each layer (0 where it is gone), the narrowest of them, the number of layers.
    """
    compact = space.encode_compact(batch)
    live = compact.types != ALL_TYPES.index("identity")  # [n, L]
    channels = np.log1p(compact.attrs[:, :, _OUT]) * live  # [n, L]
    narrowest = np.where(channels > 0, channels, np.inf).min(axis=1, initial=np.inf)
    costs = [space.num_params(batch), space.macs(batch)]
    return np.concatenate(
        [
            np.log(np.maximum(np.stack(costs, axis=1), 1)),
            space.features(batch),
            channels,
            np.where(np.isfinite(narrowest), narrowest, 0)[:, None],
            live.sum(axis=1)[:, None],
        ],
        axis=1,
    ).astype(np.float64)
