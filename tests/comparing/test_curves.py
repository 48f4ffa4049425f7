"""Anytime curves, worked out by hand."""

import numpy as np
import pandas as pd
import pytest

from raysearch.comparing.curves import anytime, at, band, best_so_far

NAN = np.nan


def test_the_best_so_far_ignores_what_failed():
    found = best_so_far([NAN, 0.2, NAN, 0.1, 0.5])
    np.testing.assert_equal(found, [NAN, 0.2, 0.2, 0.2, 0.5])


def test_a_search_has_what_had_ended_by_then_and_keeps_it():
    np.testing.assert_equal(
        at([0, 3.9, 4, 8, 20], spent=[4, 8], best=[0.1, 0.3]), [NAN, NAN, 0.1, 0.3, 0.3]
    )


def test_the_band_is_mean_and_standard_error_and_begins_where_every_seed_has_a_value():
    found = band([1, 2, 3], [([1, 2, 3], [0.1, 0.2, 0.6]), ([2], [0.4])])
    np.testing.assert_allclose(found.mean, [NAN, 0.3, 0.5])
    np.testing.assert_allclose(found.error[1:], [0.1, 0.1])  # sd / sqrt(2) of .2/.4 and .6/.4
    assert band([1], [([1], [0.7])]).error == [0]


def rows(method, seed, best, epochs):
    return [
        {
            "problem": "p",
            "method": method,
            "seed": seed,
            "evaluation": place + 1,
            "epochs_spent": spent,
            "best": value,
        }
        for place, (value, spent) in enumerate(zip(best, epochs, strict=True))
    ]


@pytest.fixture
def evaluations():
    return pd.DataFrame(
        rows("a", 0, [0.1, 0.4], [4, 8])
        + rows("a", 1, [0.3, 0.3, 0.8], [4, 5, 9])
        + rows("b", 0, [0.5], [4])
    )


def test_curves_by_evaluation_reach_to_the_longest_search(evaluations):
    found = anytime(evaluations, "evaluation")
    np.testing.assert_allclose(found["a"].x, [1, 2, 3])
    np.testing.assert_allclose(found["a"].mean, [0.2, 0.35, 0.6])
    np.testing.assert_allclose(found["b"].mean, [0.5, 0.5, 0.5])
    assert (found["a"].num_seeds, found["b"].num_seeds) == (2, 1)


def test_curves_by_epochs_count_what_was_trained(evaluations):
    found = anytime(evaluations, "epochs_spent")["a"]
    assert np.isnan(found.mean[found.x < 4]).all()
    by_hand = {5.0: 0.2, 8.5: 0.35, 9.0: 0.6}  # at 5: .1 and .3; at 8.5: .4 and .3
    for x, mean in by_hand.items():
        index = int(np.argmin(np.abs(found.x - x)))
        assert found.mean[index] == pytest.approx(mean)
