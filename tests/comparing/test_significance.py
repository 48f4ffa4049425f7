"""The paired test, its correction and its interval, against scipy and numbers worked out by hand."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from raysearch.comparing.significance import (
    difference,
    holm,
    seeds_needed,
    sign_flip_p,
    smallest_p,
    t_interval,
)


def brute_force_p(delta):
    """All sign patterns, one by one."""
    observed = abs(np.mean(delta))
    signs = itertools.product([1, -1], repeat=len(delta))
    means = [abs(np.mean(np.multiply(delta, sign))) for sign in signs]
    return np.mean([mean >= observed - 1e-12 for mean in means])


@pytest.mark.parametrize("num", [1, 2, 3, 5, 8, 11])
def test_p_is_the_share_of_sign_patterns_that_reach_the_mean(num):
    delta = np.random.default_rng(num).normal(0.4, 1, num)
    assert sign_flip_p(delta) == pytest.approx(brute_force_p(delta))


def test_ties_and_zeros_are_counted_exactly():
    delta = [0.0, 0.0027, 0.0027, -0.0027, 0.0054]  # test accuracies of 360 images
    assert sign_flip_p(delta) == pytest.approx(brute_force_p(delta))
    assert sign_flip_p([0.0, 0.0, 0.0]) == 1


def test_p_agrees_with_the_permutation_test_of_scipy():
    rng = np.random.default_rng(3)
    first, second = rng.normal(0.5, 1, 9), rng.normal(0, 1, 9)
    ours = sign_flip_p(first - second)
    theirs = stats.permutation_test(
        (first, second),
        lambda a, b: np.mean(a - b),
        permutation_type="samples",
        n_resamples=np.inf,
    )
    assert ours == pytest.approx(theirs.pvalue)


@pytest.mark.parametrize("num", [3, 5, 7])
def test_the_smallest_p_is_that_of_the_exact_wilcoxon_test(num):
    delta = np.arange(1, num + 1) / 10
    assert sign_flip_p(delta) == smallest_p(num)
    assert sign_flip_p(delta) == pytest.approx(stats.wilcoxon(delta, method="exact").pvalue)


def test_many_seeds_are_sampled_and_agree_with_the_t_test_where_it_holds():
    delta = np.random.default_rng(0).normal(0.25, 1, 50)
    p = sign_flip_p(delta)
    assert p == pytest.approx(stats.ttest_1samp(delta, 0).pvalue, abs=0.005)
    assert p == sign_flip_p(delta)
    assert sign_flip_p(np.ones(40)) > 0


def test_under_the_hypothesis_p_is_not_below_its_level_too_often():
    rng = np.random.default_rng(1)
    p = np.array([sign_flip_p(rng.standard_t(2, 8)) for _ in range(600)])
    assert (p <= 0.05).mean() < 0.075


def test_holm_by_hand():
    # sorted: .005 x4, .01 x3, .03 x2, .04 x1 with each at least the one before
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.5]) == [1.0, 1.0]
    assert holm([]) == []


def test_holm_leaves_out_what_was_not_tested():
    corrected = holm([0.02, math.nan, 0.04])
    assert corrected[0] == pytest.approx(0.04)
    assert math.isnan(corrected[1])
    assert corrected[2] == pytest.approx(0.04)


def test_the_interval_is_that_of_scipy():
    values = np.random.default_rng(0).normal(size=7)
    expected = stats.t.interval(0.95, 6, loc=values.mean(), scale=stats.sem(values))
    assert t_interval(values) == pytest.approx(expected)
    assert all(math.isnan(end) for end in t_interval([1.0]))


def test_a_difference_counts_seeds_won_tied_and_lost_and_leaves_out_missing_ones():
    found = difference([3.0, 2.0, 5.0, math.nan], [1.0, 2.0, 6.0, 4.0])
    assert (found.wins, found.ties, found.losses, found.num_pairs) == (1, 1, 1, 3)
    assert found.mean == pytest.approx(1 / 3)
    assert found.standardised == pytest.approx((1 / 3) / np.std([2, 0, -1], ddof=1))
    assert difference([math.nan], [1.0]).num_pairs == 0


@pytest.mark.parametrize("num_tests", [1, 3, 6, 10])
def test_the_fewest_seeds_are_those_from_which_on_p_can_be_small_enough(num_tests):
    needed = seeds_needed(num_tests)
    assert smallest_p(needed, num_tests) <= 0.05 < smallest_p(needed - 1, num_tests)
