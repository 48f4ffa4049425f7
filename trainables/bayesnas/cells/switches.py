"""The switches of a super-network: how they are trained, and what an update makes of them (Yang 2019, algorithm 1).

Notation: w, gamma, omega, s, H as in `trainables.bayesnas.sparse`; all [S], in the order of `SwitchGraphs`.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from trainables.bayesnas.dependency import SwitchGraphs
from trainables.bayesnas.sparse import GAMMA_RANGE, is_pruned, reweighting, scaled, switch_variance


class Switches:
    """The state of S switches. Algorithm 1 starts with w = gamma = omega = 1.

    Attributes:
        weights: [S] w.
        gamma, omega: [S].
        active: [S] bool; a switch that is off has w = gamma = 0 and stays off.
        free: [S] bool; active, but not penalised: it alone leads into a node.
    """

    def __init__(self, graphs: SwitchGraphs, device: torch.device) -> None:
        self.graphs = graphs
        ones = torch.ones(graphs.num_switches, device=device)
        self.weights, self.gamma, self.omega = ones.clone(), ones.clone(), ones.clone()
        self.active, self.free = ones.bool(), torch.zeros_like(ones).bool()
        self._previous = ones.clone()

    def step(self, gradient: torch.Tensor, *, lr: float, momentum: float, lam: float) -> None:
        """One step on E_D + lam sum |omega w|: a heavy-ball step on E_D, then the penalty's proximal operator.

        DEVIATION: the public code leaves |w| to SGD, whose subgradient jumps at zero; here what should be zero is. The minimum is the
        same one.

        Args:
            gradient: [S] of E_D, the mean loss.
        """
        moved = self.weights - lr * gradient + momentum * (self.weights - self._previous)
        limit = torch.where(self.free, 0.0, lr * lam * self.omega)
        moved = moved.sign() * (moved.abs() - limit).clamp(min=0)
        self._previous = self.weights
        self.weights = torch.where(self.active, moved, 0.0)

    def update(self, hessian: torch.Tensor, lam: float) -> None:
        """Steps 2 to 4 of algorithm 1: the new omega (4-3), then with it s (4-4) and gamma (3-5, 3-6, 4-5); prunes by entropy.

        Args:
            hessian: [S] of the mean loss, >= 0; divided by lam here (`sparse.scaled`).
        """
        # gamma is infinite where a curvature is zero, and would stay so
        gamma = self.gamma.clamp(max=GAMMA_RANGE[1])
        self.omega = reweighting(gamma, scaled(hessian, lam))
        s = torch.where(self.active, switch_variance(self.weights, self.omega), 0.0)
        self.gamma = self.graphs.dependent_variance(s)
        self.active = self.active & ~is_pruned(self.gamma)
        self.free = torch.zeros_like(self.active)

    def keep(self, kept: torch.Tensor) -> None:
        """Lets only some switches go on; those that were pruned begin again at w = 1, unpenalised, because no other one is left.

        Args:
            kept: [S] bool.
        """
        self.free = kept & ~self.active
        self.active = kept
        self.weights = torch.where(self.free, 1.0, torch.where(kept, self.weights, 0.0))
        self._previous = torch.where(
            self.free, self.weights, torch.where(kept, self._previous, 0.0)
        )

    @property
    def is_finite(self) -> bool:
        return bool(torch.isfinite(self.weights).all() and torch.isfinite(self.omega).all())

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Copies on the CPU."""
        return {name: getattr(self, name).detach().cpu().clone() for name in _FIELDS}

    def load_state_dict(self, state: Mapping[str, torch.Tensor]) -> None:
        for name in _FIELDS:
            setattr(self, name, state[name].to(self.weights.device).clone())


_FIELDS = ("weights", "gamma", "omega", "active", "free", "_previous")
