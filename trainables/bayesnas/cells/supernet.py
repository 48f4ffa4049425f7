"""The two super-networks behind one face: all paths at once, each multiplied by its switch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import nn

from raysearch.bayesnas.cells import SuperNetSettings
from trainables.bayesnas.cells.derivation import cell_paths, kept_in_tree
from trainables.bayesnas.cells.genotype import (
    NUM_INPUTS,
    CellGenotype,
    Genotype,
    Path,
    TreeGenotype,
    all_paths,
)
from trainables.bayesnas.cells.network import CellNetwork, Factors
from trainables.bayesnas.cells.trees import OUTPUT, STAGES, TreeNetwork, tree_paths
from trainables.bayesnas.dependency import Edge, SwitchGraph, SwitchGraphs


class Layout:
    """Where the switches of groups of paths stand in one vector.

    A group is a kind of cell, or a block. Each of its paths has an operation's switch, and the paths of an edge share an identity switch
    where there are zero-nodes.

    Attributes:
        groups: their names.
        paths: those of each group.
        names: [S] "normal/0->2/sep_conv_3x3", "normal/0->2/zero".
        graphs: what depends on what.
    """

    def __init__(
        self, groups: Sequence[str], paths: Sequence[Path], *, num_inputs: int, zero: bool
    ) -> None:
        self.groups, self.paths = tuple(groups), tuple(paths)
        edges = list(dict.fromkeys((path.source, path.target) for path in paths))
        counts = [sum((p.source, p.target) == edge for p in paths) for edge in edges]
        graph = SwitchGraph(
            num_inputs, tuple(Edge(*e, n, zero) for e, n in zip(edges, counts, strict=True))
        )
        self.graphs = SwitchGraphs((graph,) * len(self.groups))
        names: list[str] = []
        for source, target in edges:
            names += [p.name for p in paths if (p.source, p.target) == (source, target)]
            names += [f"{source}->{target}/zero"] * zero
        self.names = tuple(f"{group}/{name}" for group in self.groups for name in names)
        place = {name: p for p, name in enumerate(self.names)}
        self.operations = [[place[f"{g}/{p.name}"] for p in self.paths] for g in self.groups]
        self.zeros = [
            [place[f"{g}/{p.source}->{p.target}/zero"] for p in self.paths] if zero else None
            for g in self.groups
        ]

    def factors(self, switches: torch.Tensor, on: Sequence[Sequence[bool]]) -> list[Factors]:
        """What the paths of each group are multiplied by: [S] -> scalars, [B, S] -> [B, 1, 1, 1] each.

        With a zero-node that is w_ii' w_i'j. DEVIATION: the identity switch scales what the operations give, not what they read, because
        a BatchNorm in them would take the scale away again.

        Args:
            on: for each path of each group whether it is there.
        """
        found: list[Factors] = []
        for operations, zeros, there in zip(self.operations, self.zeros, on, strict=True):
            scale = switches[..., operations]
            if zeros is not None:
                scale = scale * switches[..., zeros]
            if scale.dim() == 2:
                scale = scale[:, :, None, None, None]  # [B, P, 1, 1, 1]
                parts = scale.unbind(1)
            else:
                parts = scale.unbind(0)
            found.append(
                [part if is_on else None for part, is_on in zip(parts, there, strict=True)]
            )
        return found

    def gammas(self, gamma: torch.Tensor) -> list[list[float]]:
        """[S] -> for each group those of its paths."""
        values = gamma.tolist()
        return [[values[place] for place in places] for places in self.operations]

    def mask(self, kept: Sequence[Sequence[Path]]) -> torch.Tensor:
        """[S] bool: the switches of some paths of each group."""
        mask = torch.zeros(len(self.names), dtype=torch.bool)
        for group, paths in enumerate(kept):
            wanted = set(paths)
            zeros = self.zeros[group]
            for place, path in enumerate(self.paths):
                if path in wanted:
                    mask[self.operations[group][place]] = True
                    if zeros is not None:
                        mask[zeros[place]] = True
        return mask


class SuperNet(Protocol):
    """A super-network.

    Attributes:
        layout: of its switches.
        network: the module, with all paths.
    """

    layout: Layout
    network: nn.Module

    def logits(self, images: torch.Tensor, factors: list[Factors] | None) -> torch.Tensor:
        """images: [B, C, H, W] -> [B, K]; factors None: all paths as they are."""
        ...

    def genotype(self, gamma: torch.Tensor, max_paths: int | None = None) -> Genotype:
        """What is left of it: gamma [S]."""
        ...

    def kept(self, genotype: Genotype) -> list[Sequence[Path]]:
        """The genotype's paths by group."""
        ...


class CellSuperNet:
    """Normal and reduction cells with all 98 paths and zero-nodes; all cells of a kind share their switches."""

    def __init__(
        self, settings: SuperNetSettings, input_shape: Sequence[int], num_classes: int
    ) -> None:
        paths = all_paths()
        self.layout = Layout(("normal", "reduction"), paths, num_inputs=NUM_INPUTS, zero=True)
        self.network: nn.Module = CellNetwork(
            CellGenotype(paths, paths),
            settings.channels,
            settings.num_cells,
            input_shape,
            num_classes,
            affine=False,
        )

    def logits(self, images: torch.Tensor, factors: list[Factors] | None) -> torch.Tensor:
        normal, reduction = factors or (None, None)
        return self.network(images, normal, reduction)

    def genotype(self, gamma: torch.Tensor, max_paths: int | None = None) -> CellGenotype:
        normal, reduction = (
            cell_paths(self.layout.paths, values, max_paths=max_paths)
            for values in self.layout.gammas(gamma)
        )
        return CellGenotype(normal, reduction)

    def kept(self, genotype: Genotype) -> list[Sequence[Path]]:
        assert isinstance(genotype, CellGenotype)
        return [genotype.normal, genotype.reduction]


class TreeSuperNet:
    """A pyramidal network of trees; every block has its own switches, and no zero-nodes."""

    def __init__(
        self, settings: SuperNetSettings, input_shape: Sequence[int], num_classes: int
    ) -> None:
        paths = tree_paths()
        count = STAGES * settings.blocks
        self.layout = Layout(
            [f"block{number}" for number in range(count)], paths, num_inputs=1, zero=False
        )
        self._growth, self._groups = settings.alpha / settings.width, settings.groups
        self.network: nn.Module = TreeNetwork(
            self._genotype([paths] * count), settings.width, input_shape, num_classes, affine=False
        )

    def _genotype(self, blocks: Sequence[Sequence[Path]]) -> TreeGenotype:
        return TreeGenotype(tuple(map(tuple, blocks)), self._growth, self._groups)

    def logits(self, images: torch.Tensor, factors: list[Factors] | None) -> torch.Tensor:
        return self.network(images, factors)

    def genotype(self, gamma: torch.Tensor, max_paths: int | None = None) -> TreeGenotype:
        values = self.layout.gammas(gamma)
        paths = self.layout.paths
        return self._genotype([kept_in_tree(paths, block, output=OUTPUT) for block in values])

    def kept(self, genotype: Genotype) -> list[Sequence[Path]]:
        assert isinstance(genotype, TreeGenotype)
        return list(genotype.blocks)


def make_super_net(
    settings: SuperNetSettings, input_shape: Sequence[int], num_classes: int
) -> SuperNet:
    """The super-network that the settings describe, initialised from torch's global generator."""
    kinds = {"cells": CellSuperNet, "proxyless": TreeSuperNet}
    return kinds[settings.kind](settings, input_shape, num_classes)
