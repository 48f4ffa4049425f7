"""Memory of inference: weights, and activations by liveness over the topological order.

A tensor lives from the layer that makes it to its last reader; views own nothing and keep their source alive; the input belongs to the
caller. A slot of k producers is k - 1 explicit additions, each with an output of its own. A linear layer whose input is not dense may
copy it, and adds its bias to a product of its own. What an opaque layer holds between its own
steps is not counted.
"""

from __future__ import annotations

import math

from raysearch.architecture.graph import Architecture, Layer
from raysearch.architecture.ops import Shape

BYTES = 4
"""Of one float32."""
_COUNTER_BYTES = 8
"""Of BatchNorm's counter of batches, an int64; all other state is float32."""
_INDEX_BYTES = 8
"""Of a place that a gather keeps, an int64."""


def buffer_bytes(role: str, shape: Shape) -> int:
    """What a buffer takes."""
    return (_COUNTER_BYTES if role == "num_batches_tracked" else BYTES) * math.prod(shape)


def index_bytes(layer: Layer) -> int:
    """What the places of a gather take; 0 for all other layers."""
    return _INDEX_BYTES * len(layer.attrs["index"]) if layer.op == "gather" else 0


def weight_bytes(architecture: Architecture) -> int:
    """What parameters, buffers and the places of gathers take, shared ones once."""
    buffers = {
        layer.params.get(role, f"{layer.name}.{role}"): buffer_bytes(role, shape)
        for layer in architecture.layers
        for role, shape in layer.buffer_shapes.items()
    }
    places = sum(map(index_bytes, architecture.layers))
    return BYTES * architecture.num_params + sum(buffers.values()) + places


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
            reads = slots
            if "strided" in layer.attrs:
                if layer.attrs["strided"] == "copy":
                    reads = [*slots, make(slots, math.prod(architecture[layer.inputs[0][0]].shape))]
                if layer.attrs["bias"]:
                    reads = [*slots, make(reads, size)]
            owner[layer.name] = make(reads, size)
    make([owner[architecture.output]], 0)  # the caller reads the output
    return steps
