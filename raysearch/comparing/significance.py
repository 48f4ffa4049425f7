"""What a comparison of two methods over the same seeds can say: a paired test, an interval, a correction for many pairs.

Seeds are pairs: both methods see the same teacher, the same data and the same seed of training, so only their differences count.

The test is Fisher's sign-flip permutation test of the mean difference (Fisher 1935; Pitman 1937). Under the hypothesis that both
methods are alike each difference could as well have had the other sign; p is the share of all 2^n sign patterns whose mean is at least
as far from zero. It is exact for any number of seeds, assumes no distribution, and takes ties and zeros as they are: test accuracies
of a few hundred images are often equal, where the exact tables of Wilcoxon's signed-rank test do not hold and its normal
approximation is wrong for so few pairs. A paired t test would claim more from three seeds than three numbers can show. The price is
honest: with n seeds p is never below 2 / 2^n, as with the exact Wilcoxon test.

Many pairs are corrected by Holm's step-down method (1979), which holds whatever the dependence between the pairs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

ALPHA = 0.05
MAX_EXACT = 16
"""Up to so many differences all sign patterns are counted (65,536)."""
NUM_FLIPS = 100_000
"""Random sign patterns above that; the standard error of a p of .05 is then .0007."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Difference:
    """The paired difference of two methods over their common seeds.

    Attributes:
        num_pairs: seeds that both have.
        mean: of first minus second.
        low, high: the 95 % interval of the mean by Student's t (exact for normal differences; bootstrap intervals of so few seeds
            are too short); NaN for one pair.
        standardised: mean over the standard deviation of the differences (Cohen's d_z); NaN where there is no spread.
        wins, ties, losses: of the first.
        p: of the sign-flip test; NaN without pairs.
    """

    num_pairs: int
    mean: float
    low: float
    high: float
    standardised: float
    wins: int
    ties: int
    losses: int
    p: float


def difference(first: ArrayLike, second: ArrayLike) -> Difference:
    """Compares two methods.

    Args:
        first, second: [n], one value a seed in the same order; pairs with a NaN are left out.
    """
    delta = np.asarray(first, np.float64) - np.asarray(second, np.float64)
    delta = delta[np.isfinite(delta)]
    if not len(delta):
        nan = math.nan
        return Difference(0, nan, nan, nan, nan, 0, 0, 0, nan)
    low, high = t_interval(delta)
    spread = float(delta.std(ddof=1)) if len(delta) > 1 else 0.0
    mean = float(delta.mean())
    return Difference(
        num_pairs=len(delta),
        mean=mean,
        low=low,
        high=high,
        standardised=mean / spread if spread > 0 else math.nan,
        wins=int((delta > 0).sum()),
        ties=int((delta == 0).sum()),
        losses=int((delta < 0).sum()),
        p=sign_flip_p(delta),
    )


def t_interval(values: ArrayLike, confidence: float = 0.95) -> tuple[float, float]:
    """Student's interval of a mean; NaN for fewer than two values.

    Args:
        values: [n].
    """
    from scipy import stats

    array = np.asarray(values, np.float64)
    if len(array) < 2:
        return math.nan, math.nan
    margin = stats.t.ppf((1 + confidence) / 2, len(array) - 1) * array.std(ddof=1)
    margin /= math.sqrt(len(array))
    return float(array.mean() - margin), float(array.mean() + margin)


def sign_flip_p(differences: ArrayLike, seed: int = 0) -> float:
    """The two-sided p of the hypothesis that the differences are symmetric about zero.

    Args:
        differences: [n]; above `MAX_EXACT` of them random patterns stand for all, the observed one counted (Phipson and Smyth
            2010), so that p is never zero.
        seed: of the random patterns.
    """
    delta = np.asarray(differences, np.float64)
    if not len(delta):
        return math.nan
    sums = _all_sums(delta) if len(delta) <= MAX_EXACT else _random_sums(delta, seed)
    # equal sums may differ by rounding
    reached = np.abs(sums) >= abs(delta.sum()) - 1e-9 * np.abs(delta).sum()
    if len(delta) <= MAX_EXACT:
        return float(reached.mean())
    return float((reached.sum() + 1) / (len(sums) + 1))


def _all_sums(delta: Floats) -> Floats:
    """The sums of all 2^n sign patterns. [2^n]"""
    sums = np.zeros(1)
    for value in delta:
        sums = np.concatenate([sums + value, sums - value])
    return sums


def _random_sums(delta: Floats, seed: int) -> Floats:
    rng = np.random.default_rng(seed)
    sums = np.empty(NUM_FLIPS)
    for start in range(0, NUM_FLIPS, 10_000):
        signs = rng.integers(0, 2, (10_000, len(delta))) * 2 - 1
        sums[start : start + 10_000] = signs @ delta
    return sums


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's corrected p values in the same order; a NaN (no pairs) stays and counts as no test."""
    p = np.asarray(p_values, np.float64)
    tested = np.flatnonzero(np.isfinite(p))
    order = tested[np.argsort(p[tested], kind="stable")]
    corrected, reached = p.copy(), 0.0
    for place, index in enumerate(order):
        reached = max(reached, min(1.0, (len(order) - place) * p[index]))
        corrected[index] = reached
    return [float(value) for value in corrected]


def smallest_p(num_pairs: int, num_tests: int = 1) -> float:
    """The smallest p that the test can give, after Holm's correction for the smallest of `num_tests`."""
    return min(1.0, num_tests * 2.0 ** (1 - num_pairs)) if num_pairs else 1.0


def seeds_needed(num_tests: int = 1, alpha: float = ALPHA) -> int:
    """The number of seeds from which on one of `num_tests` pairs can be significant at all."""
    return max(1, math.ceil(math.log2(2 * num_tests / alpha) - 1e-12))
