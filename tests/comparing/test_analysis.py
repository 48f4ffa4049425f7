"""What a comparison dares to say."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from raysearch.comparing.analysis import analyse


def cells(scores, metric="test_accuracy"):
    """{"gp": [score by seed]} -> one row a cell."""
    return pd.DataFrame(
        [
            {
                "problem": "p",
                "method": method,
                "seed": seed,
                "status": "failed" if np.isnan(score) else "done",
                metric: score,
            }
            for method, values in scores.items()
            for seed, score in enumerate(values)
        ]
    )


def noise(seed, mean, num=10):
    return np.random.default_rng(seed).normal(mean, 0.004, num)


SCORES = {"gp": noise(0, 0.97), "tpe": noise(1, 0.969), "random": noise(2, 0.95)}


def test_the_verdict_names_what_is_clear_and_says_that_nothing_else_is():
    found = analyse(cells(SCORES), "test_accuracy", ["random", "tpe", "gp"])
    assert {(pair.first, pair.second) for pair in found.pairs if pair.clear} == {
        ("gp", "random"),
        ("tpe", "random"),
    }
    assert found.verdict.startswith("By test accuracy over 10 seeds ")
    assert "gp is ahead of random (by " in found.verdict
    assert found.verdict.endswith("; nothing else can be told apart.")
    assert found.methods[-1] == "random"


def test_three_seeds_can_show_nothing_whatever_the_scores():
    few = {"gp": [0.99, 0.98, 0.99], "random": [0.5, 0.51, 0.5]}
    found = analyse(cells(few), "test_accuracy", ["gp", "random"])
    assert found.pairs[0].difference.p == 0.25
    assert not found.pairs[0].clear
    assert "no test can be significant" in found.verdict
    assert "0.25" in found.verdict
    assert "6 seeds" in found.verdict


def test_one_seed_and_one_method_are_said_to_be_just_that():
    one = analyse(cells({"gp": [0.9], "tpe": [0.8]}), "test_accuracy", ["gp", "tpe"])
    assert "one seed" in one.verdict
    alone = analyse(cells({"gp": [0.9, 0.8]}), "test_accuracy", ["gp"])
    assert "compared with nothing" in alone.verdict


def test_where_less_is_better_the_lower_one_is_ahead():
    low = {"gp": 0.1 + np.arange(8) / 1000, "random": 0.3 + np.arange(8) / 500}
    found = analyse(cells(low, "test_loss"), "test_loss", ["random", "gp"])
    assert found.ranks == {"random": 2.0, "gp": 1.0}
    pair = found.pairs[0]
    assert (pair.first, pair.second, pair.clear) == ("gp", "random", True)
    assert pair.difference.mean > 0
    assert pair.difference.wins == 8


def test_failed_cells_are_left_out_pair_by_pair():
    with_gap = {**SCORES, "tpe": np.where(np.arange(10) == 3, np.nan, SCORES["tpe"])}
    found = analyse(cells(with_gap), "test_accuracy", list(with_gap))
    assert (found.num_seeds, found.num_failed) == (9, 1)
    sizes = {frozenset((p.first, p.second)): p.difference.num_pairs for p in found.pairs}
    assert sizes[frozenset(("gp", "random"))] == 10
    assert sizes[frozenset(("gp", "tpe"))] == 9


def test_equal_methods_tie_and_nothing_breaks():
    same = {"a": [0.9] * 4, "b": [0.9] * 4, "c": [0.9] * 4}
    found = analyse(cells(same), "test_accuracy", list("abc"))
    assert found.ranks == {"a": 2.0, "b": 2.0, "c": 2.0}
    assert found.friedman is None
    assert "a and b and c share the best mean rank" in found.verdict
    assert found.to_dict()["pairs"][0]["standardised"] is None


def test_the_p_values_are_corrected_together():
    found = analyse(cells(SCORES), "test_accuracy", list(SCORES))
    raw = sorted(pair.difference.p for pair in found.pairs)
    expected = np.maximum.accumulate(np.minimum(1, np.array(raw) * [3, 2, 1]))
    assert [pair.p_holm for pair in found.pairs] == pytest.approx(expected)
    t = stats.ttest_rel(SCORES["gp"], SCORES["random"]).confidence_interval()
    pair = next(p for p in found.pairs if (p.first, p.second) == ("gp", "random"))
    assert (pair.difference.low, pair.difference.high) == pytest.approx((t.low, t.high))
