"""The Gaussian process against closed forms written in numpy and quadrature."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from searchers.surrogate import Surrogate

BLOCKS = [slice(0, 3), slice(3, 3), slice(3, 5)]


@pytest.fixture
def data():
    """x [12, 5] and a smooth y [12] with a little noise."""
    rng = np.random.default_rng(0)
    x = rng.random((12, 5))
    return x, np.sin(3 * x[:, 0]) + x[:, 3] + 0.01 * rng.normal(size=12)


@pytest.fixture
def surrogate(data):
    return Surrogate(*data, BLOCKS)


def matern(x1, x2, lengths):
    """The kernel by its definition: a block counts by its mean squared distance."""
    s2 = np.zeros((len(x1), len(x2)))
    for block, length in zip([slice(0, 3), slice(3, 5)], lengths, strict=True):
        gaps = x1[:, None, block] - x2[None, :, block]
        s2 += 5 * (gaps**2).mean(axis=2) / length**2
    s = np.sqrt(s2)
    return (1 + s + s**2 / 3) * np.exp(-s)


def closed_form(surrogate, x, y, new):
    """Mean and standard deviation of textbook GP regression with the fitted hyper-parameters."""
    model = surrogate.model
    lengths = model.covar_module.length.detach().numpy()
    noise = float(model.likelihood.noise.detach())
    level = float(model.mean_module.constant.detach())
    mean, scale = y.mean(), y.std()
    gram = matern(x, x, lengths) + noise * np.eye(len(x))
    cross = matern(x, new, lengths)
    weights = np.linalg.solve(gram, (y - mean) / scale - level)
    mu = level + cross.T @ weights
    variance = 1 - np.einsum("nm,nm->m", cross, np.linalg.solve(gram, cross))
    return mu * scale + mean, np.sqrt(variance) * scale


def test_the_posterior_is_the_closed_form(surrogate, data):
    new = np.random.default_rng(1).random((7, 5))
    mean, sd = surrogate.predict(new)
    expected_mean, expected_sd = closed_form(surrogate, *data, new)
    np.testing.assert_allclose(mean, expected_mean, rtol=1e-6)
    np.testing.assert_allclose(sd, expected_sd, rtol=1e-5)


def test_leaving_one_out_is_predicting_it_from_the_others(surrogate, data):
    """By brute force: the fitted hyper-parameters, one matrix for each student that is left out."""
    x, y = data
    model, scale = surrogate.model, y.std()
    noise = float(model.likelihood.noise.detach())
    level = float(model.mean_module.constant.detach()) * scale + y.mean()
    gram = matern(x, x, model.covar_module.length.detach().numpy()) + noise * np.eye(len(x))
    mean, sd = surrogate.leave_one_out()
    for place in range(len(x)):
        rest = np.arange(len(x)) != place
        weights = np.linalg.solve(gram[rest][:, rest], gram[rest, place])
        assert mean[place] == pytest.approx(level + weights @ (y[rest] - level), rel=1e-6)
        variance = gram[place, place] - weights @ gram[rest, place]
        assert sd[place] == pytest.approx(np.sqrt(variance) * scale, rel=1e-6)


def test_the_embedding_s_distances_are_the_kernels(surrogate, data):
    z = surrogate.embed(data[0])
    s = np.sqrt(5) * np.linalg.norm(z[:, None] - z[None], axis=-1)
    gram = matern(data[0], data[0], surrogate.model.covar_module.length.detach().numpy())
    np.testing.assert_allclose((1 + s + s**2 / 3) * np.exp(-s), gram, atol=1e-9)


def test_a_measurement_spreads_by_the_noise_more_than_its_target(surrogate):
    new = np.random.default_rng(8).random((4, 5))
    mean, sd = surrogate.predict(new)
    measured_mean, measured_sd = surrogate.predict(new, noise=True)
    noise = float(surrogate.model.likelihood.noise.detach()) * surrogate.scale**2
    np.testing.assert_allclose(measured_mean, mean)
    np.testing.assert_allclose(measured_sd, np.sqrt(sd**2 + noise), rtol=1e-6)


@pytest.mark.parametrize("best_f", [0.2, 0.9, 1.4])
def test_the_improvement_is_the_integral_over_the_distribution_of_f(surrogate, best_f):
    rng = np.random.default_rng(2)
    new, c = rng.random((4, 5)), rng.uniform(0.3, 1.0, size=4)
    mean, sd = surrogate.predict(new)
    expected = [
        integrate.quad(
            lambda f, m=m, s=s: (f - best_f) * stats.norm.pdf(f, m, s), best_f, best_f + 12 * s
        )[0]
        if best_f > m - 12 * s
        else m - best_f
        for m, s in zip(c * mean, c * sd, strict=True)
    ]
    improvement = np.exp(surrogate.log_ei(new, c, best_f))
    np.testing.assert_allclose(improvement, expected, rtol=1e-3, atol=1e-12)


def test_the_log_stays_finite_where_no_improvement_is_possible(surrogate):
    new = np.random.default_rng(3).random((4, 5))
    values = surrogate.log_ei(new, np.full(4, 1e-9), 5.0)
    assert np.isfinite(values).all()


def test_believing_in_outstanding_students_keeps_their_means_and_lowers_their_spread(surrogate):
    new = np.random.default_rng(4).random((3, 5))
    mean, sd = surrogate.predict(new)
    surrogate.believe(new)
    believed_mean, believed_sd = surrogate.predict(new)
    np.testing.assert_allclose(believed_mean, mean, rtol=1e-6)
    assert (believed_sd < sd).all()


def test_forgotten_beliefs_leave_no_trace(surrogate):
    new = np.random.default_rng(4).random((3, 5))
    before = surrogate.predict(new)
    surrogate.believe(new)
    surrogate.forget_beliefs()
    np.testing.assert_array_equal(before, surrogate.predict(new))


def test_believing_all_at_once_is_believing_one_after_the_other(data):
    new, others = np.split(np.random.default_rng(5).random((8, 5)), [3])
    at_once, in_turn = Surrogate(*data, BLOCKS), Surrogate(*data, BLOCKS)
    at_once.believe(new)
    for row in new:
        in_turn.believe(row[None])
    for one, other in zip(at_once.predict(others), in_turn.predict(others), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5)


def test_units_of_the_target_do_not_matter(data):
    x, y = data
    new = np.random.default_rng(6).random((5, 5))
    mean, sd = Surrogate(x, y).predict(new)
    scaled_mean, scaled_sd = Surrogate(x, 1000 * y - 7).predict(new)
    np.testing.assert_allclose(scaled_mean, 1000 * mean - 7, rtol=1e-3)
    np.testing.assert_allclose(scaled_sd, 1000 * sd, rtol=1e-3)


def test_a_fit_depends_on_nothing_but_its_data(data):
    x, y = data
    new = np.random.default_rng(7).random((5, 5))
    torch.manual_seed(1)
    first = Surrogate(x, y).predict(new)[0]
    torch.manual_seed(2)
    np.testing.assert_array_equal(first, Surrogate(x, y).predict(new)[0])


@pytest.mark.parametrize(
    "kind", ["equal targets", "equal students", "two students", "a huge target"]
)
def test_a_fit_survives_degenerate_data(data, kind):
    x, y = data
    if kind == "equal targets":
        y = np.full_like(y, 0.3)
    elif kind == "equal students":
        x = np.repeat(x[:1], len(x), axis=0)
    elif kind == "two students":
        x, y = x[:2], y[:2]
    else:
        y = np.where(np.arange(len(y)) == 0, 1e6, y)
    surrogate = Surrogate(x, y, BLOCKS)
    assert np.isfinite(surrogate.log_ei(x, np.ones(len(x)), float(y.max()))).all()
