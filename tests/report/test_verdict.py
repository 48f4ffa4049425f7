"""The verdict says what the numbers allow, by examples worked out by hand."""

from __future__ import annotations

import math

import pytest

from raysearch.report.verdict import standard_error, verdict


def _net(test_accuracy: float | None, num_params: int = 1000, **more: str) -> dict:
    return {"test_accuracy": test_accuracy, "num_params": num_params, **more}


def test_the_standard_error_is_that_of_two_binomials() -> None:
    # 0.9 * 0.1 = 0.09 and 0.8 * 0.2 = 0.16: sqrt(0.25 / 100) = 0.05
    assert standard_error(0.9, 0.8, 100) == pytest.approx(0.05)


def test_the_standard_error_agrees_with_enumeration() -> None:
    # Exact variance of X/n - Y/n over all outcomes of two binomials with n = 6.
    n, p, q = 6, 0.7, 0.4
    weight = {
        (x, y): math.comb(n, x)
        * p**x
        * (1 - p) ** (n - x)
        * math.comb(n, y)
        * q**y
        * (1 - q) ** (n - y)
        for x in range(n + 1)
        for y in range(n + 1)
    }
    mean = sum(w * (x - y) / n for (x, y), w in weight.items())
    variance = sum(w * ((x - y) / n - mean) ** 2 for (x, y), w in weight.items())
    assert standard_error(p, q, n) == pytest.approx(math.sqrt(variance))


def test_a_gain_beyond_two_standard_errors_paid() -> None:
    # 10 points at n = 1000: se = sqrt(0.25 / 1000) = 1.58 points, two are 3.2
    text = verdict(_net(0.9), {"uniform": _net(0.8)}, 1000)
    assert text.startswith("The search paid: 90.0 % on test with 1,000 parameters against 80.0 %")
    assert "+10.0 points, beyond the noise of 1,000 test images (±3.2)" in text


def test_the_same_gain_on_few_images_is_noise() -> None:
    # n = 20: se = sqrt(0.25 / 20) = 11.2 points
    text = verdict(_net(0.9), {"uniform": _net(0.8)}, 20)
    assert text.startswith("The search did not pay measurably")
    assert "within the noise of 20 test images (±22.4)" in text


def test_a_loss_beyond_noise_did_not_pay() -> None:
    text = verdict(_net(0.8), {"uniform": _net(0.9)}, 1000)
    assert text.startswith("The search did not pay: 80.0 %")
    assert "-10.0 points" in text


@pytest.mark.parametrize(
    ("best", "rival", "start"),
    [
        ((0.9, 500), (0.9, 1000), "The search paid in size, with 50 % fewer parameters"),
        (
            (0.8, 500),
            (0.9, 1000),
            "The search traded accuracy for size, with 50 % fewer parameters",
        ),
        (
            (0.9, 1500),
            (0.8, 1000),
            "The search traded size for accuracy, with 50 % more parameters",
        ),
        ((0.8, 1500), (0.9, 1000), "The search did not pay:"),
        ((0.9, 1500), (0.9, 1000), "The search did not pay measurably"),
        ((0.9, 950), (0.8, 1000), "The search paid:"),
    ],
)
def test_size_counts_beside_accuracy(best: tuple, rival: tuple, start: str) -> None:
    assert verdict(_net(*best), {"uniform": _net(*rival)}, 10_000).startswith(start)


def test_perfect_scores_tie() -> None:
    assert verdict(_net(1.0), {"uniform": _net(1.0)}, 360).startswith(
        "The search did not pay measurably"
    )


def test_the_uniform_student_itself_as_best_did_not_pay() -> None:
    text = verdict(_net(0.9, origin="uniform"), {"uniform": _net(0.9)}, 360)
    assert text == (
        "The search did not pay: the best student is the one of the uniformly scaled teacher "
        "(90.0 % on test with 1,000 parameters)."
    )
    same = _net(0.9, origin="search", architecture_id="abc")
    assert verdict(same, {"uniform": _net(0.9, architecture_id="abc")}, 360) == text


def test_random_search_is_named_beside_uniform() -> None:
    text = verdict(_net(0.9), {"uniform": _net(0.8), "random": _net(0.85, 990)}, 1000)
    assert text.endswith("; random search reached 85.0 % on test with 990 parameters.")


def test_without_uniform_random_search_is_the_measure() -> None:
    text = verdict(_net(0.9), {"random": _net(0.8)}, 1000)
    assert text.startswith("The search paid")
    assert "for random search" in text


def test_without_a_tested_baseline_nothing_is_claimed() -> None:
    for baselines in ({}, {"uniform": _net(None)}):
        assert "not known, because no baseline" in verdict(_net(0.9), baselines, 1000)
    assert "not evaluated" in verdict(_net(None), {"uniform": _net(0.9)}, 1000)


@pytest.mark.parametrize("num_test", [None, 0])
def test_without_a_count_of_images_noise_is_not_judged(num_test: int | None) -> None:
    assert "noise is not judged" in verdict(_net(0.9), {"uniform": _net(0.8)}, num_test)


def test_the_verdict_is_one_sentence() -> None:
    for gain in (-0.2, -0.01, 0.0, 0.01, 0.2):
        text = verdict(_net(0.75 + gain), {"uniform": _net(0.75), "random": _net(0.7)}, 360)
        assert text.endswith(".")
        assert ". " not in text
