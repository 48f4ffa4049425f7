"""Derived networks: a genotype and a width as a module, as an `Architecture`, and as the largest one within a budget."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import nn

from raysearch.architecture import Architecture
from raysearch.architecture.budget import cost
from raysearch.errors import BudgetError
from raysearch.models import num_parameters, trace
from trainables.bayesnas.cells.genotype import (
    NUM_INPUTS,
    NUM_NODES,
    CellGenotype,
    Genotype,
    Path,
    TreeGenotype,
)
from trainables.bayesnas.cells.network import CellNetwork
from trainables.bayesnas.cells.trees import TreeNetwork

MAX_CHANNELS = 1024
_COUNTED = ("params", "macs")
_NO_LIMIT = 2**63


def derive(
    genotype: Genotype,
    channels: int,
    num_cells: int,
    input_shape: Sequence[int],
    num_classes: int,
) -> nn.Module:
    """The network of a genotype, of standard modules that `raysearch.models.trace` reads: [B, C, H, W] -> logits [B, K].

    Args:
        channels: of the first cells; of a tree network the stem's.
        num_cells: N; a tree network has the genotype's blocks, whatever is given here.
        input_shape: [C, H, W] of the images.
        num_classes: K.
    """
    if isinstance(genotype, TreeGenotype):
        return TreeNetwork(genotype, channels, input_shape, num_classes)
    return CellNetwork(genotype, channels, num_cells, input_shape, num_classes)


@dataclass(frozen=True)
class Sized:
    """A genotype at a width.

    Attributes:
        costs: "params" and "macs".
    """

    genotype: Genotype
    channels: int
    num_cells: int
    costs: Mapping[str, int]


@dataclass(frozen=True)
class Sizing:
    """How large derived networks are.

    Attributes:
        input_shape: [C, H, W].
        num_classes: K.
        channels, num_cells: without a budget; `num_cells` are also the most with one.
        min_channels: the least.
        budget: limits by "params", "macs", "memory"; {}: none.
    """

    input_shape: tuple[int, ...]
    num_classes: int
    channels: int
    num_cells: int
    min_channels: int = 2
    budget: Mapping[str, int] = field(default_factory=dict)

    def module(self, sized: Sized) -> nn.Module:
        """The network, initialised from torch's global generator."""
        return derive(
            sized.genotype, sized.channels, sized.num_cells, self.input_shape, self.num_classes
        )

    def architecture(self, sized: Sized) -> Architecture:
        """The network as data; random numbers are drawn from a fork of torch's generator."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return trace(self.module(sized), self.input_shape, cache=False)

    def at(self, genotype: Genotype, channels: int, num_cells: int) -> Sized:
        """Counts without memory or time for weights."""
        with torch.device("meta"):
            network = derive(genotype, channels, num_cells, self.input_shape, self.num_classes)
        costs = {"params": num_parameters(network), "macs": _macs(network, self.input_shape)}
        return Sized(genotype, channels, num_cells, costs)

    def largest(self, genotype: Genotype) -> Sized | None:
        """The widest network of a genotype within the budget, with the most cells that allow one at all; None: none.

        Without a budget that of `channels` and `num_cells`.
        """
        if not self.budget:
            return self.at(genotype, self.channels, self.num_cells)
        depths = [1] if isinstance(genotype, TreeGenotype) else range(self.num_cells, 0, -1)
        for num_cells in depths:
            found = self._widest(genotype, num_cells)
            if found is not None:
                return found
        return None

    def _widest(self, genotype: Genotype, num_cells: int) -> Sized | None:
        """By doubling and halving: costs rise with the width."""

        def fits(channels: int) -> bool:
            return self.fits(self.at(genotype, channels, num_cells))

        low = self.min_channels
        if not fits(low):
            return None
        high = 2 * low
        while high < MAX_CHANNELS and fits(high):
            low, high = high, 2 * high
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if fits(middle) else (low, middle)
        return self.at(genotype, low, num_cells)

    def fits(self, sized: Sized) -> bool:
        """Whether a network is within the budget; memory is looked at last, as it needs a trace."""
        if any(sized.costs[metric] > self.budget.get(metric, _NO_LIMIT) for metric in _COUNTED):
            return False
        if "memory" not in self.budget:
            return True
        return cost(self.architecture(sized), "memory") <= self.budget["memory"]

    def fit(
        self, genotype: Genotype, weaken: Callable[[Genotype], Genotype | None]
    ) -> Sized | None:
        """The largest network within the budget, of a genotype that loses its weakest paths where it must.

        Args:
            weaken: a genotype without its weakest path, or None.
        """
        wanted: Genotype | None = genotype
        while wanted is not None:
            found = self.largest(wanted)
            if found is not None:
                return found
            wanted = weaken(wanted)
        return None

    def check(self, costliest: Genotype) -> None:
        """Refuses a budget that not every run can keep.

        Args:
            costliest: with one path a node, the dearest that can be left.

        Raises:
            BudgetError: even at the least width it is outside; names what it costs.
        """
        least = self.at(costliest, self.min_channels, 1)
        for metric, limit in self.budget.items():
            needed = (
                least.costs[metric]
                if metric in _COUNTED
                else cost(self.architecture(least), metric)
            )
            if needed > limit:
                raise BudgetError(
                    f"budget.{metric} of {limit:,} is below the smallest network of this search, which needs {needed:,}: raise "
                    "the budget or lower search.options.min_channels"
                )


def costliest_cells() -> CellGenotype:
    """One 5x5 separable convolution into each node, from both inputs."""
    paths = tuple(
        Path(node % NUM_INPUTS, node, "sep_conv_5x5")
        for node in range(NUM_INPUTS, NUM_INPUTS + NUM_NODES)
    )
    return CellGenotype(paths, paths)


def _macs(network: nn.Module, input_shape: Sequence[int]) -> int:
    """Multiply-accumulates of one input: convolutions and linear layers, from shapes alone."""
    total = 0

    def count(module: nn.Module, _: object, output: torch.Tensor) -> None:
        nonlocal total
        if isinstance(module, nn.Conv2d):
            taps = module.kernel_size[0] * module.kernel_size[1]
            total += output.numel() * taps * module.in_channels // module.groups
        elif isinstance(module, nn.Linear):
            total += output.numel() * module.in_features

    handles = [module.register_forward_hook(count) for module in network.modules()]
    with torch.no_grad():
        network.eval()(torch.empty(1, *input_shape, device="meta"))
    for handle in handles:
        handle.remove()
    return total
