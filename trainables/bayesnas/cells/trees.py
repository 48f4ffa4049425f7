"""A pyramidal network whose 3x3 convolutions are trees of paths (Yang 2019, section 5-3: the proxyless search).

Han et al., "Deep pyramidal residual networks" (2017): bottleneck blocks with BatchNorm first and no ReLU at the end, whose widths grow by
alpha / (number of blocks) a block; shortcuts are averaged where the image halves and filled with zero channels.

A tree has its root, three nodes below it, and from each of these three operations into the output: nine paths. The thesis prints the number
of paths and the groups of the convolutions, not the operations; which ones are ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import torch
from torch import nn
from torch.nn.functional import pad

from trainables.bayesnas.cells.genotype import Path, TreeGenotype
from trainables.bayesnas.cells.network import Factors
from trainables.bayesnas.cells.operations import make_operation

STAGES = 3
EXPANSION = 4
"""A block's output has four times the channels of its tree."""

BRANCHES = ("conv_3x3", "sep_conv_3x3", "identity")
LEAVES = ("conv_3x3", "identity", "avg_pool_3x3")
OUTPUT = len(BRANCHES) + 1


def tree_paths() -> tuple[Path, ...]:
    """The twelve operations of a tree's nine paths from its root, node 0, to its output, node 4."""
    first = [Path(0, 1 + place, name) for place, name in enumerate(BRANCHES)]
    second = [Path(node, OUTPUT, name) for node in range(1, OUTPUT) for name in LEAVES]
    return (*first, *second)


class Tree(nn.Module):
    """[B, C, H, W] -> [B, C, H / stride, W / stride]."""

    def __init__(
        self, paths: Sequence[Path], channels: int, *, stride: int, groups: int, affine: bool
    ) -> None:
        super().__init__()
        self.paths = tuple(paths)
        self.operations = nn.ModuleDict(
            {
                _key(path): make_operation(
                    path.operation,
                    channels,
                    stride if path.source == 0 else 1,
                    affine=affine,
                    groups=groups,
                )
                for path in paths
            }
        )

    def forward(self, images: torch.Tensor, factors: Factors | None) -> torch.Tensor:
        """factors: as of a cell; at least one path from root to output is there."""
        nodes: dict[int, list[torch.Tensor]] = {0: [images]}
        for place, path in enumerate(self.paths):
            factor = 1 if factors is None else factors[place]
            if factor is None:
                continue
            source = reduce(torch.add, nodes[path.source])
            found = self.operations[_key(path)](source)
            found = found if factors is None else found * factor
            nodes.setdefault(path.target, []).append(found)
        return reduce(torch.add, nodes[OUTPUT])


class TreeBlock(nn.Module):
    """A bottleneck around a tree, and its shortcut; without paths the shortcut alone.

    Args:
        width: C of the tree; the output has 4 C channels.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        in_channels: int,
        width: int,
        *,
        stride: int,
        groups: int,
        affine: bool,
    ) -> None:
        super().__init__()
        out_channels = EXPANSION * width
        self.missing = out_channels - in_channels
        self.halve = nn.AvgPool2d(2, ceil_mode=True) if stride == 2 else nn.Identity()
        self.tree = None
        if paths:
            self.before = nn.Sequential(
                nn.BatchNorm2d(in_channels),
                nn.Conv2d(in_channels, width, 1, bias=False),
                nn.BatchNorm2d(width),
            )
            self.tree = Tree(paths, width, stride=stride, groups=groups, affine=affine)
            self.after = nn.Sequential(
                nn.BatchNorm2d(width),
                nn.ReLU(),
                nn.Conv2d(width, out_channels, 1, bias=False),
                nn.BatchNorm2d(out_channels),
            )

    def forward(self, images: torch.Tensor, factors: Factors | None = None) -> torch.Tensor:
        """images: [B, C', H, W] -> [B, 4 C, H / stride, W / stride]."""
        shortcut = self.halve(images)
        if self.missing:
            shortcut = pad(shortcut, (0, 0, 0, 0, 0, self.missing))
        if self.tree is None or (factors is not None and all(f is None for f in factors)):
            return shortcut
        return self.after(self.tree(self.before(images), factors)) + shortcut


class TreeNetwork(nn.Module):
    """Stem, three stages of blocks (each but the first halves the image), BatchNorm, ReLU, global average, a linear classifier.

    Args:
        genotype: the paths of each block, and how widths grow.
        channels: of the stem.
        input_shape: [C, H, W] of the images.
        num_classes: K.
        affine: see `make_operation`.
    """

    def __init__(
        self,
        genotype: TreeGenotype,
        channels: int,
        input_shape: Sequence[int],
        num_classes: int,
        *,
        affine: bool = True,
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(input_shape[0], channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)
        )
        widths = block_widths(genotype, channels)
        self.blocks = nn.ModuleList()
        before, in_stage = channels, len(widths) // STAGES
        for number, (paths, width) in enumerate(zip(genotype.blocks, widths, strict=True)):
            stride = 2 if number and number % in_stage == 0 else 1
            self.blocks.append(
                TreeBlock(
                    paths, before, width, stride=stride, groups=genotype.groups, affine=affine
                )
            )
            before = EXPANSION * width
        self.head = nn.Sequential(nn.BatchNorm2d(before), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
        self.classifier = nn.Linear(before, num_classes)

    def forward(
        self, images: torch.Tensor, factors: Sequence[Factors] | None = None
    ) -> torch.Tensor:
        """images: [B, C, H, W] -> logits [B, K].

        Args:
            factors: for each block what its paths are multiplied by; None: nothing.
        """
        features = self.stem(images)
        for number, block in enumerate(self.blocks):
            features = block(features, None if factors is None else factors[number])
        return self.classifier(self.head(features).flatten(1))


def block_widths(genotype: TreeGenotype, channels: int) -> list[int]:
    """The trees' channels, from just above `channels` to `channels` times (1 + growth), in multiples of the groups."""
    groups, count = genotype.groups, len(genotype.blocks)
    grown = [channels * (1 + genotype.growth * (k + 1) / count) for k in range(count)]
    return [max(groups, round(width / groups) * groups) for width in grown]


def _key(path: Path) -> str:
    return f"{path.source}_{path.target}_{path.operation}"
