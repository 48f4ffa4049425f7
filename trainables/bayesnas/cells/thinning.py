"""What a derived network that must fit gives up: path after path, the least gamma first, down to the dearest one that can lose no more."""

from __future__ import annotations

import math
from typing import Any

import torch

from raysearch.bayesnas.cells import SuperNetSettings
from trainables.bayesnas.cells.derivation import kept_in_tree, without_weakest
from trainables.bayesnas.cells.derived import costliest_cells
from trainables.bayesnas.cells.genotype import CellGenotype, Genotype, TreeGenotype
from trainables.bayesnas.cells.supernet import SuperNet
from trainables.bayesnas.cells.trees import OUTPUT


def weakened(net: SuperNet, gamma: torch.Tensor, genotype: Genotype) -> Genotype | None:
    """The genotype without the path of the least gamma; None where none can go.

    Args:
        net: the super-network that the genotype is of.
        gamma: [S], of all switches.
        genotype: as `net.genotype` gives it, or as this function has left it.
    """
    layout = net.layout
    gammas = [dict(zip(layout.paths, values, strict=True)) for values in layout.gammas(gamma)]
    groups = net.kept(genotype)
    spare = isinstance(genotype, CellGenotype)
    options = []
    for number, paths in enumerate(groups):
        values = [gammas[number][path] for path in paths]
        rest = without_weakest(paths, values, spare=spare) if paths else None
        if rest is not None:
            (gone,) = set(paths) - set(rest)
            options.append((gammas[number][gone], -number, rest))
    if not options:
        return None
    _, number, rest = min(options)
    changed = [rest if place == -number else paths for place, paths in enumerate(groups)]
    if isinstance(genotype, TreeGenotype):
        blocks = tuple(_whole(tuple(paths)) for paths in changed)
        return TreeGenotype(blocks, genotype.growth, genotype.groups)
    return CellGenotype(tuple(changed[0]), tuple(changed[1]))


def costliest(settings: SuperNetSettings) -> Genotype:
    """The dearest genotype that cannot lose a path."""
    if settings.kind == "cells":
        return costliest_cells()
    blocks = ((),) * (3 * settings.blocks)
    return TreeGenotype(blocks, settings.alpha / settings.width, settings.groups)


def _whole(paths: tuple[Any, ...]) -> tuple[Any, ...]:
    """The paths of a tree that still join its root and its output."""
    return kept_in_tree(paths, [math.inf] * len(paths), output=OUTPUT)
