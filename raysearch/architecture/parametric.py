"""Operations whose parameters lie along the channels: normalisations, PReLU, scales and shifts, transposed convolutions.

The rows of `OPS` for them, and for each role the axis of its shape that follows the channels. Axes of tensors count without the batch.

Attributes by operation
    group_norm      groups, num_channels, eps, affine, bias where a weight has none (groups == num_channels > 1: each channel alone, as many groups as channels)
    instance_norm   num_features, eps, momentum, affine, bias where a weight has none, track (running statistics, which evaluation uses)
    layer_norm      shape (of the last axes), eps, affine, bias
    rms_norm        shape, eps (null: the precision's), affine
    local_response_norm size, alpha, beta, k (over neighbouring channels; no parameters)
    prelu           num_parameters (1, or one for each channel)
    param_binary    fn, shape (of the parameter, which broadcasts against the input with its batch axis), reverse (parameter first)
    conv_transpose  as conv, and output_padding
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from raysearch.errors import InvalidArchitecture

Shape = tuple[int, ...]
Attrs = Mapping[str, Any]

PARAMETRIC = frozenset(
    {"group_norm", "instance_norm", "layer_norm", "rms_norm", "prelu", "param_binary"}
)
"""Operations that keep the shape of their one input; `channel_entry` says which axis of their parameters the channels are."""


def group_norm_shape(attrs: Attrs, shapes: Sequence[Shape]) -> Shape:
    """Group norm takes [C, *S] with C divisible by the groups."""
    channels = shapes[0][0]
    if channels != attrs["num_channels"]:
        raise InvalidArchitecture(
            f"num_channels is {attrs['num_channels']}, but {channels} channels arrive"
        )
    if channels % attrs["groups"]:
        raise InvalidArchitecture(f"groups is {attrs['groups']}, which does not divide {channels}")
    return shapes[0]


def instance_norm_shape(attrs: Attrs, shapes: Sequence[Shape]) -> Shape:
    """Instance norm takes [C, *S]."""
    if shapes[0][0] != attrs["num_features"]:
        raise InvalidArchitecture(
            f"num_features is {attrs['num_features']}, but {shapes[0][0]} channels arrive"
        )
    return shapes[0]


def layer_norm_shape(attrs: Attrs, shapes: Sequence[Shape]) -> Shape:
    """Layer norm and RMS norm take tensors that end in `shape`."""
    shape = tuple(attrs["shape"])
    if shapes[0][len(shapes[0]) - len(shape) :] != shape:
        raise InvalidArchitecture(f"shape is {list(shape)}, but {list(shapes[0])} arrives")
    return shapes[0]


def prelu_shape(attrs: Attrs, shapes: Sequence[Shape]) -> Shape:
    """PReLU takes [C, *S] and one parameter, or C."""
    if attrs["num_parameters"] not in (1, shapes[0][0]):
        raise InvalidArchitecture(
            f"num_parameters is {attrs['num_parameters']}, but {shapes[0][0]} channels arrive"
        )
    return shapes[0]


def param_binary_shape(attrs: Attrs, shapes: Sequence[Shape]) -> Shape:
    """The parameter must broadcast to the input (batch axis in front), and change nothing of its shape."""
    shape = attrs["shape"]
    full = (1, *shapes[0])
    offset = len(full) - len(shape)
    fits = offset >= 0 and all(size in (1, full[offset + axis]) for axis, size in enumerate(shape))
    if not fits:
        raise InvalidArchitecture(
            f"shape is {list(shape)}, which does not broadcast to {list(shapes[0])}"
        )
    return shapes[0]


def conv_transpose_shape(attrs: Attrs, shapes: Sequence[Shape]) -> Shape:
    """[C, *S] -> [out, (S - 1) stride - 2 padding + dilation (kernel - 1) + output_padding + 1]."""
    channels, *space = shapes[0]
    if channels != attrs["in_channels"]:
        raise InvalidArchitecture(f"in_channels is {attrs['in_channels']}, but {channels} arrive")
    keys = ("stride", "padding", "dilation", "kernel", "output_padding")
    windows = zip(space, *(attrs[key] for key in keys), strict=True)
    sizes = ((n - 1) * s - 2 * p + d * (k - 1) + o + 1 for n, s, p, d, k, o in windows)
    return (attrs["out_channels"], *sizes)


def conv_transpose_space(attrs: Attrs, shape: Shape) -> Shape:
    """The input's spatial shape, from the output's."""
    keys = ("stride", "padding", "dilation", "kernel", "output_padding")
    windows = zip(shape[1:], *(attrs[key] for key in keys), strict=True)
    return tuple((m - 1 + 2 * p - d * (k - 1) - o) // s + 1 for m, s, p, d, k, o in windows)


def conv_transpose_params(attrs: Attrs) -> dict[str, Shape]:
    """The weight is [in, out / groups, *kernel]."""
    out = attrs["out_channels"]
    weight = (attrs["in_channels"], out // attrs["groups"], *attrs["kernel"])
    return {"weight": weight, **({"bias": (out,)} if attrs["bias"] else {})}


def conv_transpose_macs(attrs: Attrs, shape: Shape) -> int:
    """Each input value meets every tap of its group's output channels."""
    taps = math.prod(attrs["kernel"]) * attrs["out_channels"] // attrs["groups"]
    return attrs["in_channels"] * math.prod(conv_transpose_space(attrs, shape)) * taps


def pair(size: Shape, affine: bool, bias: bool = True) -> dict[str, Shape]:
    """A normalisation's weight and bias, of the same shape."""
    if not affine:
        return {}
    return {"weight": size, "bias": size} if bias else {"weight": size}


def group_norm_params(attrs: Attrs) -> dict[str, Shape]:
    return pair((attrs["num_channels"],), attrs["affine"], attrs.get("bias", True))


def instance_norm_params(attrs: Attrs) -> dict[str, Shape]:
    return pair((attrs["num_features"],), attrs["affine"], attrs.get("bias", True))


def instance_norm_buffers(attrs: Attrs) -> dict[str, Shape]:
    size = (attrs["num_features"],)
    buffers: dict[str, Shape] = {
        "running_mean": size,
        "running_var": size,
        "num_batches_tracked": (),
    }
    return buffers if attrs["track"] else {}


def layer_norm_params(attrs: Attrs) -> dict[str, Shape]:
    return pair(tuple(attrs["shape"]), attrs["affine"], attrs["bias"])


def rms_norm_params(attrs: Attrs) -> dict[str, Shape]:
    return pair(tuple(attrs["shape"]), attrs["affine"], bias=False)


def prelu_params(attrs: Attrs) -> dict[str, Shape]:
    return {"weight": (attrs["num_parameters"],)}


def param_binary_params(attrs: Attrs) -> dict[str, Shape]:
    return {"weight": tuple(attrs["shape"])}


def channel_entry(op: str, attrs: Attrs, rank: int, axis: int) -> int | None:
    """The axis of a parameter's shape that follows the channels; None where the parameter does not know them.

    Args:
        op: one of `PARAMETRIC`.
        attrs: its attributes.
        rank: axes of the layer's input, without the batch.
        axis: which of them holds the channels.
    """
    if op in ("group_norm", "instance_norm"):
        return 0 if axis == 0 else None
    if op == "prelu":
        return 0 if axis == 0 and attrs["num_parameters"] > 1 else None
    if op not in ("layer_norm", "rms_norm", "param_binary"):
        return None
    shape = attrs["shape"]
    entry = axis - (rank - len(shape))
    if entry < 0 or (op == "param_binary" and shape[entry] == 1):
        return None
    return entry


def parametric_attrs(op: str, attrs: Attrs, rank: int, channels: int, axis: int) -> dict[str, Any]:
    """The attributes of one of `PARAMETRIC` that change with the number of channels."""
    if op == "group_norm":
        alone = attrs["groups"] == attrs["num_channels"] > 1
        return {"num_channels": channels, **({"groups": channels} if alone else {})}
    if op == "instance_norm":
        return {"num_features": channels}
    entry = channel_entry(op, attrs, rank, axis)
    if entry is None:
        return {}
    if op == "prelu":
        return {"num_parameters": channels}
    shape = list(attrs["shape"])
    shape[entry] = channels
    return {"shape": shape}
