"""Which edits are legal: decided on symbolic shapes, so that they stay legal at every choice of widths."""

from __future__ import annotations

import numpy as np

from raysearch.architecture.axes import other_axes
from raysearch.architecture.graph import Architecture, Layer
from raysearch.architecture.groups import Affine, ChannelMap
from raysearch.architecture.parametric import PARAMETRIC
from raysearch.architecture.strides import laid_out_anew
from raysearch.architecture.view import view

REMOVABLE_OPS = frozenset(
    {
        "conv",
        "linear",
        "batch_norm",
        "unary",
        "dropout",
        "pool",
        "local_response_norm",
        *PARAMETRIC - {"param_binary"},
    }
)

_GATES = frozenset({"sigmoid", "hardsigmoid", "tanh"})
"""What bounds a factor: a product with an unbounded one overflows within a few layers."""
_GUARDS = frozenset({"clamp", "clamp_min", "abs", "relu", "softplus"})
"""What keeps the functions of `_PARTIAL` defined."""
_PARTIAL = frozenset({"pow", "sqrt", "rsqrt", "log", "reciprocal"})
_PASSING = frozenset({"reshape", "permute", "identity", "dropout", "resize", "slice", "gather"})

_Symbolic = tuple[bytes, int, tuple[int, ...]]


def _symbolic(affine: Affine, place: int, axis: int, shape: tuple[int, ...]) -> _Symbolic:
    """A shape written in the widths: the channels' row, their fixed part, their axis, and the other axes."""
    others = (len(shape), axis, *other_axes(shape, axis))
    return affine.matrix[place].tobytes(), int(affine.fixed[place]), others


def _in_shapes(teacher: Architecture, channels: ChannelMap) -> list[_Symbolic | None]:
    return [
        _symbolic(channels.into, place, channels.read[place], teacher[layer.inputs[0][0]].shape)
        if len(layer.inputs) == 1
        else None
        for place, layer in enumerate(teacher.layers)
    ]


def _out_shapes(teacher: Architecture, channels: ChannelMap) -> list[_Symbolic]:
    return [
        _symbolic(channels.out, place, channels.axes[place], layer.shape)
        for place, layer in enumerate(teacher.layers)
    ]


def removable_layers(teacher: Architecture, channels: ChannelMap) -> tuple[int, ...]:
    """Layers of one input slot whose output always has the shape of their input, the network's output excepted."""
    into, out = _in_shapes(teacher, channels), _out_shapes(teacher, channels)
    fixed = laid_out_anew(teacher) | _safeguards(teacher)  # memory and finite numbers rely on them
    return tuple(
        place
        for place, layer in enumerate(teacher.layers)
        if layer.op in REMOVABLE_OPS
        and layer.name != teacher.output
        and into[place] == out[place]
        and teacher.axis(layer.inputs[0][0]) == channels.read[place]
        and (layer.op != "conv" or set(layer.attrs["stride"]) == {1})
        and layer.name not in fixed
    )


def _safeguards(teacher: Architecture) -> set[str]:
    """Functions without which the layers that read them give infinite or undefined numbers."""
    readers: dict[str, list[Layer]] = {}
    for layer in teacher.layers:
        for name in (name for slot in layer.inputs for name in slot):
            readers.setdefault(name, []).append(layer)

    def reading(name: str) -> list[Layer]:
        """The layers that read an output, behind those that pass it on."""
        waiting, found = [name], {}
        while waiting:
            for layer in readers.get(waiting.pop(), ()):
                if layer.name not in found:
                    found[layer.name] = layer
                    waiting += [layer.name] if layer.op in _PASSING else []
        return list(found.values())

    kept = set()
    for layer in teacher.layers:
        function = layer.attrs["fn"] if layer.op == "unary" else ""
        if function in _GATES:
            needed = any(reader.op == "binary" for reader in reading(layer.name))
        elif function in _GUARDS:
            needed = any(
                reader.op == "unary" and reader.attrs["fn"] in _PARTIAL
                for reader in reading(layer.name)
            )
        else:
            continue
        if needed:
            kept.add(layer.name)
    return kept


def skip_pairs(teacher: Architecture, channels: ChannelMap) -> np.ndarray:
    """Pairs i < j where i's output always has the shape that j takes, and no edge leads from i to j: [P, 2] int64.

    Edges are those of the encoders' view: an addition that is contracted there neither sends skips nor hides an edge.
    """
    seen = view(teacher)
    into, out = _in_shapes(teacher, channels), _out_shapes(teacher, channels)
    edges = {(seen.listed[source], seen.listed[target]) for source, target in seen.edges}
    sources: dict[_Symbolic, list[int]] = {}
    pairs = []
    for place, key in enumerate(into):
        if key is not None and seen.position[place] >= 0:
            pairs += [(s, place) for s in sources.get(key, ()) if (s, place) not in edges]
        if seen.position[place] >= 0:
            sources.setdefault(out[place], []).append(place)
    return np.array(pairs, np.int64).reshape(-1, 2)
