"""Paths through a network: which layers all paths share, and what lies between a fork and the sum that ends it.

Layer d dominates layer v when every path from the input to v leads through d. The layers that dominate the output are the cut vertices:
nothing that comes after one of them reads anything from before it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from raysearch.architecture.graph import Architecture, Layer
from raysearch.architecture.view import view


@dataclass(frozen=True)
class SumBlock:
    """What lies between a fork and the sum that ends it (a residual block).

    Attributes:
        fork: index of the last layer that all terms of the sum depend on.
        join: index of the layer that sums, or whose input slot does.
        members: indices of the layers on the paths between them.
        longest: those on the path of the most listed layers, in order (only listed ones; see `view.py`).
    """

    fork: int
    join: int
    members: frozenset[int]
    longest: tuple[int, ...]


def producers(architecture: Architecture, layer: Layer) -> list[int]:
    """Indices of the layers that a layer reads, in the order of its slots, without repetition."""
    names = (name for slot in layer.inputs for name in slot)
    return list(dict.fromkeys(architecture.index[name] for name in names))


def immediate_dominators(architecture: Architecture) -> tuple[int, ...]:
    """For each layer the last of the layers that dominate it; the input's is itself."""
    above: list[int] = []
    for place, layer in enumerate(architecture.layers):
        above.append(_common(above, producers(architecture, layer), place))
    return tuple(above)


def cut_vertices(architecture: Architecture) -> frozenset[int]:
    """Indices of the layers that every path from the input to the output leads through, both included."""
    above = immediate_dominators(architecture)
    place = architecture.index[architecture.output]
    found = {place}
    while above[place] != place:
        place = above[place]
        found.add(place)
    return frozenset(found)


def sum_blocks(architecture: Architecture) -> tuple[SumBlock, ...]:
    """The blocks that end in a sum: an addition, or an input slot of several producers."""
    above = immediate_dominators(architecture)
    position = view(architecture).position
    blocks = []
    for place, layer in enumerate(architecture.layers):
        for terms in _sums(architecture, layer):
            fork = _common(above, terms, place)
            members = _between(architecture, fork, terms)
            longest = _longest(architecture, members, terms, position)
            blocks.append(SumBlock(fork, place, members, longest))
    return tuple(blocks)


def innermost_blocks(architecture: Architecture) -> dict[int, SumBlock]:
    """Layer index -> the smallest block that it is a member of; layers outside all blocks are missing."""
    found: dict[int, SumBlock] = {}
    for block in sorted(sum_blocks(architecture), key=lambda block: len(block.members)):
        for member in block.members:
            found.setdefault(member, block)
    return found


def _common(above: Sequence[int], places: Iterable[int], default: int) -> int:
    """The last layer that dominates all the places or is one of them."""
    found = -1
    for place in places:
        if found < 0:
            found = place
        while place != found:
            if place > found:
                place = above[place]
            else:
                found = above[found]
    return found if found >= 0 else default


def _sums(architecture: Architecture, layer: Layer) -> list[list[int]]:
    """The terms of every sum that a layer computes or reads."""
    if layer.op == "add":
        slots = [producers(architecture, layer)]
    else:
        slots = [[architecture.index[name] for name in slot] for slot in layer.inputs]
    return [slot for slot in slots if len(set(slot)) > 1]


def _between(architecture: Architecture, fork: int, terms: Sequence[int]) -> frozenset[int]:
    members: set[int] = set()
    waiting = [term for term in terms if term != fork]
    while waiting:
        place = waiting.pop()
        if place not in members:
            members.add(place)
            before = producers(architecture, architecture.layers[place])
            waiting += [source for source in before if source != fork]
    return frozenset(members)


def _longest(
    architecture: Architecture,
    members: frozenset[int],
    terms: Sequence[int],
    position: Sequence[int],
) -> tuple[int, ...]:
    """The listed members of the longest path; of several the one whose terms come first."""
    length: dict[int, int] = {}
    before: dict[int, int | None] = {}
    for place in sorted(members):
        sources = [s for s in producers(architecture, architecture.layers[place]) if s in members]
        before[place] = max(sources, key=length.__getitem__, default=None)
        longest = max((length[source] for source in sources), default=0)
        length[place] = longest + (position[place] >= 0)
    path: list[int] = []
    inside = [term for term in terms if term in members]
    place = max(inside, key=length.__getitem__, default=None)
    while place is not None:
        if position[place] >= 0:
            path.append(place)
        place = before[place]
    return tuple(reversed(path))
