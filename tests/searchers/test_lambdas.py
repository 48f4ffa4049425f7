"""Which lambdas runs get."""

import math

import numpy as np
import pytest

from raysearch.errors import ConfigError
from searchers.algorithm import Observation
from searchers.lambdas import Grid, TreeParzen, log_spaced, make_chooser, van_der_corput


def options(**changes):
    given = {"lambdas": None, "lambda_search": "grid", "lambda_range": (1e-3, 1e-1)}
    return {**given, "num_runs": 5, "seed": 0, **changes}


def ended(value, status="full"):
    return Observation("a", None if status == "failed" else value, 1.0, status, (value,))


def test_a_grid_is_even_in_the_logarithm_and_begins_in_the_middle():
    lambdas = log_spaced(1e-4, 1.0, 5)
    assert sorted(lambdas) == pytest.approx([1e-4, 1e-3, 1e-2, 1e-1, 1.0])
    assert lambdas[0] == pytest.approx(1e-2)
    assert set(lambdas[3:]) == {min(lambdas), max(lambdas)}
    assert log_spaced(1e-4, 1.0, 1) == pytest.approx((1e-2,))


def test_a_longer_grid_leaves_out_what_was_tried():
    tried = [(0.01 * (1 + 1e-12), ended(0.5)), (0.3, None)]
    grid = Grid((0.01, 0.1, 0.3, 1.0))
    assert grid.num_left(tried) == 2
    assert grid.choose(tried) == 0.1
    assert grid.choose([*tried, (0.1, None), (1.0, None)]) is None


def test_van_der_corput_s_sequence():
    assert [van_der_corput(n) for n in range(1, 8)] == [
        1 / 2,
        1 / 4,
        3 / 4,
        1 / 8,
        5 / 8,
        3 / 8,
        7 / 8,
    ]


def climb(seed, num_runs=16):
    """Runs whose reward is highest at lambda .02, one after the other."""
    chooser, tried = TreeParzen(1e-4, 1.0, num_runs, seed), []
    while (lam := chooser.choose(tried)) is not None:
        tried.append((lam, ended(-(math.log10(lam / 0.02) ** 2))))
    return [lam for lam, _ in tried]


def test_tpe_comes_near_the_best_lambda_and_stays_within_the_range():
    for seed in range(3):
        lambdas = climb(seed)
        assert len(lambdas) == 16
        assert all(1e-4 <= lam <= 1 for lam in lambdas)
        distances = np.abs(np.log10(np.array(lambdas) / 0.02))
        assert np.median(distances[-6:]) < np.median(distances[:4]) / 2


def test_tpe_is_deterministic_and_knows_stopped_failed_and_running_runs():
    tried = [(0.01, ended(0.5)), (0.1, ended(0.4, "stopped")), (0.3, ended(0, "failed"))]
    tried += [(0.02, None), (0.03, ended(0.6))]
    chooser = TreeParzen(1e-3, 1.0, 9, seed=4)
    assert chooser.choose(tried) == chooser.choose(tried)
    assert chooser.num_left(tried) == 4
    assert TreeParzen(1e-3, 1.0, 9, seed=5).choose(tried) != chooser.choose(tried)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"lambdas": []}, ["lambdas", "[]"]),
        ({"lambdas": [0.1, 0.1]}, ["lambdas", "different"]),
        ({"lambdas": [0.1, -1]}, ["lambdas", "above 0"]),
        ({"lambdas": 0.1}, ["lambdas", "0.1"]),
        ({"lambdas": [0.1, True]}, ["lambdas", "True"]),
        ({"lambda_range": [0.1]}, ["lambda_range", "[0.1]"]),
        ({"lambda_range": [0.1, 0.01]}, ["lambda_range", "smallest"]),
        ({"lambda_range": [0, 0.01]}, ["lambda_range", "0.01"]),
        ({"lambdas": [0.1], "lambda_search": "tpe"}, ["lambdas", "tpe"]),
    ],
)
def test_bad_lambdas_are_one_sentence(changes, words):
    with pytest.raises(ConfigError) as error:
        make_chooser(**options(**changes))
    assert all(word in str(error.value) for word in ["search.options", *words])
    assert "\n" not in str(error.value)
