"""The encoders' view of a network: which layers are listed and which edges join them.

The input is not listed. An addition with a single consumer of one input slot is contracted into that consumer (two producers in its slot,
as in ESNAC's graphs); any other addition is listed, as an identity with several incoming edges.
"""

from __future__ import annotations

from dataclasses import dataclass

from raysearch.architecture.graph import Architecture, Layer


@dataclass(frozen=True)
class View:
    """A network as the encoders see it.

    Attributes:
        listed: indices of the layers that are listed.
        position: for each layer its place in `listed`, or -1.
        edges: (from, to) places, without repetition, sorted.
    """

    listed: tuple[int, ...]
    position: tuple[int, ...]
    edges: tuple[tuple[int, int], ...]


def view(architecture: Architecture) -> View:
    """Lists the layers and edges that the encoders see."""
    layers, index = architecture.layers, architecture.index
    contracted = _contracted(architecture)
    listed = tuple(
        place
        for place, layer in enumerate(layers)
        if layer.op != "input" and place not in contracted
    )
    position = [-1] * len(layers)
    for place, layer in enumerate(listed):
        position[layer] = place
    sources: list[frozenset[int]] = []  # the places that feed a layer, through contracted additions
    edges = []
    for place, layer in enumerate(layers):
        feeds: set[int] = set()
        for name in (name for slot in layer.inputs for name in slot):
            producer = index[name]
            feeds |= sources[producer] if producer in contracted else {position[producer]} - {-1}
        sources.append(frozenset(feeds))
        if position[place] >= 0:
            edges += [(source, position[place]) for source in sorted(feeds)]
    return View(listed, tuple(position), tuple(edges))


def is_plain_sum(architecture: Architecture, layer: Layer) -> bool:
    """An addition of tensors of its own shape (nothing is broadcast)."""
    return layer.op == "add" and all(
        architecture[name].shape == layer.shape for slot in layer.inputs for name in slot
    )


def _contracted(architecture: Architecture) -> set[int]:
    consumers: dict[str, list[Layer]] = {}
    for layer in architecture.layers:
        for name in (name for slot in layer.inputs for name in slot):
            consumers.setdefault(name, []).append(layer)
    return {
        place
        for place, layer in enumerate(architecture.layers)
        if is_plain_sum(architecture, layer)
        and layer.name != architecture.output
        and len(users := consumers.get(layer.name, [])) == 1
        and len(users[0].inputs) == 1
    }
