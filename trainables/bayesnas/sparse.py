"""The sparse Bayesian core: what a prior variance, a Hessian and a weight make of each other. Pure torch, no Ray.

A weight w has the prior N(0, gamma). The data see it with the curvature H. Its posterior variance is C, and the prior is bounded from above by the
convex penalty omega |w|, whose minimum over w gives the next gamma.

Notation (Yang 2019, chapter 4 and appendix A)
    gamma   prior variance, >= 0
    H       diagonal of the Hessian of the loss, in units of the penalty's factor: H / lambda (see `scaled`), >= 0
    C       (1 / gamma + H)^-1                                                    (4-2), (A-3)
    alpha   -C / gamma^2 + 1 / gamma = H / (1 + gamma H)                           (A-4)
    omega   sqrt(gamma - C) / gamma = sqrt(alpha)                                  (4-3)

The printed forms of alpha and omega are differences of nearly equal numbers where gamma H is small; the closed forms here are not.
"""

from __future__ import annotations

import math

import torch

PRUNE_BELOW = 1 / (2 * math.pi * math.e)
"""The variance at which the prior's differential entropy, ln(2 pi e gamma) / 2, is zero: .05855."""

GAMMA_RANGE = (1e-10, 1e10)
OMEGA_RANGE = (1e-6, 1e6)
"""Where numbers are kept, as in the public code."""


def posterior_variance(gamma: torch.Tensor, hessian: torch.Tensor) -> torch.Tensor:
    """C of (4-2) and (A-3); zero where gamma is.

    Args:
        gamma: [...] prior variances, >= 0.
        hessian: [...] curvatures, >= 0.
    """
    return gamma / (1 + gamma * hessian)


def precision_gain(gamma: torch.Tensor, hessian: torch.Tensor) -> torch.Tensor:
    """alpha of (A-4) in its closed form H / (1 + gamma H)."""
    return hessian / (1 + gamma * hessian)


def reweighting(gamma: torch.Tensor, hessian: torch.Tensor) -> torch.Tensor:
    """omega of (4-3) in its closed form sqrt(H / (1 + gamma H))."""
    return precision_gain(gamma, hessian).sqrt()


def scaled(hessian: torch.Tensor, factor: float) -> torch.Tensor:
    """The Hessian in units of the penalty's factor.

    With the loss E + factor * omega |w| the posterior is that of E / factor. The thesis leaves the division out, which makes the method nearly a
    threshold on magnitudes; the public code divides, and so do we.
    """
    return hessian / factor


def switch_variance(weight: torch.Tensor, omega: torch.Tensor) -> torch.Tensor:
    """s = |w / omega| of (4-4), the variance that minimises the bound; zero where the weight is, whatever omega."""
    found = weight.abs() / omega.clamp(*OMEGA_RANGE)
    return found.clamp(max=GAMMA_RANGE[1])


def entropy(gamma: torch.Tensor) -> torch.Tensor:
    """The differential entropy of N(0, gamma), in nats; -inf at zero."""
    return 0.5 * torch.log(2 * math.pi * math.e * gamma)


def is_pruned(gamma: torch.Tensor) -> torch.Tensor:
    """Whether the entropy is not above zero: gamma <= 1 / (2 pi e)."""
    return gamma <= PRUNE_BELOW
