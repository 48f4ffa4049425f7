"""Activation memory of inference by liveness over the topological order.

A tensor lives from the layer that makes it to its last reader; views own nothing and keep their source alive; the input belongs to the
caller. A slot of k producers is k - 1 explicit additions, each with an output of its own. What an opaque layer holds between its own
steps is not counted.
"""

from __future__ import annotations

import math

from raysearch.architecture.graph import Architecture

BYTES = 4
"""Of one float32."""


def peak_activation_bytes(architecture: Architecture) -> int:
    """The largest sum of bytes of tensors that live at once, for one input."""
    steps = _steps(architecture)
    last: dict[int, int] = {}
    for time, (reads, made, _) in enumerate(steps):
        last[made] = time
        last.update(dict.fromkeys(reads, time))
    live, peak = 0, 0
    alive: dict[int, int] = {}
    for time, (reads, made, size) in enumerate(steps):
        alive[made] = size
        live += size
        peak = max(peak, live)
        for tensor in {*reads, made}:
            if last[tensor] == time:
                live -= alive.pop(tensor)
    return BYTES * peak


def _steps(architecture: Architecture) -> list[tuple[list[int], int, int]]:
    """The operations as (tensors read, tensor made, its number of elements); views are resolved to their source."""
    owner: dict[str, int] = {}
    steps: list[tuple[list[int], int, int]] = []

    def make(reads: list[int], size: int) -> int:
        steps.append((reads, len(steps), size))
        return len(steps) - 1

    for layer in architecture.layers:
        slots = []
        for first, *rest in layer.inputs:
            total = owner[first]
            for name in rest:
                total = make([total, owner[name]], math.prod(architecture[first].shape))
            slots.append(total)
        if layer.is_view and slots:
            owner[layer.name] = slots[0]
        else:
            size = 0 if layer.op == "input" else math.prod(layer.shape)
            owner[layer.name] = make(slots, size)
    make([owner[architecture.output]], 0)  # the caller reads the output
    return steps
