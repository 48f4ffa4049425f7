"""The closed forms against the printed ones and against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from trainables.bayesnas import sparse


def _numbers() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    gamma = 10 ** (4 * torch.rand(200, generator=generator, dtype=torch.float64) - 2)
    hessian = 10 ** (4 * torch.rand(200, generator=generator, dtype=torch.float64) - 2)
    return gamma, hessian


def test_omega_is_that_of_4_3_and_the_root_of_a_4() -> None:
    gamma, hessian = _numbers()
    posterior = 1 / (1 / gamma + hessian)
    torch.testing.assert_close(sparse.posterior_variance(gamma, hessian), posterior)
    printed = (gamma - posterior).sqrt() / gamma
    alpha = -posterior / gamma**2 + 1 / gamma
    torch.testing.assert_close(sparse.reweighting(gamma, hessian), printed, rtol=1e-9, atol=0)
    torch.testing.assert_close(sparse.reweighting(gamma, hessian), alpha.sqrt(), rtol=1e-9, atol=0)


def test_the_closed_form_survives_where_the_printed_one_cancels() -> None:
    gamma, hessian = torch.tensor([1e-10]), torch.tensor([1e-3])
    printed = (gamma - sparse.posterior_variance(gamma, hessian)).sqrt() / gamma
    assert float(printed) != pytest.approx(math.sqrt(1e-3), rel=1e-3)
    assert float(sparse.reweighting(gamma, hessian)) == pytest.approx(math.sqrt(1e-3), rel=1e-6)


def test_nothing_is_pruned_above_one_over_two_pi_e() -> None:
    assert pytest.approx(0.05855, abs=5e-6) == sparse.PRUNE_BELOW
    gamma = torch.tensor([0.0, 0.0585, 0.0586])
    assert sparse.is_pruned(gamma).tolist() == [True, True, False]
    assert (sparse.entropy(gamma) > 0).tolist() == [False, False, True]


def test_a_variance_without_a_weight_is_zero_whatever_omega_is() -> None:
    found = sparse.switch_variance(torch.tensor([0.0, -2.0]), torch.tensor([0.0, 4.0]))
    assert found.tolist() == [0.0, 0.5]


@pytest.mark.parametrize(
    ("mean", "weight", "gamma"), [(0.05, 0.0, 0.0), (0.1, 0.0, 0.0), (0.3, 0.267, 0.08)]
)
def test_a_scalar_quadratic_ends_at_the_fixed_point_of_sparse_bayes(
    mean: float, weight: float, gamma: float
) -> None:
    """E = h/2 (w - m)^2 with h = 1 and lambda = .01, the Hessian divided by it: small means are zero, others hardly shrunk."""
    lam, w, omega = 0.01, torch.tensor([mean]), torch.tensor([1.0])
    variance = torch.tensor([1.0])
    for _ in range(2000):
        variance = sparse.switch_variance(w, omega)
        omega = sparse.reweighting(variance, sparse.scaled(torch.tensor([1.0]), lam))
        w = (torch.tensor([mean]) - lam * omega).clamp(min=0)
    assert float(w) == pytest.approx(weight, abs=1e-3)
    assert float(variance) == pytest.approx(gamma, abs=2e-3)


def test_without_the_division_the_method_is_a_threshold_on_magnitudes() -> None:
    for mean, alive in ((0.1, True), (0.05, False)):
        w = omega = gamma = torch.tensor([1.0])
        for _ in range(2000):
            w = (torch.tensor([mean]) - 0.01 * omega).clamp(min=0)
            gamma = sparse.switch_variance(w, omega)
            omega = sparse.reweighting(gamma, torch.tensor([1.0]))
        assert bool(sparse.is_pruned(gamma)) is not alive
        assert float(w) > 0.8 * mean
