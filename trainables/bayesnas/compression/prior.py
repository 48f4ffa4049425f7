"""Algorithm 2's iteration: prior variances of groups, the penalty's weights, and what the penalty does to a weight.

Notation (Yang 2019, appendix A)
    W_g     the weights of group g, here in units of their layer (see below)
    gamma   [G] prior variance; gamma_g(t) = ||W_g(t)||_2 / omega_g(t-1)                              (A-2)
    C       (1 / gamma + diag H)^-1, gamma of a weight in several groups: 1 / gamma = sum 1 / gamma_g      (A-3)
    alpha   -C / gamma^2 + 1 / gamma = H / (1 + gamma H)                                                   (A-4)
    omega   [G] sqrt(sum over the group of |alpha|)                                                        (A-5)
    the loss is E + lambda sum omega_g ||W_g||_2                                                           (A-1)

DEVIATION, units: an entropy, and so the threshold 1 / (2 pi e), depends on the unit of what it is the entropy of. Weights are measured in the root
mean square of their tensor's living weights, so that a network with BatchNorm, whose filters have no length of their own, is judged alike
whatever its scale.
DEVIATION, descent: the penalty's part of a step is taken in its proximal form (soft-thresholding), which gives exact zeros where a subgradient
jitters around them; the minimum is the same.
DEVIATION, scale: a filter before BatchNorm, and BatchNorm's factors before another such filter, may shrink without any change of the loss; the penalty
would draw them to zero together. After a proximal step such tensors get their former length back, so that only their groups' shares change.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from trainables.bayesnas import sparse
from trainables.bayesnas.compression.groups import Groups

Tensors = Mapping[str, torch.Tensor]


class GroupPrior:
    """The variances of a network's groups of weights.

    Attributes:
        gamma: [G].
        omega: [G].
        unit: parameter -> the root mean square of its living weights.
    """

    def __init__(
        self,
        groups: Groups,
        weights: Tensors,
        scale_free: Mapping[str, Sequence[int]] | None = None,
    ) -> None:
        """Starts with all variances one.

        Args:
            groups: of the weights.
            weights: by parameter.
            scale_free: parameter -> the axes over which its length has no meaning.
        """
        self.groups = groups
        self._scale_free = dict(scale_free or {})
        self.gamma = torch.ones(groups.count)
        self.omega = torch.ones(groups.count)
        self.unit = {key: _rms(weights[key]) for key in groups.keys}

    def lengths(self, weights: Tensors) -> torch.Tensor:
        """[G] ||W_g||_2 in the layers' units."""
        squares = {
            key: weights[key].detach().square() / self.unit[key] ** 2 for key in self.groups.keys
        }
        return self.groups.sums(squares).sqrt()

    def measure(self, weights: Tensors, masks: Tensors) -> None:
        """Takes the units anew from the weights that live."""
        self.unit = {
            key: _rms(weights[key].detach()[masks[key].expand_as(weights[key]) > 0])
            for key in self.groups.keys
        }

    def update(
        self, weights: Tensors, hessian: Tensors, *, factor: float | None, inner: int = 1
    ) -> None:
        """One update of gamma, then of omega, in the order of algorithm 2.

        Args:
            weights: by parameter.
            hessian: the diagonal for each weight, >= 0.
            factor: lambda, by which the Hessian is divided; None: it is not.
            inner: how often.
        """
        lengths = self.lengths(weights)
        curvature = {
            key: (hessian[key] if factor is None else sparse.scaled(hessian[key], factor))
            * self.unit[key] ** 2
            for key in self.groups.keys
        }
        for _ in range(inner):
            self.gamma = sparse.switch_variance(lengths, self.omega)
            alpha = {
                key: sparse.precision_gain(self.of_weights(key), curvature[key]).abs()
                for key in self.groups.keys
            }
            self.omega = self.groups.sums(alpha).sqrt().clamp(*sparse.OMEGA_RANGE)

    def of_weights(self, key: str) -> torch.Tensor:
        """The prior variance of each weight of a parameter: the precisions of its groups add up."""
        precision: torch.Tensor | float = 0.0
        for member in self.groups.of(key):
            precision = precision + 1 / member.spread(self.gamma.clamp(*sparse.GAMMA_RANGE))
        assert isinstance(precision, torch.Tensor)
        return 1 / precision

    def shrink(self, weights: Tensors, step: float) -> None:
        """The penalty's part of a step of length `step` (learning rate times lambda), in place."""
        per_group = self.omega / self.lengths(weights).clamp(min=1e-12)
        for key in self.groups.keys:
            pull: torch.Tensor | float = 0.0
            for member in self.groups.of(key):
                pull = pull + member.spread(per_group)
            assert isinstance(pull, torch.Tensor)
            weight, axes = weights[key], self._scale_free.get(key)
            before = None if axes is None else weight.square().sum(tuple(axes), keepdim=True)
            weight.mul_((1 - step / self.unit[key] ** 2 * pull).clamp_(min=0))
            if before is not None:
                after = weight.square().sum(tuple(axes or ()), keepdim=True)
                weight.mul_((before / after.clamp(min=1e-30)).sqrt_())

    def state_dict(self) -> dict[str, Any]:
        return {"gamma": self.gamma, "omega": self.omega, "unit": dict(self.unit)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.gamma, self.omega = state["gamma"].clone(), state["omega"].clone()
        self.unit = dict(state["unit"])


def _rms(weights: torch.Tensor) -> float:
    """The root mean square, never zero."""
    found = float(weights.detach().double().square().mean().sqrt()) if weights.numel() else 0.0
    return max(found, 1e-12)
