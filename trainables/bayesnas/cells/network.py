"""A network of cells (Yang 2019, section 5-1), with all paths for the search or with those of a genotype.

Both are one module, so that the weights of a derived network are those of the super-network under the same names.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import torch
from torch import nn

from trainables.bayesnas.cells.genotype import NUM_INPUTS, NUM_NODES, CellGenotype, Path
from trainables.bayesnas.cells.operations import ConvNorm, FactorizedReduce, make_operation

STEM_MULTIPLIER = 3
"""The stem has three times the first cells' channels, as in DARTS."""

Factors = Sequence[torch.Tensor | None]
"""What each path's output is multiplied by, in the order of the cell's paths: a scalar, [B, 1, 1, 1], or None for a path that is off."""


class Cell(nn.Module):
    """Seven nodes: the outputs of the two cells before, brought to one shape; four sums of operations; their concatenation.

    Args:
        paths: in canonical order; at least one into each of the four.
        in_channels: of the cell before the last one, and of the last one.
        channels: C; the output has 4 C.
        stride: of operations that read an input.
        halve_first: the cell before halved the image, so the first input is twice as large as the second.
        affine: see `make_operation`.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        in_channels: tuple[int, int],
        channels: int,
        *,
        stride: int,
        halve_first: bool,
        affine: bool = True,
    ) -> None:
        super().__init__()
        self.paths = tuple(paths)
        self.inputs = nn.ModuleDict()
        for node in sorted({path.source for path in paths} & set(range(NUM_INPUTS))):
            shrink = FactorizedReduce if node == 0 and halve_first else ConvNorm
            self.inputs[str(node)] = shrink(in_channels[node], channels, affine=affine)
        self.operations = nn.ModuleDict(
            {
                _key(path): make_operation(
                    path.operation,
                    channels,
                    stride if path.source < NUM_INPUTS else 1,
                    affine=affine,
                )
                for path in paths
            }
        )

    def forward(
        self, before: tuple[torch.Tensor | None, torch.Tensor | None], factors: Factors | None
    ) -> torch.Tensor:
        """before: [B, C', H, W] twice, None where no path reads it -> [B, 4 C, H / stride, W / stride].

        Args:
            before: outputs of the two cells before.
            factors: None: all paths as they are.
        """
        nodes: dict[int, torch.Tensor] = {}
        for name, shrink in self.inputs.items():
            image = before[int(name)]
            assert image is not None, "a path reads what was not computed"
            nodes[int(name)] = shrink(image)
        places = list(enumerate(self.paths))
        for node in range(NUM_INPUTS, NUM_INPUTS + NUM_NODES):
            terms = []
            for place, path in places:
                factor = 1 if factors is None else factors[place]
                if path.target != node or factor is None:
                    continue
                found = self.operations[_key(path)](nodes[path.source])
                terms.append(found if factors is None else found * factor)
            nodes[node] = reduce(torch.add, terms)
        return torch.cat([nodes[NUM_INPUTS + place] for place in range(NUM_NODES)], dim=1)


class CellNetwork(nn.Module):
    """A 3x3 stem, N cells, BatchNorm and ReLU, global average, a linear classifier. A cell that nothing reads is left out.

    DEVIATION: the thesis's classifier reads the last cell as it is. With all paths at w = 1 its nodes are sums of dozens of operations, which
    the BatchNorm of every other cell takes back, so the last one has one too.

    Args:
        genotype: the paths of normal and reduction cells.
        channels: C of the first cells, doubled by each reduction.
        num_cells: N.
        input_shape: [C, H, W] of the images.
        num_classes: K.
        affine: see `make_operation`.
    """

    def __init__(
        self,
        genotype: CellGenotype,
        channels: int,
        num_cells: int,
        input_shape: Sequence[int],
        num_classes: int,
        *,
        affine: bool = True,
    ) -> None:
        super().__init__()
        stem = STEM_MULTIPLIER * channels
        self.stem = nn.Sequential(
            nn.Conv2d(input_shape[0], stem, 3, padding=1, bias=False), nn.BatchNorm2d(stem)
        )
        self.reductions = reductions(num_cells)
        self.num_cells = num_cells
        self.cells = nn.ModuleDict()
        live = live_cells(genotype, num_cells)
        out_channels = [stem, stem]
        for place in range(num_cells):
            reduction = place in self.reductions
            channels *= 2 if reduction else 1
            if place in live:
                self.cells[str(place)] = Cell(
                    genotype.reduction if reduction else genotype.normal,
                    (out_channels[-2], out_channels[-1]),
                    channels,
                    stride=2 if reduction else 1,
                    halve_first=place - 1 in self.reductions,
                    affine=affine,
                )
            out_channels.append(NUM_NODES * channels)
        self.head = nn.Sequential(
            nn.BatchNorm2d(out_channels[-1]), nn.ReLU(), nn.AdaptiveAvgPool2d(1)
        )
        self.classifier = nn.Linear(out_channels[-1], num_classes)

    def forward(
        self, images: torch.Tensor, normal: Factors | None = None, reduction: Factors | None = None
    ) -> torch.Tensor:
        """images: [B, C, H, W] -> logits [B, K].

        Args:
            normal, reduction: what the paths of all cells of a kind are multiplied by; None: nothing.
        """
        stem = self.stem(images)
        before: list[torch.Tensor | None] = [stem, stem]
        for place in range(self.num_cells):
            factors = reduction if place in self.reductions else normal
            name = str(place)
            found = None
            if name in self.cells:
                found = self.cells[name]((before[0], before[1]), factors)
            before = [before[1], found]
        return self.classifier(self.head(before[1]).flatten(1))


def reductions(num_cells: int) -> frozenset[int]:
    """The cells at 1/3 and 2/3, which halve the image and double the channels; one only where the two coincide."""
    return frozenset({num_cells // 3, 2 * num_cells // 3})


def live_cells(genotype: CellGenotype, num_cells: int) -> frozenset[int]:
    """The cells that the last one depends on."""
    shrinks = reductions(num_cells)
    live: set[int] = set()
    waiting = [num_cells - 1]
    while waiting:
        place = waiting.pop()
        if place < 0 or place in live:
            continue
        live.add(place)
        paths = genotype.reduction if place in shrinks else genotype.normal
        waiting += [place - NUM_INPUTS + p.source for p in paths if p.source < NUM_INPUTS]
    return frozenset(live)


def _key(path: Path) -> str:
    return f"{path.source}_{path.target}_{path.operation}"
