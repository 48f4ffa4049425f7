"""Layers as what N2N's policies read: rows of numbers of about unit range.

    type one-hot (11) | k/k_max | s/s_max | p/p_max | log2(1+n)/log2(1+n_max) | s_start/m, s_end/m

k_max, s_max, p_max and n_max are the network's own greatest; m is that of both positions. The number of features does not depend on the
number of layers, so that a policy reads any network. DEVIATION: the authors feed the raw integers, whose channel numbers saturate an
LSTM; `raw` does so.

Notation: T steps, F features.
"""

from __future__ import annotations

import numpy as np

from raysearch.architecture.refit import FACTORS
from raysearch.architecture.sequences.policy import COLUMNS, N2N_TYPES

_TYPE, _OUTPUTS = COLUMNS.index("type"), COLUMNS.index("outputs")
_PLAIN = [COLUMNS.index(name) for name in ("kernel", "stride", "padding")]
_PLACES = [COLUMNS.index(name) for name in ("start", "end")]


def num_features(*, raw: bool) -> int:
    """F of `encode_rows`."""
    return len(COLUMNS) if raw else len(N2N_TYPES) + len(COLUMNS) - 1


def encode_rows(rows: np.ndarray, *, raw: bool) -> np.ndarray:
    """The features of a network's layers: [T, F] float32.

    Args:
        rows: [T, 7] of `policy_sequence`.
        raw: the integers as they are.
    """
    if raw:
        return rows.astype(np.float32)
    types = np.eye(len(N2N_TYPES))[rows[:, _TYPE]]  # [T, 11]
    plain = rows[:, _PLAIN] / _greatest(rows[:, _PLAIN])
    outputs = np.log2(1.0 + rows[:, [_OUTPUTS]])
    places = rows[:, _PLACES] / rows[:, _PLACES].max(initial=1)
    parts = (types, plain, outputs / _greatest(outputs), places)
    return np.concatenate(parts, axis=1).astype(np.float32)


def encode_factors(factors: np.ndarray) -> np.ndarray:
    """What a step of shrinkage decides on, one-hot: [T, 3] float32, zeros where it decides on nothing.

    Args:
        factors: [T] positions in `FACTORS`, or -1.
    """
    return (factors[:, None] == np.arange(len(FACTORS))).astype(np.float32)


def _greatest(columns: np.ndarray) -> np.ndarray:
    return np.maximum(columns.max(axis=0, initial=0), 1)
