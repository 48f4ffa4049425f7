"""What is left of a super-network: the paths of its cells, as data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from raysearch.errors import InvalidArchitecture
from trainables.bayesnas.cells.operations import CELL_OPERATIONS, OPERATIONS

NUM_INPUTS = 2
NUM_NODES = 4
"""Intermediate nodes; with two inputs and the output a cell has seven."""


class Path(NamedTuple):
    """One operation from a node to a later one."""

    source: int
    target: int
    operation: str

    @property
    def name(self) -> str:
        """ "0->2/sep_conv_3x3"."""
        return f"{self.source}->{self.target}/{self.operation}"


def cell_edges() -> list[tuple[int, int]]:
    """All (source, target) of a cell: 14, by target."""
    last = NUM_INPUTS + NUM_NODES
    return [(i, j) for j in range(NUM_INPUTS, last) for i in range(j)]


def all_paths() -> tuple[Path, ...]:
    """The paths of a cell before anything is pruned: 98."""
    return tuple(Path(i, j, name) for i, j in cell_edges() for name in CELL_OPERATIONS)


@dataclass(frozen=True)
class CellGenotype:
    """A normal and a reduction cell; JSON-native through `to_dict` and `from_dict`.

    Attributes:
        normal, reduction: paths in the order of (target, source, operation); at least one into each intermediate node.
    """

    normal: tuple[Path, ...]
    reduction: tuple[Path, ...]

    def __post_init__(self) -> None:
        known = {path: place for place, path in enumerate(all_paths())}
        for field in ("normal", "reduction"):
            paths = tuple(Path(*path) for path in getattr(self, field))
            for path in paths:
                if path not in known:
                    raise InvalidArchitecture(
                        f"genotype.{field} holds {list(path)!r}, which is no path of a cell"
                    )
            bare = set(range(NUM_INPUTS, NUM_INPUTS + NUM_NODES)) - {p.target for p in paths}
            if bare:
                raise InvalidArchitecture(
                    f"genotype.{field}: nothing leads into node {min(bare)}; give each of the nodes {NUM_INPUTS} to "
                    f"{NUM_INPUTS + NUM_NODES - 1} a path"
                )
            object.__setattr__(self, field, tuple(sorted(set(paths), key=known.__getitem__)))

    @property
    def num_paths(self) -> int:
        return len(self.normal) + len(self.reduction)

    def to_dict(self) -> dict[str, Any]:
        return {
            "kind": "cells",
            "normal": [list(path) for path in self.normal],
            "reduction": [list(path) for path in self.reduction],
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> CellGenotype:
        """Raises InvalidArchitecture where the values are no genotype."""
        return cls(_paths(values, "normal"), _paths(values, "reduction"))


@dataclass(frozen=True)
class TreeGenotype:
    """The trees of a proxyless network's blocks.

    Attributes:
        blocks: for each block its paths; node 0 is the tree's root, the last node its output; () for a block of which only the
            shortcut is left.
        growth: the last block's width is the stem's, times 1 + growth.
        groups: of the trees' 3x3 convolutions.
    """

    blocks: tuple[tuple[Path, ...], ...]
    growth: float = 0.0
    groups: int = 1

    def __post_init__(self) -> None:
        for field, least in (("growth", 0), ("groups", 1)):
            if not least <= getattr(self, field) < 1e6:
                raise InvalidArchitecture(
                    f"genotype.{field} is {getattr(self, field)!r}: take a number of at least {least}"
                )
        for number, paths in enumerate(self.blocks):
            for path in paths:
                if path.operation not in OPERATIONS or not 0 <= path.source < path.target:
                    raise InvalidArchitecture(
                        f"genotype.blocks[{number}] holds {list(path)!r}, which is no path of a tree"
                    )

    @property
    def num_paths(self) -> int:
        return sum(map(len, self.blocks))

    def to_dict(self) -> dict[str, Any]:
        blocks = [[list(path) for path in paths] for paths in self.blocks]
        return {
            "kind": "proxyless",
            "blocks": blocks,
            "growth": self.growth,
            "groups": self.groups,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TreeGenotype:
        """Raises InvalidArchitecture where the values are no genotype."""
        blocks = values.get("blocks")
        if not isinstance(blocks, Sequence):
            raise InvalidArchitecture(f"genotype.blocks is {blocks!r}: give a list of blocks")
        growth, groups = values.get("growth", 0.0), values.get("groups", 1)
        if not isinstance(growth, int | float) or not isinstance(groups, int):
            raise InvalidArchitecture(
                f"genotype.growth and groups are {growth!r} and {groups!r}: give numbers"
            )
        return cls(tuple(_parse(paths, "blocks") for paths in blocks), float(growth), groups)


Genotype = CellGenotype | TreeGenotype


def genotype_from_dict(values: Mapping[str, Any]) -> Genotype:
    """Reads either kind; raises InvalidArchitecture."""
    kinds = {"cells": CellGenotype, "proxyless": TreeGenotype}
    kind = values.get("kind")
    if kind not in kinds:
        raise InvalidArchitecture(f"genotype.kind is {kind!r}: take cells or proxyless")
    return kinds[kind].from_dict(values)


def _paths(values: Mapping[str, Any], field: str) -> tuple[Path, ...]:
    return _parse(values.get(field), field)


def _parse(paths: Any, field: str) -> tuple[Path, ...]:
    if not isinstance(paths, Iterable) or isinstance(paths, str):
        raise InvalidArchitecture(f"genotype.{field} is {paths!r}: give a list of paths")
    found = []
    for path in paths:
        match path:
            case [int(source), int(target), str(operation)]:
                found.append(Path(source, target, operation))
            case _:
                raise InvalidArchitecture(
                    f"genotype.{field} holds {path!r}: a path is [source, target, operation]"
                )
    return tuple(found)
