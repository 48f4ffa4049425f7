"""Expected improvement of many students whose predictions are given.

Notation
    mu, sigma   predictive mean and standard deviation
    f*          the incumbent
    z           (mu - f*) / sigma

    EI = (mu - f*) Phi(z) + sigma phi(z)

The plain form is the paper's (section 3.2; sigma with the noise, as in the authors' code). Our own mode takes the logarithm by BoTorch's
`LogExpectedImprovement`: the plain form is zero for most candidates of a late step.
"""

from __future__ import annotations

from typing import Any

import torch
from botorch.acquisition import LogExpectedImprovement
from botorch.models.model import Model
from botorch.posteriors import GPyTorchPosterior
from botorch.utils.probability.utils import ndtr, phi
from gpytorch.distributions import MultivariateNormal
from torch import Tensor


def expected_improvement(mu: Tensor, sigma: Tensor, best_f: float) -> Tensor:
    """EI: [m].

    Args:
        mu: [m].
        sigma: [m] positive.
        best_f: f*.
    """
    z = (mu - best_f) / sigma
    return (mu - best_f) * ndtr(z) + sigma * phi(z)


def log_expected_improvement(mu: Tensor, sigma: Tensor, best_f: Tensor) -> Tensor:
    """log EI: [m].

    Args:
        mu: [m].
        sigma: [m] positive.
        best_f: [m] f*, which may differ between students.
    """
    # in units of sigma: variances below 1e-6 are raised to it, which in the objective's own units can be all of them
    model = _Given((mu - best_f) / sigma, torch.ones_like(sigma))
    unit = LogExpectedImprovement(model, best_f=0.0)(torch.zeros(len(mu), 1, 1).to(mu))
    return unit + sigma.log()


class _Given(Model):
    """A model whose predictions for m students are known."""

    def __init__(self, mu: Tensor, variance: Tensor) -> None:
        super().__init__()
        self._distribution = MultivariateNormal(mu[:, None], variance[:, None, None])

    @property
    def num_outputs(self) -> int:
        return 1

    def posterior(self, X: Tensor, *args: Any, **kwargs: Any) -> GPyTorchPosterior:
        """The predictions of all of them, whatever X [m, 1, d] is."""
        del X, args, kwargs
        return GPyTorchPosterior(self._distribution)
