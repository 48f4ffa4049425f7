"""The thesis's recursion (`trainables.bayesnas.recursion`) for the switches of a super-network.

The super-network is traced as a graph of images and of the factors that its paths are multiplied by. A factor w_ii' w_i'j is a
product of different switches, so squares of its derivatives are its derivatives at the squares of the switches; a switch in
several factors, or a factor in several cells, has the sum of what they give.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import fx, nn

from trainables.bayesnas.cells.network import Factors
from trainables.bayesnas.cells.supernet import SuperNet
from trainables.bayesnas.recursion import recursive_factors_diagonal


class SwitchRecursion:
    """The recursion of one super-network, of which some paths are off."""

    def __init__(self, net: SuperNet, on: Sequence[Sequence[bool]]) -> None:
        """
        Args:
            net: its module is shared, not copied.
            on: for each path of each group whether it is there.
        """
        self._network, self._layout, self._on = net.network, net.layout, on
        self._graph = fx.symbolic_trace(_OfFactors(net, on))

    def diagonal(
        self, images: torch.Tensor, labels: torch.Tensor, switches: torch.Tensor
    ) -> torch.Tensor:
        """H of the mean cross-entropy, [S], >= 0; the super-network must be in evaluation mode.

        Args:
            images: [B, C, H, W].
            labels: [B].
            switches: [S].
        """
        assert not self._network.training, "BatchNorm would mix images"
        found = recursive_factors_diagonal(self._graph, images, self._factors(switches), labels)
        return torch.func.vjp(self._factors, switches.square())[1](found)[0]

    def _factors(self, switches: torch.Tensor) -> torch.Tensor:
        """[S] -> [F] those of the paths that are there, group after group."""
        groups = self._layout.factors(switches, self._on)
        there = [factor for group in groups for factor in group if factor is not None]
        return torch.stack(there) if there else switches[:0]


class _OfFactors(nn.Module):
    """A super-network as a function of images and of one vector of factors."""

    def __init__(self, net: SuperNet, on: Sequence[Sequence[bool]]) -> None:
        super().__init__()
        self.network = net.network
        self._logits, self._on = net.logits, on

    def forward(self, images: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
        """[B, C, H, W], [F] -> [B, K]."""
        places = iter(range(sum(map(sum, self._on))))
        groups: list[Factors] = [
            [factors[next(places)] if there else None for there in group] for group in self._on
        ]
        return self._logits(images, groups)
