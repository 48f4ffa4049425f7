"""Disjoint, stratified, seeded parts of a labelled set."""

from __future__ import annotations

import math

import numpy as np

from raysearch.errors import ConfigError, DataError


def check_share(value: float, field: str) -> None:
    """Raise ConfigError unless `value` is a fraction in (0, 1) or a whole number of rows >= 1."""
    whole = isinstance(value, int) and not isinstance(value, bool) and value >= 1
    if not whole and not (isinstance(value, float) and 0 < value < 1):
        raise ConfigError(
            f"{field} is {value!r}, but it must be a fraction between 0 and 1 or a number of rows"
        )


def stratified_split(
    labels: np.ndarray, share: float, *, seed: int, field: str
) -> tuple[np.ndarray, np.ndarray]:
    """Take `share` of the rows away, the same share of every class as nearly as whole rows allow.

    Every class keeps at least one row, so a class with a single row gives none.

    Args:
        labels: [N] int64.
        share: a fraction in (0, 1), or a number of rows.
        field: the configuration key that asked for it, for the error message.

    Returns:
        (kept, taken): ascending rows, disjoint, together 0..N-1.
    """
    check_share(share, field)
    classes, counts = np.unique(labels, return_counts=True)
    num_taken = share if isinstance(share, int) else round(share * len(labels))
    num_free = len(labels) - len(classes)
    if not 1 <= num_taken <= num_free:
        raise DataError(
            f"{field} = {share} asks for {num_taken} of {len(labels)} rows, but with {len(classes)} "
            f"classes between 1 and {max(num_free, 1)} can be taken: give more images or another value"
        )
    quotas = _quotas(counts, num_taken)
    rng = np.random.default_rng(seed)
    taken = [
        rng.permutation(np.flatnonzero(labels == label))[:quota]
        for label, quota in zip(classes, quotas, strict=True)
    ]
    taken = np.sort(np.concatenate(taken))
    kept = np.setdiff1d(np.arange(len(labels)), taken, assume_unique=True)
    return kept, taken


def _quotas(counts: np.ndarray, total: int) -> np.ndarray:
    """Whole rows to take of each class: proportional, largest remainders first, one row always left.

    Args:
        counts: [K] rows of each class.

    Returns:
        [K] whose sum is `total`.
    """
    ideal = counts * (total / counts.sum())
    limits = counts - 1
    quotas = np.minimum(np.floor(ideal).astype(np.int64), limits)
    while (missing := total - int(quotas.sum())) > 0:
        gaps = np.where(quotas < limits, ideal - quotas, -math.inf)
        order = np.argsort(-gaps, kind="stable")
        open_classes = order[: min(missing, int((quotas < limits).sum()))]
        quotas[open_classes] += 1
    return quotas
