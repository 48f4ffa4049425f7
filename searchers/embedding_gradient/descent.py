"""Compression: gradient descent on L_c in the embedding (section 4.4 of the paper, eqs 16 to 18), many descents at once.

y' = y - eta dL_c/dy. SLIP: eq 18, and line 20 of Algorithm 1, add the gradient of a loss that is to be small.

Ours takes up to 200 steps of Adam in coordinates in which the training cloud is round, decodes every step, and stays near the cloud;
faithful takes one plain step.

Notation
    Y      [S, N] points of S descents                Z    the same, whitened: y = mean + z root^T
    lam    [S] lambda of each                         r    radius of the cloud: the root mean square of whitened coordinates is 1
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from searchers.ahead import Cancelled
from searchers.embedding_gradient.autoencoder import Networks
from searchers.embedding_gradient.losses import compression_loss

RIDGE = 1e-3
"""Of the cloud's covariance, in units of its mean variance."""


@dataclass(frozen=True)
class Goal:
    """What a descent wants.

    Attributes:
        a_0, p_0: targets of accuracy and size, in the regressors' units.
        below_is_fine: smaller than p_0 costs nothing.
        kappa: standard deviations of the regressors that are taken off a_hat (a lower confidence bound).
    """

    a_0: float
    p_0: float
    below_is_fine: bool
    kappa: float = 0.0


@dataclass(frozen=True, eq=False)
class Cloud:
    """Where the embeddings of known architectures lie.

    Attributes:
        mean: [N]
        root: [N, N] lower Cholesky factor of the covariance.
    """

    mean: Tensor
    root: Tensor

    @classmethod
    def of(cls, Y: Tensor) -> Cloud:
        """Y: [B, N]."""
        mean = Y.mean(0)
        centred = (Y - mean).double()
        covariance = centred.T @ centred / max(len(Y) - 1, 1)
        level = covariance.diagonal().mean().clamp(min=1e-8)
        eye = torch.eye(len(mean), dtype=torch.float64)
        root = torch.linalg.cholesky(covariance + RIDGE * level * eye)
        return cls(mean, root.float())

    def whiten(self, Y: Tensor) -> Tensor:
        """[..., N] -> [..., N]"""
        flat = (Y - self.mean).reshape(-1, len(self.mean))
        return torch.linalg.solve_triangular(self.root, flat.T, upper=False).T.reshape(Y.shape)

    def place(self, Z: Tensor) -> Tensor:
        """Inverts `whiten`."""
        return self.mean + Z @ self.root.T


@dataclass(frozen=True)
class DescentOptions:
    """How to descend.

    Attributes:
        num_steps: of Adam.
        lr: of Adam, in whitened coordinates.
        radius: r, beyond which `pull` works; inf: no trust region.
        pull: weight of the squared excess over the radius.
    """

    num_steps: int = 60
    lr: float = 0.1
    radius: float = 1.2
    pull: float = 1.0


def loss_at(
    networks: Networks, Y: Tensor, lam: Tensor, goal: Goal, which: Tensor | None = None
) -> Tensor:
    """L_c of each point: [S].

    Args:
        networks: trained.
        Y: [S, N]
        lam: [S]
        goal: targets.
        which: [S] the regressor whose accuracy counts; None: the bound of all.
    """
    a_hat = networks.f_a(Y)  # [M, S]
    if which is not None:
        bound = a_hat.gather(0, which[None])[0]
    else:
        bound = a_hat.mean(0)
        if goal.kappa and len(a_hat) > 1:
            bound = bound - goal.kappa * a_hat.std(0)
    p_hat = networks.f_p(Y)[0]
    return compression_loss(bound, p_hat, lam, goal.a_0, goal.p_0, below_is_fine=goal.below_is_fine)


def one_step(networks: Networks, Y: Tensor, lam: Tensor, goal: Goal, eta: Tensor) -> Tensor:
    """The paper's: y' = y - eta dL_c/dy. [S, N]

    Args:
        networks: trained.
        Y: [S, N]
        lam, eta: [S]
        goal: targets.
    """
    at = Y.detach().requires_grad_(True)
    (gradient,) = torch.autograd.grad(loss_at(networks, at, lam, goal).sum(), at)
    return Y - eta[:, None] * gradient


def descend(
    networks: Networks,
    cloud: Cloud,
    Y: Tensor,
    lam: Tensor,
    goal: Goal,
    options: DescentOptions,
    cancelled: Cancelled = lambda: False,
) -> Tensor:
    """The paths of S descents: [steps, S, N], without their starts; shorter where cancelled.

    Args:
        networks: trained.
        cloud: the trust region.
        Y: [S, N] starts.
        lam: [S]
        goal: targets.
        options: steps, rate, trust.
        cancelled: see `searchers.ahead`.
    """
    Z = cloud.whiten(Y).detach().requires_grad_(True)
    adam = torch.optim.Adam([Z], lr=options.lr)
    path: list[Tensor] = []
    with torch.enable_grad():
        for _ in range(options.num_steps):
            if cancelled():
                break
            loss = loss_at(networks, cloud.place(Z), lam, goal)
            if options.radius < float("inf"):
                distance = Z.square().mean(1).clamp(min=1e-12).sqrt()  # [S]
                loss = loss + options.pull * F.relu(distance - options.radius).square()
            adam.zero_grad()
            loss.sum().backward()
            adam.step()
            path.append(cloud.place(Z).detach())
    return torch.stack(path) if path else Y.new_zeros((0, *Y.shape))


def walk(
    networks: Networks,
    cloud: Cloud,
    Y: Tensor,
    lam: Tensor,
    goal: Goal,
    which: Tensor,
    length: Tensor,
    num_steps: int,
) -> Tensor:
    """The paths of S descents by steps of a given length straight down the gradient: [steps, S, N], without their starts.

    Adam's steps are about equal in all coordinates, whatever they matter; a student that is to be near a path needs those that matter.

    Args:
        networks: trained.
        cloud: whose whitened coordinates count.
        Y: [S, N] starts.
        lam: [S]
        goal: targets.
        which: [S] see `loss_at`.
        length: [S] of a step, whitened.
        num_steps: how many.
    """
    Z = cloud.whiten(Y).detach()
    path = []
    for _ in range(num_steps):
        Z.requires_grad_(True)
        with torch.enable_grad():
            loss = loss_at(networks, cloud.place(Z), lam, goal, which).sum()
        (gradient,) = torch.autograd.grad(loss, Z)
        Z = Z.detach() - length[:, None] * F.normalize(gradient, dim=1)
        path.append(cloud.place(Z))
    return torch.stack(path)
