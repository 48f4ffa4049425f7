"""Further rules: normalisations, PReLU, transposed convolutions, interpolation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import fx

from raysearch.models.tracing.rules import (
    Call,
    Draft,
    Rule,
    affine,
    aten_name,
    shape_of,
    spread,
    weights,
)


def _conv_transpose(call: Call) -> Draft:
    weight = tuple(call.args["weight"].meta["val"].shape)
    rank = len(weight) - 2
    if call.rank("input") != rank + 2:
        raise call.unknown("is given an input without a batch axis")
    groups = call.args["groups"]
    attrs: dict[str, Any] = {
        "in_channels": weight[0],
        "out_channels": weight[1] * groups,
        "kernel": list(weight[2:]),
        **{
            key: spread(call.args[key], rank)
            for key in ("stride", "padding", "output_padding", "dilation")
        },
        "groups": groups,
        "bias": call.args["bias"] is not None,
    }
    return Draft("conv_transpose", (call.args["input"],), attrs, weights(call, "weight", "bias"))


def _group_norm(call: Call) -> Draft:
    attrs = {
        "groups": call.args["num_groups"],
        "num_channels": call.size("input", 1),
        "eps": call.args["eps"],
        **affine(call),
    }
    return Draft("group_norm", (call.args["input"],), attrs, weights(call, "weight", "bias"))


def _instance_norm(call: Call) -> Draft:
    track = call.args["running_mean"] is not None
    if call.rank("input") < 3 or track is bool(call.args["use_input_stats"]):
        raise call.unknown("is not torch's InstanceNorm in evaluation")
    attrs = {
        "num_features": call.size("input", 1),
        "eps": call.args["eps"],
        "momentum": call.args["momentum"],
        **affine(call),
        "track": track,
    }
    roles = ("weight", "bias", *(("running_mean", "running_var") if track else ()))
    return Draft("instance_norm", (call.args["input"],), attrs, weights(call, *roles))


def _layer_norm(call: Call) -> Draft:
    shape = list(call.args["normalized_shape"])
    if len(shape) >= call.rank("input"):
        raise call.refuse("normalises over the batch axis, so its images are not independent")
    if call.args["weight"] is None and call.args["bias"] is not None:
        raise call.unknown("has a bias without a weight")
    attrs = {
        "shape": shape,
        "eps": call.args["eps"],
        "affine": call.args["weight"] is not None,
        "bias": call.args["bias"] is not None,
    }
    return Draft("layer_norm", (call.args["input"],), attrs, weights(call, "weight", "bias"))


def _rms_norm(call: Call) -> Draft:
    shape = list(call.args["normalized_shape"])
    if len(shape) >= call.rank("input"):
        raise call.refuse("normalises over the batch axis, so its images are not independent")
    has_weight = call.args["weight"] is not None
    attrs = {"shape": shape, "eps": call.args["eps"], "affine": has_weight}
    return Draft("rms_norm", (call.args["input"],), attrs, weights(call, "weight"))


def _prelu(call: Call) -> Draft:
    shape = tuple(call.args["weight"].meta["val"].shape)
    if len(shape) != 1 or call.rank("self") < 2:
        raise call.unknown("has a weight of several axes")
    return Draft(
        "prelu", (call.args["self"],), {"num_parameters": shape[0]}, weights(call, "weight")
    )


def response_normalised(call: Call) -> Draft | None:
    """The local response norm that ends in this division; None where it is none.

    torch writes it as x / (k + alpha * mean of x * x over a window of channels) ** beta, the mean by a pooling over an added axis.
    """
    images, power = call.args["self"], call.args["other"]
    added = _source(power, "pow")
    scaled = _source(added, "add")
    pooled = _past(_source(scaled, "mul"), ("view", "reshape", "squeeze"))
    padded = _source(pooled, "avg_pool2d", "avg_pool3d")
    square = _past(_source(padded, "pad"), ("view", "reshape", "unsqueeze"))
    if square is None or aten_name(square) != "mul" or list(square.args) != [images, images]:
        return None
    numbers = [node.args[1] for node in (power, added, scaled)]
    kernel: Any = pooled.args[1]
    if not all(isinstance(number, int | float) for number in numbers) or max(kernel[1:]) != 1:
        return None
    pads: Any = padded.args[1]
    if list(pads) != [0] * (len(pads) - 2) + [kernel[0] // 2, (kernel[0] - 1) // 2]:
        return None
    beta, k, alpha = (float(number) for number in numbers)
    attrs = {"size": kernel[0], "alpha": alpha, "beta": beta, "k": k}
    return Draft("local_response_norm", (images,), attrs)


def _source(node: Any, *names: str) -> Any:
    """What a node reads first where it is one of the named calls, else None."""
    found = isinstance(node, fx.Node) and aten_name(node) in names
    return node.args[0] if found else None


def _past(node: Any, names: tuple[str, ...]) -> Any:
    """The first node upwards that is none of the named calls."""
    while isinstance(node, fx.Node) and aten_name(node) in names:
        node = node.args[0]
    return node if isinstance(node, fx.Node) else None


_MODES = {
    "upsample_nearest": "nearest",
    "_upsample_nearest_exact": "nearest-exact",
    "upsample_linear": "linear",
    "upsample_bilinear": "bilinear",
    "upsample_bicubic": "bicubic",
    "upsample_trilinear": "trilinear",
}


def _resize(call: Call) -> Draft:
    """Interpolation in space; the factors are kept where torch computes the coordinates with them."""
    if call.node.target._overloadname != "vec":  # type: ignore[union-attr]
        raise call.unknown("is not torch's interpolate")
    scale = call.args["scale_factors"]
    attrs = {
        "fn": _MODES[call.name[:-2]],
        "size": [int(size) for size in shape_of(call.node)[2:]],
        "scale": None if scale is None else [float(factor) for factor in scale],
        "align_corners": call.args.get("align_corners") or None,
    }
    return Draft("resize", (call.args["input"],), attrs)


FURTHER_RULES: Mapping[str, Rule] = {
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), _conv_transpose),
    "group_norm": _group_norm,
    "instance_norm": _instance_norm,
    "layer_norm": _layer_norm,
    "rms_norm": _rms_norm,
    "prelu": _prelu,
    **{f"{name}{rank}d": _resize for name in _MODES for rank in (1, 2, 3)},
}
"""ATen base name -> rule."""
