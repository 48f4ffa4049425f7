"""The canonical form of a network: what its `id` hashes.

Two networks have one form when they compute the same from the same parameters: identities are gone, every sum is a linear form
(a slot of several producers, an identity that names a sum and an addition of equal shapes are the same thing), layers that the output does
not need are gone, and the rest is numbered in an order that the graph alone decides. Names of layers do not count. Names of parameters
do: they say which of the teacher's weights a student inherits.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from typing import Any

from raysearch.architecture.graph import Architecture, Layer
from raysearch.architecture.view import is_plain_sum

_MAX_TERMS = 64
"""A sum of more distinct terms stays a node of its own, so that hostile networks cannot blow the form up."""
_MAX_COUNT = 2**31

_Sum = tuple[tuple[int, int], ...]
"""(layer index, how often) of the layers that are summed."""


def canonical_form(architecture: Architecture) -> dict[str, Any]:
    """The JSON-native canonical form."""
    sums, slots = _resolve(architecture)
    output = sums[architecture.index[architecture.output]]
    digests = _digests(architecture, slots)
    order = _order(output, slots, digests)
    number = {layer: place for place, layer in enumerate(order)}

    def numbered(terms: _Sum) -> list[list[int]]:
        return sorted([number[layer], count] for layer, count in terms)

    return {
        "input_shape": list(architecture.input_shape),
        "output": numbered(output),
        "layers": [
            [*_content(architecture.layers[layer]), [numbered(slot) for slot in slots[layer]]]
            for layer in order
        ],
    }


def _resolve(architecture: Architecture) -> tuple[list[_Sum], list[tuple[_Sum, ...]]]:
    """For each layer the sum that it stands for, and the sums that its slots read."""
    sums: list[_Sum] = []
    slots: list[tuple[_Sum, ...]] = []
    for place, layer in enumerate(architecture.layers):
        into = []
        for slot in layer.inputs:
            terms: Counter[int] = Counter()
            for name in slot:
                terms.update(dict(sums[architecture.index[name]]))
            into.append(tuple(sorted(terms.items())))
        slots.append(tuple(into))
        whole: Counter[int] = Counter()
        if layer.op == "identity" or is_plain_sum(architecture, layer):
            for terms_of_slot in into:
                whole.update(dict(terms_of_slot))
        small = 0 < len(whole) <= _MAX_TERMS and max(whole.values()) < _MAX_COUNT
        sums.append(tuple(sorted(whole.items())) if small else ((place, 1),))
    return sums, slots


def _content(layer: Layer) -> list[Any]:
    return [layer.op, dict(layer.attrs), dict(layer.params)]


def _digests(architecture: Architecture, slots: list[tuple[_Sum, ...]]) -> list[str]:
    """A hash of each layer and everything before it, blind to order within sums."""
    digests: list[str] = []
    for layer, into in zip(architecture.layers, slots, strict=True):
        read = [sorted((digests[source], count) for source, count in terms) for terms in into]
        text = json.dumps([_content(layer), read], sort_keys=True)
        digests.append(hashlib.sha256(text.encode()).hexdigest())
    return digests


def _order(output: _Sum, slots: list[tuple[_Sum, ...]], digests: list[str]) -> list[int]:
    """The layers that the output needs, depth first, the terms of a sum by their digests."""

    def sources(terms: _Sum) -> list[int]:
        return sorted((layer for layer, _ in terms), key=lambda layer: (digests[layer], layer))

    order: list[int] = []
    entered: set[int] = set()
    stack = [(layer, False) for layer in reversed(sources(output))]
    while stack:
        layer, leave = stack.pop()
        if leave:
            order.append(layer)
        elif layer not in entered:
            entered.add(layer)
            stack.append((layer, True))
            before = [source for terms in slots[layer] for source in sources(terms)]
            stack.extend((source, False) for source in reversed(before) if source not in entered)
    return order
