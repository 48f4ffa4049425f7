"""Dependency between switches (Yang 2019, section 3-2; equations 3-5 and 3-6): a path is worth nothing where nothing reaches it.

A node of a directed acyclic graph receives operations from earlier nodes; each has a switch with the variance s. Variances combine as
resistances do: alternatives add up, and what must all be there is joined by `series`, 1 / (1 / a + 1 / b).

Notation
    s_ij^o    variance of the switch of operation o from node i to node j
    s_ii'     variance of the identity switch of the zero-node i' that stands between i and the operations of one edge
    P_j       what reaches node j: sum_{i<j,o} of s_ij^o (3-5), or of series(s_ii', s_i'j^o) where there is a zero-node (3-6);
              infinite for an input of the graph
    gamma     without a zero-node series(P_j, s_jk), which is (3-5) and (3-6) as printed. With a zero-node the path j -> j' -> k has two
              switches: gamma of the identity switch is series(P_j, s_jj'), that of an operation is series(P_j, s_jj', s_j'k^o).

The public code takes series(s_jj', s_j'k^o) alone, without P_j.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch


@dataclass(frozen=True)
class Edge:
    """The operations between two nodes.

    Attributes:
        source, target: source < target.
        operations: how many.
        zero: a zero-node with an identity switch stands before them.
    """

    source: int
    target: int
    operations: int
    zero: bool = False


@dataclass(frozen=True)
class SwitchGraph:
    """Which switches there are: edge after edge, the switches of its operations, then the identity switch where it has one.

    Attributes:
        num_inputs: nodes 0 .. num_inputs - 1 are always there; a later node without edges into it is not.
        edges: in any order.
    """

    num_inputs: int
    edges: tuple[Edge, ...]

    def __post_init__(self) -> None:
        for edge in self.edges:
            assert 0 <= edge.source < edge.target, "edges go from earlier to later nodes"
            assert edge.target >= self.num_inputs, "nothing leads into an input"

    @cached_property
    def num_nodes(self) -> int:
        return max([self.num_inputs, *(edge.target + 1 for edge in self.edges)])

    @cached_property
    def num_switches(self) -> int:
        return sum(edge.operations + edge.zero for edge in self.edges)

    @cached_property
    def _columns(self) -> tuple[torch.Tensor, ...]:
        """Place, source, target and the identity switch's place (or -1) of each operation; place and source of each identity switch."""
        operations: list[tuple[int, int, int, int]] = []
        zeros: list[tuple[int, int]] = []
        place = 0
        for edge in self.edges:
            last = place + edge.operations
            zero = last if edge.zero else -1
            operations += [(p, edge.source, edge.target, zero) for p in range(place, last)]
            zeros += [(last, edge.source)] * edge.zero
            place = last + edge.zero
        first = torch.tensor(operations, dtype=torch.int64).reshape(-1, 4)
        second = torch.tensor(zeros, dtype=torch.int64).reshape(-1, 2)
        return (*first.unbind(1), *second.unbind(1))

    def dependent_variance(self, s: torch.Tensor) -> torch.Tensor:
        """gamma of all switches: zero where nothing reaches a switch, never above s, and rising with every s.

        Args:
            s: [S] variances in [0, inf].
        """
        operation, source, target, zero, identity, origin = (
            column.to(s.device) for column in self._columns
        )
        own = s[operation]
        path = torch.where(zero >= 0, series(s[zero], own), own)  # [O]
        supply = s.new_zeros(self.num_nodes).index_add(0, target, path)
        supply[: self.num_inputs] = torch.inf
        gamma = torch.zeros_like(s)
        gamma[operation] = series(supply[source], path)
        gamma[identity] = series(supply[origin], s[identity])
        return gamma


@dataclass(frozen=True)
class SwitchGraphs:
    """Graphs that know nothing of each other (a normal and a reduction cell; the blocks of a network), one after the other."""

    graphs: tuple[SwitchGraph, ...]

    @cached_property
    def sizes(self) -> Sequence[int]:
        return [graph.num_switches for graph in self.graphs]

    @property
    def num_switches(self) -> int:
        return sum(self.sizes)

    def dependent_variance(self, s: torch.Tensor) -> torch.Tensor:
        """[S] -> [S], as of each graph alone."""
        parts = s.split(list(self.sizes))
        pairs = zip(self.graphs, parts, strict=True)
        return torch.cat([graph.dependent_variance(part) for graph, part in pairs])


def series(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """1 / (1 / a + 1 / b) for a, b in [0, inf]: zero where one is, the other where one is infinite."""
    return 1 / (1 / first + 1 / second)
