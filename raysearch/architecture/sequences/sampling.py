"""Random chains for Architecture Compression (section 5 of the paper), as sequences of `chains.py`.

"paper" draws every attribute independently: length ~ U(2, 50), type ~ U(1, 8), kernel, stride and padding ~ U(1, 10), outputs ~ U(16,
4096), a linear layer last. About one draw in fifty is a network. "restricted" pads windows of 1, 3 or 5 to keep the size, lets only
pools have a stride, has outputs of 2^4 to 2^9 and no linear layer but the last: it fails only where it draws no convolution.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from raysearch.architecture.sequences.chains import (
    AVG_POOL,
    COLUMNS,
    CONV,
    LINEAR,
    MAX_POOL,
    MAX_ROWS,
    NONE,
)
from raysearch.errors import ConfigError

SAMPLERS = ("paper", "restricted")


def sample_chains(
    n: int,
    seed: int | np.random.Generator,
    input_shape: Sequence[int],
    num_classes: int,
    *,
    sampler: str = "restricted",
) -> np.ndarray:
    """Draws sequences, valid or not (`valid_chains` tells): [n, 50, 5] int64, rows of zeros at the end.

    Attributes that a type does not have are as `encode_sequence` writes them.

    Raises:
        ConfigError: the sampler is not known.
    """
    if sampler not in SAMPLERS:
        raise ConfigError(f"sampler is {sampler!r}: choose one of {', '.join(SAMPLERS)}")
    rng = np.random.default_rng(seed)
    length = rng.integers(2, MAX_ROWS + 1, n)
    rows = (_draw_freely if sampler == "paper" else _draw_restricted)(rng, n)
    place = np.arange(MAX_ROWS)
    rows[place >= length[:, None]] = NONE
    rows[np.arange(n), length - 1] = LINEAR, 0, num_classes, 0, 0
    return _without_unused(rows, input_shape[0])


def _draw_freely(rng: np.random.Generator, n: int) -> np.ndarray:
    rows = np.empty((n, MAX_ROWS, len(COLUMNS)), np.int64)
    rows[..., 0] = rng.integers(CONV, LINEAR + 1, (n, MAX_ROWS))
    rows[..., [1, 3, 4]] = rng.integers(1, 11, (n, MAX_ROWS, 3))
    rows[..., 2] = rng.integers(16, 4097, (n, MAX_ROWS))
    return rows


def _draw_restricted(rng: np.random.Generator, n: int) -> np.ndarray:
    kind = rng.integers(CONV, LINEAR, (n, MAX_ROWS))
    kernel = rng.choice([1, 3, 5], (n, MAX_ROWS))
    outputs = 2 ** rng.integers(4, 10, (n, MAX_ROWS))
    stride = np.where(kind == CONV, 1, rng.integers(1, 3, (n, MAX_ROWS)))
    return np.stack([kind, kernel, outputs, stride, kernel // 2], axis=-1)


def _without_unused(rows: np.ndarray, in_channels: int) -> np.ndarray:
    """Writes 0 for missing attributes, and the channels that arrive where a layer has no outputs of its own."""
    kind = rows[..., 0]
    slides = (kind == CONV) | (kind == MAX_POOL) | (kind == AVG_POOL)
    rows[..., [1, 3, 4]] *= slides[..., None]
    makes = (kind == CONV) | (kind == LINEAR)
    channels = np.full(len(rows), in_channels)
    for place in range(rows.shape[1]):
        channels = np.where(makes[:, place], rows[:, place, 2], channels)
        rows[:, place, 2] = np.where(kind[:, place] == NONE, 0, channels)
    return rows
