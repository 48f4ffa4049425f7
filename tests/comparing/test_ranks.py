"""Ranks and Friedman's test, against brute force and scipy."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from raysearch.comparing.ranks import average_ranks, friedman, rank_blocks, score_table


def brute_force_ranks(row):
    """The mean of the places that a score could have among its equals."""
    return [(sum(o > own for o in row) + 1 + sum(o >= own for o in row)) / 2 for own in row]


def test_ranks_share_the_places_of_ties():
    scores = np.random.default_rng(0).integers(0, 4, (30, 5)).astype(float)
    expected = [brute_force_ranks(row) for row in scores]
    np.testing.assert_allclose(rank_blocks(scores), expected)
    np.testing.assert_allclose(rank_blocks(-scores, higher_is_better=False), expected)


def cells(scores, methods="abc"):
    return pd.DataFrame(
        [
            {"problem": "p", "seed": seed, "method": method, "score": score}
            for seed, row in enumerate(scores)
            for method, score in zip(methods, row, strict=True)
        ]
    )


def test_average_ranks_use_the_blocks_that_all_methods_have():
    table = score_table(cells([[3, 2, 1], [1, 3, np.nan], [2, 2, 1]]), "score", list("abc"))
    assert average_ranks(table) == {"a": 1.25, "b": 1.75, "c": 3.0}
    assert average_ranks(table.iloc[1:2]) == {}


def test_one_seed_of_two_problems_is_two_blocks():
    frame = cells([[3, 2, 1]])
    both = pd.concat([frame, frame.assign(problem="q", score=-frame["score"])])
    assert average_ranks(score_table(both, "score", list("abc"))) == {"a": 2, "b": 2, "c": 2}


def test_friedman_is_that_of_scipy():
    scores = np.random.default_rng(1).integers(0, 9, (8, 4)).astype(float)
    found = friedman(score_table(cells(scores, "abcd"), "score", list("abcd")))
    expected = stats.friedmanchisquare(*scores.T)
    assert found.statistic == pytest.approx(expected.statistic)
    assert found.p == pytest.approx(expected.pvalue)


def test_kendall_s_agreement_is_one_where_every_seed_ranks_alike():
    found = friedman(score_table(cells([[3, 2, 1]] * 5), "score", list("abc")))
    assert found.agreement == pytest.approx(1)


@pytest.mark.parametrize("scores", [[[1, 1, 1], [2, 2, 2]], [[1, 2, 3]]])
def test_friedman_says_nothing_where_there_is_nothing_to_say(scores):
    assert friedman(score_table(cells(scores), "score", list("abc"))) is None
    two = score_table(cells(scores), "score", list("ab"))
    assert friedman(two) is None
