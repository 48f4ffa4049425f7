"""What a model's knowledge is judged by, against closed forms, numpy and scipy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from searchers.insight import (
    MIN_PAIRS,
    Insight,
    calibrate,
    principal_map,
    running_spearman,
    shown_share,
    spearman,
)


def test_an_insight_keeps_arrays_and_refuses_those_of_other_lengths():
    places = [[0, 0], [1, 0]]
    insight = Insight(("a", "b"), [1, 2], [1, 2], [0.1, 0.2], places, {"num_kernels": 8})
    assert insight.values.dtype == np.float64
    assert insight.places.shape == (2, 2)
    with pytest.raises(ValueError, match=r"loo_sd must have the shape \[2\], got \[1\]"):
        Insight(("a", "b"), [1, 2], [1, 2], [0.1], places)


# The map


@pytest.mark.parametrize("seed", range(5))
def test_the_map_holds_the_two_largest_variances(seed):
    x = np.random.default_rng(seed).normal(size=(30, 6)) * [5, 0.1, 3, 1, 0.2, 2]
    places = principal_map(x)
    variances = np.sort(np.linalg.eigvalsh(np.cov(x.T)))[::-1]
    np.testing.assert_allclose(np.cov(places.T), np.diag(variances[:2]), atol=1e-10)
    assert shown_share(x, places) == pytest.approx(variances[:2].sum() / variances.sum())


def test_points_of_a_plane_keep_their_distances_on_the_map():
    rng = np.random.default_rng(0)
    flat = rng.normal(size=(20, 2))
    turned = flat @ np.linalg.qr(rng.normal(size=(7, 2)))[0].T + 4
    places = principal_map(turned)
    distances, expected = (
        np.linalg.norm(points[:, None] - points[None], axis=-1) for points in (places, flat)
    )
    np.testing.assert_allclose(distances, expected, atol=1e-10)
    assert shown_share(turned, places) == pytest.approx(1)


@pytest.mark.parametrize("seed", range(5))
def test_the_map_does_not_depend_on_the_order_of_the_students(seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(15, 4))
    order = rng.permutation(15)
    np.testing.assert_allclose(principal_map(x[order]), principal_map(x)[order], atol=1e-10)


@pytest.mark.parametrize(
    ("embedding", "expected"),
    [
        (np.zeros((0, 3)), np.zeros((0, 2))),
        (np.ones((1, 3)), np.zeros((1, 2))),
        (np.ones((4, 3)), np.zeros((4, 2))),
        (np.ones((4, 0)), np.zeros((4, 2))),
        ([[1.0], [3.0], [8.0]], [[-3, 0], [-1, 0], [4, 0]]),
    ],
)
def test_an_axis_that_does_not_exist_is_zero(embedding, expected):
    places = principal_map(embedding)
    np.testing.assert_allclose(places, expected, atol=1e-12)
    assert shown_share(embedding, places) == 1


# Rank correlation


@pytest.mark.parametrize("seed", range(20))
def test_the_rank_correlation_is_scipys_with_ties_too(seed):
    rng = np.random.default_rng(seed)
    a = rng.integers(0, 6, size=25).astype(float)
    b = a + rng.normal(size=25).round(1)
    assert spearman(a, b) == pytest.approx(stats.spearmanr(a, b).statistic, abs=1e-12)


def test_the_rank_correlation_with_a_constant_is_undefined():
    assert np.isnan(spearman([1, 1, 1], [1, 2, 3]))
    assert np.isnan(spearman([], []))


def test_the_running_rank_correlation_looks_back_on_a_window():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 40))
    ends, found = running_spearman(a, b, window=20)
    assert list(ends) == list(range(MIN_PAIRS, 41))
    for end, value in zip(ends, found, strict=True):
        begin = max(0, end - 20)
        expected = stats.spearmanr(a[begin:end], b[begin:end]).statistic
        assert value == pytest.approx(expected)
    ends, found = running_spearman(a[:4], b[:4])
    assert len(ends) == len(found) == 0


# Calibration


def test_an_honest_model_is_found_honest():
    rng = np.random.default_rng(0)
    mean, sd = rng.normal(size=4000), rng.uniform(0.5, 2, size=4000)
    found = calibrate(mean + sd * rng.normal(size=4000), mean, sd)
    assert found.count == 4000
    for nominal, share in found.coverage.items():
        assert share == pytest.approx(nominal, abs=0.03)
    assert found.mean_squared_z == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("factor", [0.5, 3.0])
def test_too_small_and_too_large_spreads_are_seen(factor):
    rng = np.random.default_rng(0)
    y = rng.normal(size=2000)
    found = calibrate(y, np.zeros(2000), np.full(2000, factor))
    assert found.mean_squared_z == pytest.approx(np.mean(y**2) / factor**2)
    for nominal, share in found.coverage.items():
        edge = stats.norm.ppf((1 + nominal) / 2)
        assert share == np.mean(np.abs(y) <= factor * edge)
        assert (share < nominal) == (factor < 1)


def test_densities_are_those_of_scipy_and_the_plain_normal_leaves_each_value_out():
    rng = np.random.default_rng(1)
    y, mean, sd = rng.normal(size=9), rng.normal(size=9), rng.uniform(0.5, 1, size=9)
    found = calibrate(y, mean, sd)
    plain = []
    for place in range(9):
        others = np.delete(y, place)
        plain.append(stats.norm.logpdf(y[place], others.mean(), others.std(ddof=1)))
    assert found.log_density == pytest.approx(stats.norm.logpdf(y, mean, sd).mean())
    assert found.plain_log_density == pytest.approx(np.mean(plain))
    assert found.gain == found.log_density - found.plain_log_density


def test_what_is_not_finite_or_was_certain_is_not_judged():
    y = [0.1, 0.2, 0.3, 0.4, np.nan, 0.0]
    mean = [0.1, 0.1, 0.1, np.inf, 0.1, 0.0]
    sd = [0.1, 0.1, 0.1, 0.1, 0.1, 0.0]
    found = calibrate(y, mean, sd)
    assert found == calibrate(y[:3], mean[:3], sd[:3])
    assert found.count == 3
    assert found.mean_squared_z == pytest.approx((0 + 1 + 4) / 3)
    assert calibrate(y[:2], mean[:2], sd[:2]) is None


def test_equal_values_have_no_plain_density():
    found = calibrate(np.full(4, 0.5), np.full(4, 0.5), np.full(4, 0.1))
    assert np.isnan(found.plain_log_density)
    assert found.coverage == {0.5: 1.0, 0.8: 1.0, 0.95: 1.0}
