"""What a search's model knows, for people to look at: leave-one-out predictions, their calibration, and a map of the students.

numpy only. A method that has a model may offer `insight() -> Insight | None` beside the contract of `searchers.algorithm`; a run
writes it into its folder, and the report draws it.

Notation
    y        [n] observed objective values, higher is better
    mu, sd   [n] prediction of each from all others: a normal distribution, the noise of training included
    z        (y - mu) / sd, standard normal where the model is honest
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

INTERVALS = (0.5, 0.8, 0.95)
"""Central intervals whose content is compared with their nominal share."""

WINDOW = 20
"""Predictions that one value of the running rank correlation looks back on."""

MIN_PAIRS = 5
"""Pairs below which a rank correlation says nothing."""


class InsightFailed(Exception):
    """The model failed numerically while it was looked into; whoever asked goes on without."""


@dataclass(frozen=True, eq=False)
class Insight:
    """What a model knows of the students that were fully trained.

    Attributes:
        architectures: the edits' texts, n of them.
        values: y, in the objective's units. [n]
        loo_mean: mu, in the objective's units. [n]
        loo_sd: sd, in the objective's units; 0 where the value was certain before the training. [n]
        places: the map: near each other is what the model takes for alike. [n, 2]
        notes: of the method, for people and programs: JSON-native numbers and texts, such as `num_kernels`.
    """

    architectures: tuple[str, ...]
    values: Array
    loo_mean: Array
    loo_sd: Array
    places: Array
    notes: Mapping[str, float | str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        n = len(self.architectures)
        for name, shape in (
            ("values", (n,)),
            ("loo_mean", (n,)),
            ("loo_sd", (n,)),
            ("places", (n, 2)),
        ):
            array = np.asarray(getattr(self, name), dtype=np.float64)
            if array.shape != shape:
                raise ValueError(
                    f"{name} must have the shape {list(shape)}, got {list(array.shape)}"
                )
            object.__setattr__(self, name, array)


@dataclass(frozen=True)
class Calibration:
    """How far predictions can be trusted.

    Attributes:
        count: predictions that are judged.
        coverage: nominal share of a central interval -> the share of the values that lie in it.
        mean_squared_z: 1 where the model is honest, above where it is overconfident; its standard error is then sqrt(2 / count).
        log_density: the mean log density of the values under their predictions, in nats.
        plain_log_density: the same under the mean and the spread of all other values, without a model.
    """

    count: int
    coverage: Mapping[float, float]
    mean_squared_z: float
    log_density: float
    plain_log_density: float

    @property
    def gain(self) -> float:
        """What the model knows beyond mean and spread, in nats a student; negative where it misleads."""
        return self.log_density - self.plain_log_density


def calibrate(values: ArrayLike, mean: ArrayLike, sd: ArrayLike) -> Calibration | None:
    """Compares predictions with what came true.

    Pairs that are not finite, and values that were certain beforehand (sd = 0), are left out.

    Args:
        values: y. [n]
        mean: mu. [n]
        sd: [n]

    Returns:
        None for fewer than three pairs.
    """
    y, mu, spread = (np.asarray(part, dtype=np.float64) for part in (values, mean, sd))
    usable = np.isfinite(y) & np.isfinite(mu) & np.isfinite(spread) & (spread > 0)
    y, mu, spread = y[usable], mu[usable], spread[usable]
    if len(y) < 3:
        return None
    z = np.abs(y - mu) / spread
    edges = {share: NormalDist().inv_cdf((1 + share) / 2) for share in INTERVALS}
    return Calibration(
        count=len(y),
        coverage={share: float(np.mean(z <= edge)) for share, edge in edges.items()},
        mean_squared_z=float(np.mean(z**2)),
        log_density=float(np.mean(_log_density(y, mu, spread))),
        plain_log_density=float(np.mean(_log_density(y, *_of_the_others(y)))),
    )


def spearman(a: ArrayLike, b: ArrayLike) -> float:
    """Spearman's rank correlation; ties share their mean rank; NaN where one side is constant.

    Args:
        a: [n] finite.
        b: [n] finite.
    """
    ranks = [_ranks(np.asarray(side, dtype=np.float64)) for side in (a, b)]
    first, second = (rank - rank.mean() for rank in ranks) if len(ranks[0]) else ranks
    norm = np.sqrt((first @ first) * (second @ second))
    return float(first @ second / norm) if norm > 0 else float("nan")


def running_spearman(
    predicted: ArrayLike, measured: ArrayLike, *, window: int = WINDOW
) -> tuple[NDArray[np.int64], Array]:
    """The rank correlation over time, each time over the last `window` pairs, or over fewer while there are no more.

    Args:
        predicted: [n] finite, in the order of time.
        measured: [n] finite.

    Returns:
        The number of pairs so far, from `MIN_PAIRS` on, and the correlation (NaN where undefined): [max(0, n - MIN_PAIRS + 1)] each.
    """
    a, b = np.asarray(predicted, dtype=np.float64), np.asarray(measured, dtype=np.float64)
    ends = np.arange(MIN_PAIRS, len(a) + 1)
    found = [spearman(a[max(0, end - window) : end], b[max(0, end - window) : end]) for end in ends]
    return ends, np.array(found, dtype=np.float64)


def principal_map(embedding: ArrayLike) -> Array:
    """The two directions of largest variance: a map that keeps distances as well as a plane can.

    Each axis points to where the largest entry of its direction is positive, so that the same embedding gives the same map.

    Args:
        embedding: [n, D]

    Returns:
        [n, 2], centred; an axis that does not exist (n or D too small, no variance) is zero.
    """
    x = np.asarray(embedding, dtype=np.float64)
    places = np.zeros((len(x), 2))
    if not x.size:
        return places
    u, lengths, directions = np.linalg.svd(x - x.mean(axis=0), full_matrices=False)
    for axis in range(min(2, len(lengths))):
        size = np.abs(directions[axis])
        leading = int(np.argmax(size >= size.max() * (1 - 1e-9)))  # ties: the first of them
        places[:, axis] = u[:, axis] * lengths[axis] * np.sign(directions[axis, leading])
    return places


def shown_share(embedding: ArrayLike, places: ArrayLike) -> float:
    """The share of the embedding's variance that the map shows, in [0, 1]; 1 where there is none.

    Args:
        embedding: [n, D]
        places: its map. [n, 2]
    """
    whole = _variance(np.asarray(embedding, dtype=np.float64))
    shown = _variance(np.asarray(places, dtype=np.float64))
    return min(1.0, shown / whole) if whole > 0 else 1.0


def _variance(x: Array) -> float:
    return float(x.var(axis=0).sum()) if x.size else 0.0


def _ranks(values: Array) -> Array:
    """1 for the smallest; ties share the mean of their ranks. [n]"""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[place]


def _log_density(y: Array, mu: Array, sd: Array) -> Array:
    with np.errstate(divide="ignore", invalid="ignore"):
        return -0.5 * ((y - mu) / sd) ** 2 - np.log(sd) - 0.5 * np.log(2 * np.pi)


def _of_the_others(y: Array) -> tuple[Array, Array]:
    """Mean and standard deviation (n - 2 degrees of freedom) of all values but one, for each: [n], [n]."""
    n = len(y)
    gap = y - y.mean()
    rest = np.maximum(gap @ gap - gap**2 * n / (n - 1), 0.0)  # the others' squared deviations
    return y.mean() - gap / (n - 1), np.sqrt(rest / (n - 2))
