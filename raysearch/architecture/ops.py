"""The canonical operations: their attributes, parameters, output shapes and costs.

An operation is a row of `OPS`. Shapes never hold the batch axis; axis numbers inside attributes (`dim`, `dims`) count from the
first axis after the batch, so that 0 is the channel axis of a feature map.

Attributes by operation
    conv          in_channels, out_channels, kernel, stride, padding, dilation, groups, bias (rank = len(kernel))
    linear        in_features, out_features, bias (acts on the last axis); strided where the input is not dense: its rows are a
                  "view" or a "copy"
    batch_norm    num_features, eps, momentum, affine; bias where a weight has none (false)
    unary         fn (ATen name: "relu", "gelu", ...), args (list), kwargs (dict)
    dropout       fn ("dropout", "feature_dropout"), p
    pool          kind ("max", "avg"), kernel, stride, padding, dilation, ceil_mode, count_include_pad
    adaptive_pool kind ("max", "avg"), output_size
    reduce        fn ("mean", "sum", "amax"), dims, keepdim
    add           one slot for each term
    binary        fn ("mul", "sub", "div", ...), one slot for each operand
    concat        dim, one slot for each part
    slice         dim, start, stop, step: the places start, start + step, ... below stop of one axis
    gather        dim, index: the places of one axis that are kept, ascending, each once
    reshape       mode: "flatten" makes all axes one; "merge" the axes start..end; "split" replaces axis dim by sizes, of which
                  one is -1 and follows from the others (so that no channel number stands here); contiguous where it copies
    permute       dims (the source of every axis), contiguous (whether the values are copied into the new order)
    channel_shuffle groups: [g * n, ...] -> the transpose of [g, n, ...], as in ShuffleNet
    pad           pads (pairs, last axis first, as in torch.nn.functional.pad), mode, value
    softmax       dim, log
    resize        fn (mode of interpolation), size (of the output), scale (factors that the coordinates use, or null), align_corners
    identity      (none): a removed layer, or a named sum
    input         (none)

`parametric.py` lists the attributes of the operations with parameters along the channels, `opaque.py` those of `opaque`. Of any
operation, `untrained` lists the roles whose state is a buffer, and `folds` maps a role to the program that computes its values from
the teacher's state (see `programs.py`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from raysearch.architecture import opaque, parametric
from raysearch.errors import InvalidArchitecture

Shape = tuple[int, ...]
Attrs = Mapping[str, Any]


def _same(attrs: Attrs, shapes: Sequence[Shape]) -> Shape:
    return shapes[0]


def _window(
    size: int, kernel: int, stride: int, padding: int, dilation: int = 1, ceil: bool = False
) -> int:
    """The output length of a sliding window (torch's documented formula)."""
    span = size + 2 * padding - dilation * (kernel - 1) - 1
    out = (-(-span // stride) if ceil else span // stride) + 1
    if ceil and (out - 1) * stride >= size + padding:  # the last window must start inside
        out -= 1
    return out


def _conv_shape(attrs: Attrs, shapes: Sequence[Shape]) -> Shape:
    channels, *space = shapes[0]
    if channels != attrs["in_channels"]:
        raise InvalidArchitecture(f"in_channels is {attrs['in_channels']}, but {channels} arrive")
    windows = zip(
        space, attrs["kernel"], attrs["stride"], attrs["padding"], attrs["dilation"], strict=True
    )
    return (attrs["out_channels"], *(_window(*window) for window in windows))


def _linear_shape(attrs: Attrs, shapes: Sequence[Shape]) -> Shape:
    *lead, features = shapes[0]
    if features != attrs["in_features"]:
        raise InvalidArchitecture(f"in_features is {attrs['in_features']}, but {features} arrive")
    return (*lead, attrs["out_features"])


def _batch_norm_shape(attrs: Attrs, shapes: Sequence[Shape]) -> Shape:
    if shapes[0][0] != attrs["num_features"]:
        raise InvalidArchitecture(
            f"num_features is {attrs['num_features']}, but {shapes[0][0]} channels arrive"
        )
    return shapes[0]


def _pool_shape(attrs: Attrs, shapes: Sequence[Shape]) -> Shape:
    channels, *space = shapes[0]
    dilation = attrs.get("dilation") or [1] * len(space)
    windows = zip(space, attrs["kernel"], attrs["stride"], attrs["padding"], dilation, strict=True)
    ceil = bool(attrs.get("ceil_mode"))
    return (channels, *(_window(*window, ceil=ceil) for window in windows))


def _adaptive_shape(attrs: Attrs, shapes: Sequence[Shape]) -> Shape:
    return (shapes[0][0], *attrs["output_size"])


def _resize_shape(attrs: Attrs, shapes: Sequence[Shape]) -> Shape:
    return (shapes[0][0], *attrs["size"])


def _reduce_shape(attrs: Attrs, shapes: Sequence[Shape]) -> Shape:
    dims = set(attrs["dims"])
    if attrs["keepdim"]:
        return tuple(1 if axis in dims else size for axis, size in enumerate(shapes[0]))
    return tuple(size for axis, size in enumerate(shapes[0]) if axis not in dims)


def _broadcast_shape(attrs: Attrs, shapes: Sequence[Shape]) -> Shape:
    rank = max(len(shape) for shape in shapes)
    padded = [(1,) * (rank - len(shape)) + shape for shape in shapes]
    out = []
    for sizes in zip(*padded, strict=True):
        wide = {size for size in sizes if size != 1} or {1}
        if len(wide) > 1:
            raise InvalidArchitecture(f"operands of shapes {list(shapes)} do not broadcast")
        out.append(wide.pop())
    return tuple(out)


def _concat_shape(attrs: Attrs, shapes: Sequence[Shape]) -> Shape:
    dim = attrs["dim"]
    rest = {shape[:dim] + shape[dim + 1 :] for shape in shapes}
    if len(rest) > 1:
        raise InvalidArchitecture(
            f"parts of shapes {list(shapes)} do not concatenate on axis {dim}"
        )
    return (*shapes[0][:dim], sum(shape[dim] for shape in shapes), *shapes[0][dim + 1 :])


def _slice_shape(attrs: Attrs, shapes: Sequence[Shape]) -> Shape:
    dim, start, stop, step = (attrs[key] for key in ("dim", "start", "stop", "step"))
    size = shapes[0][dim]
    if not start < stop <= size:
        raise InvalidArchitecture(
            f"the slice {start}:{stop} does not lie in the {size} that arrive"
        )
    return (*shapes[0][:dim], -(-(stop - start) // step), *shapes[0][dim + 1 :])


def _gather_shape(attrs: Attrs, shapes: Sequence[Shape]) -> Shape:
    dim, index = attrs["dim"], attrs["index"]
    size = shapes[0][dim]
    if index[-1] >= size:
        raise InvalidArchitecture(
            f"index names place {index[-1]}, which does not lie in the {size} that arrive"
        )
    return (*shapes[0][:dim], len(index), *shapes[0][dim + 1 :])


def _reshape_shape(attrs: Attrs, shapes: Sequence[Shape]) -> Shape:
    shape = shapes[0]
    if attrs["mode"] == "flatten":
        return (math.prod(shape),)
    if attrs["mode"] == "merge":
        start, end = attrs["start"], attrs["end"]
        return (*shape[:start], math.prod(shape[start : end + 1]), *shape[end + 1 :])
    dim = attrs["dim"]
    known = math.prod(size for size in attrs["sizes"] if size > 0)
    if shape[dim] % known:
        raise InvalidArchitecture(f"{shape[dim]} does not divide into the sizes {attrs['sizes']}")
    sizes = (shape[dim] // known if size < 0 else size for size in attrs["sizes"])
    return (*shape[:dim], *sizes, *shape[dim + 1 :])


def _permute_shape(attrs: Attrs, shapes: Sequence[Shape]) -> Shape:
    return tuple(shapes[0][dim] for dim in attrs["dims"])


def _shuffle_shape(attrs: Attrs, shapes: Sequence[Shape]) -> Shape:
    if shapes[0][0] % attrs["groups"]:
        raise InvalidArchitecture(
            f"groups is {attrs['groups']}, which does not divide the {shapes[0][0]} channels that arrive"
        )
    return shapes[0]


def _pad_shape(attrs: Attrs, shapes: Sequence[Shape]) -> Shape:
    out = list(shapes[0])
    pads = attrs["pads"]
    for index in range(len(pads) // 2):
        out[-1 - index] += pads[2 * index] + pads[2 * index + 1]
    return tuple(out)


def _conv_params(attrs: Attrs) -> dict[str, Shape]:
    weight = (
        attrs["out_channels"],
        attrs["in_channels"] // attrs["groups"],
        *attrs["kernel"],
    )
    return {"weight": weight, **({"bias": (attrs["out_channels"],)} if attrs["bias"] else {})}


def _linear_params(attrs: Attrs) -> dict[str, Shape]:
    weight = (attrs["out_features"], attrs["in_features"])
    return {"weight": weight, **({"bias": (attrs["out_features"],)} if attrs["bias"] else {})}


def _batch_norm_params(attrs: Attrs) -> dict[str, Shape]:
    size = (attrs["num_features"],)
    return parametric.pair(size, attrs["affine"], attrs.get("bias", True))


def _batch_norm_buffers(attrs: Attrs) -> dict[str, Shape]:
    size = (attrs["num_features"],)
    return {"running_mean": size, "running_var": size, "num_batches_tracked": ()}


def _conv_macs(attrs: Attrs, shape: Shape) -> int:
    per_position = attrs["in_channels"] // attrs["groups"] * math.prod(attrs["kernel"])
    return math.prod(shape) * per_position


def _linear_macs(attrs: Attrs, shape: Shape) -> int:
    return math.prod(shape) * attrs["in_features"]


@dataclass(frozen=True)
class Op:
    """What there is to know of one operation.

    Attributes:
        out_shape: (attrs, input shapes, one for each slot) -> output shape; raises InvalidArchitecture.
        required: the attributes that must be present.
        params, buffers: attrs -> {role: shape} of trainable parameters and of other state.
        macs: (attrs, output shape) -> multiply-accumulate operations of one input, as `torch.utils.flop_counter` counts them
            divided by two: only convolutions and matrix products count.
        is_view: the output shares its input's memory (in evaluation mode).
    """

    out_shape: Callable[[Attrs, Sequence[Shape]], Shape]
    required: tuple[str, ...] = ()
    params: Callable[[Attrs], dict[str, Shape]] = lambda attrs: {}
    buffers: Callable[[Attrs], dict[str, Shape]] = lambda attrs: {}
    macs: Callable[[Attrs, Shape], int] = lambda attrs, shape: 0
    is_view: bool = False


OPS: Mapping[str, Op] = {
    "input": Op(_same, is_view=True),
    "identity": Op(_same, is_view=True),
    "conv": Op(
        _conv_shape,
        (
            "in_channels",
            "out_channels",
            "kernel",
            "stride",
            "padding",
            "dilation",
            "groups",
            "bias",
        ),
        _conv_params,
        macs=_conv_macs,
    ),
    "linear": Op(
        _linear_shape, ("in_features", "out_features", "bias"), _linear_params, macs=_linear_macs
    ),
    "batch_norm": Op(
        _batch_norm_shape,
        ("num_features", "eps", "momentum", "affine"),
        _batch_norm_params,
        _batch_norm_buffers,
    ),
    "unary": Op(_same, ("fn", "args", "kwargs")),
    "dropout": Op(_same, ("fn", "p"), is_view=True),
    "pool": Op(_pool_shape, ("kind", "kernel", "stride", "padding")),
    "adaptive_pool": Op(_adaptive_shape, ("kind", "output_size")),
    "reduce": Op(_reduce_shape, ("fn", "dims", "keepdim")),
    "add": Op(_broadcast_shape),
    "binary": Op(_broadcast_shape, ("fn",)),
    "concat": Op(_concat_shape, ("dim",)),
    "slice": Op(_slice_shape, ("dim", "start", "stop", "step"), is_view=True),
    "gather": Op(_gather_shape, ("dim", "index")),
    "reshape": Op(_reshape_shape, ("mode",), is_view=True),
    "permute": Op(_permute_shape, ("dims", "contiguous"), is_view=True),
    "channel_shuffle": Op(_shuffle_shape, ("groups",)),
    "pad": Op(_pad_shape, ("pads", "mode", "value")),
    "softmax": Op(_same, ("dim", "log")),
    "resize": Op(_resize_shape, ("fn", "size", "scale", "align_corners")),
    "group_norm": Op(
        parametric.group_norm_shape,
        ("groups", "num_channels", "eps", "affine"),
        parametric.group_norm_params,
    ),
    "instance_norm": Op(
        parametric.instance_norm_shape,
        ("num_features", "eps", "momentum", "affine", "track"),
        parametric.instance_norm_params,
        parametric.instance_norm_buffers,
    ),
    "layer_norm": Op(
        parametric.layer_norm_shape,
        ("shape", "eps", "affine", "bias"),
        parametric.layer_norm_params,
    ),
    "rms_norm": Op(
        parametric.layer_norm_shape, ("shape", "eps", "affine"), parametric.rms_norm_params
    ),
    "local_response_norm": Op(_same, ("size", "alpha", "beta", "k")),
    "prelu": Op(parametric.prelu_shape, ("num_parameters",), parametric.prelu_params),
    "param_binary": Op(
        parametric.param_binary_shape,
        ("fn", "shape", "reverse"),
        parametric.param_binary_params,
    ),
    "conv_transpose": Op(
        parametric.conv_transpose_shape,
        (
            "in_channels",
            "out_channels",
            "kernel",
            "stride",
            "padding",
            "output_padding",
            "dilation",
            "groups",
            "bias",
        ),
        parametric.conv_transpose_params,
        macs=parametric.conv_transpose_macs,
    ),
    "opaque": Op(
        opaque.out_shape, opaque.REQUIRED, opaque.params, opaque.buffers, macs=opaque.macs
    ),
}
