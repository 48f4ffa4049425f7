"""Expected improvement against quadrature and BoTorch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from botorch.acquisition import ExpectedImprovement, LogExpectedImprovement
from botorch.models import SingleTaskGP
from scipy import integrate, stats

from searchers.multi_kernel_bo.acquisition import expected_improvement, log_expected_improvement

GRID = torch.tensor(
    [[m, s] for m in (-1.0, 0.0, 0.4, 0.9) for s in (0.05, 0.3, 2.0)], dtype=torch.float64
)
"""Means and deviations."""
BEST = 0.5


def one(value):
    return torch.tensor([value], dtype=torch.float64)


def quadrature(mu, sigma, best_f):
    """E[(y - f*)+] of y ~ N(mu, sigma^2)."""

    def gain(y):
        return (y - best_f) * stats.norm.pdf(y, mu, sigma)

    upper = max(best_f, mu) + 12 * sigma
    return integrate.quad(gain, best_f, upper, points=[max(best_f, mu)], epsabs=1e-14, limit=200)[0]


def log_quadrature(mu, sigma, best_f):
    """Its logarithm where it is too small for a number: log phi(z) + log of the integral of t exp(t z - t^2 / 2), in units of sigma."""
    z = (mu - best_f) / sigma
    integral, _ = integrate.quad(lambda t: t * np.exp(t * z - t**2 / 2), 0, 40, points=[-1 / z])
    return np.log(sigma) + stats.norm.logpdf(z) + np.log(integral)


def make_model():
    X = torch.linspace(0, 1, 9, dtype=torch.float64)[:, None]
    return SingleTaskGP(X, torch.sin(5 * X), outcome_transform=None)


@pytest.mark.parametrize(("mu", "sigma"), GRID.tolist())
def test_plain_and_logarithmic_form_are_the_integral(mu, sigma):
    given = one(mu), one(sigma)
    expected = quadrature(mu, sigma, BEST)
    assert expected_improvement(*given, BEST).item() == pytest.approx(expected, rel=1e-7, abs=1e-13)
    if expected > 1e-8:
        log_ei = log_expected_improvement(*given, one(BEST)).item()
        assert log_ei == pytest.approx(np.log(expected), abs=1e-6)


@pytest.mark.parametrize("z", [-5.0, -20.0, -35.0])
def test_the_logarithm_stays_right_where_the_plain_form_is_zero(z):
    sigma = one(0.1)
    log_ei = log_expected_improvement(sigma * z + BEST, sigma, one(BEST))
    assert log_ei.item() == pytest.approx(log_quadrature(0.1 * z + BEST, 0.1, BEST), rel=1e-6)


@pytest.mark.filterwarnings("ignore::botorch.exceptions.warnings.BotorchWarning")
def test_both_are_botorchs_of_the_same_posterior():
    model, X = make_model(), torch.rand(20, 1, dtype=torch.float64)
    with torch.no_grad():
        posterior = model.posterior(X)
        mu, sigma = posterior.mean[:, 0], posterior.variance[:, 0].sqrt()
        plain = ExpectedImprovement(model, best_f=BEST)(X[:, None])
        log = LogExpectedImprovement(model, best_f=BEST)(X[:, None])
    assert torch.allclose(expected_improvement(mu, sigma, BEST), plain, atol=1e-10)
    given = torch.full((20,), BEST, dtype=torch.float64)
    assert torch.allclose(log_expected_improvement(mu, sigma, given), log, atol=1e-6)


def test_each_student_may_have_an_incumbent_of_its_own():
    mu, sigma = GRID.T
    best_f = torch.linspace(-0.5, 0.8, len(GRID), dtype=torch.float64)
    together = log_expected_improvement(mu, sigma, best_f)
    alone = [
        log_expected_improvement(mu[i : i + 1], sigma[i : i + 1], best_f[i : i + 1])
        for i in range(len(GRID))
    ]
    assert torch.allclose(together, torch.cat(alone))


@pytest.mark.parametrize("scale", [1e-6, 1e-3, 1e3])
def test_the_unit_of_the_objective_does_not_matter(scale):
    """GPyTorch raises variances below 1e-6, which for accuracies that differ by a thousandth would be all of them."""
    mu, sigma = GRID.T
    best_f = torch.full((len(GRID),), BEST, dtype=torch.float64)
    unit = log_expected_improvement(mu, sigma, best_f)
    scaled = log_expected_improvement(scale * mu, scale * sigma, scale * best_f)
    assert torch.allclose(scaled, unit + np.log(scale), atol=1e-9)
