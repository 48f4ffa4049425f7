"""Where the channels of every tensor are: one axis of each, counted from the first after the batch.

The channels of a convolution's output are axis 0; a permutation moves them ([H, W, C] in channels-last segments), and reshapes,
reductions and broadcasts carry them along. The axis follows from operations and ranks alone, never from sizes, so that a
student has its teacher's. Only this axis changes its size in a student; all others keep the teacher's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from raysearch.architecture.graph import Architecture, Layer
from raysearch.architecture.ops import Shape

FIRST_AXIS_OPS = frozenset(
    {
        "input",
        "conv",
        "conv_transpose",
        "batch_norm",
        "group_norm",
        "instance_norm",
        "prelu",
        "local_response_norm",
        "pool",
        "adaptive_pool",
        "resize",
        "channel_shuffle",
    }
)
"""Operations whose channels are the first axis, whatever they are given."""


def channel_axes(architecture: Architecture) -> tuple[int, ...]:
    """The channel axis of every layer's output; 0 where nothing is known of its channels."""
    axes: dict[str, int] = {}
    for layer in architecture.layers:
        arriving = [axes[slot[0]] for slot in layer.inputs]
        shapes = [architecture[slot[0]].shape for slot in layer.inputs]
        if layer.op in FIRST_AXIS_OPS:
            axes[layer.name] = 0
        else:
            axes[layer.name] = _RULES.get(layer.op, _unknown)(layer, arriving, shapes)
    return tuple(axes.values())


def read_axis(layer: Layer, arriving: int) -> int:
    """The axis that a layer takes for the channels of its input, whose channels are on the axis `arriving`."""
    return 0 if layer.op in FIRST_AXIS_OPS else arriving


def is_last(shape: Shape, axis: int) -> bool:
    """Whether an axis is the last one of a shape."""
    return axis == len(shape) - 1


def other_axes(shape: Shape, axis: int) -> Shape:
    """A shape without one axis."""
    return shape[:axis] + shape[axis + 1 :]


def aligned_axis(axis: int, rank: int, shape: Shape) -> int:
    """An axis of a tensor of `rank` axes, as an axis of the `shape` that it is broadcast to."""
    return axis + len(shape) - rank


def _unknown(layer: Layer, arriving: Sequence[int], shapes: Sequence[Shape]) -> int:
    return 0


def _same(layer: Layer, arriving: Sequence[int], shapes: Sequence[Shape]) -> int:
    return arriving[0]


def _reduce(layer: Layer, arriving: Sequence[int], shapes: Sequence[Shape]) -> int:
    (axis,), dims = arriving, layer.attrs["dims"]
    if layer.attrs["keepdim"]:
        return axis
    return 0 if axis in dims else axis - sum(dim < axis for dim in dims)


def _broadcast(layer: Layer, arriving: Sequence[int], shapes: Sequence[Shape]) -> int:
    """The axis of the first operand that has all axes."""
    for axis, shape in zip(arriving, shapes, strict=True):
        if len(shape) == len(layer.shape):
            return axis
    return 0


def _permute(layer: Layer, arriving: Sequence[int], shapes: Sequence[Shape]) -> int:
    dims = list(layer.attrs["dims"])
    return dims.index(arriving[0]) if arriving[0] in dims else 0


def _reshape(layer: Layer, arriving: Sequence[int], shapes: Sequence[Shape]) -> int:
    attrs, axis = layer.attrs, arriving[0]
    if attrs["mode"] == "flatten":
        return 0
    if attrs["mode"] == "merge":
        start, end = attrs["start"], attrs["end"]
        return axis - max(0, min(axis, end) - start) if axis >= start else axis
    dim, sizes = attrs["dim"], list(attrs["sizes"])
    if axis == dim:
        return dim + sizes.index(-1)
    return axis + len(sizes) - 1 if axis > dim else axis


_RULES: Mapping[str, Callable[[Layer, Sequence[int], Sequence[Shape]], int]] = {
    "identity": _same,
    "linear": _same,
    "unary": _same,
    "dropout": _same,
    "softmax": _same,
    "layer_norm": _same,
    "rms_norm": _same,
    "param_binary": _same,
    "pad": _same,
    "slice": _same,
    "gather": _same,
    "concat": _same,
    "add": _broadcast,
    "binary": _broadcast,
    "reduce": _reduce,
    "permute": _permute,
    "reshape": _reshape,
}
