"""Rules for operations with parameters along the channels: normalisations, PReLU, transposed convolutions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from raysearch.models.tracing.rules import Call, Draft, Rule, spread, weights


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


def _affine(call: Call) -> bool:
    """Whether a normalisation has both weight and bias, not none."""
    affine = call.args["weight"] is not None
    if affine is not (call.args["bias"] is not None):
        raise call.unknown("has only one of weight and bias")
    return affine


def _group_norm(call: Call) -> Draft:
    attrs = {
        "groups": call.args["num_groups"],
        "num_channels": call.size("input", 1),
        "eps": call.args["eps"],
        "affine": _affine(call),
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
        "affine": _affine(call),
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
    affine = call.args["weight"] is not None
    attrs = {"shape": shape, "eps": call.args["eps"], "affine": affine}
    return Draft("rms_norm", (call.args["input"],), attrs, weights(call, "weight"))


def _prelu(call: Call) -> Draft:
    shape = tuple(call.args["weight"].meta["val"].shape)
    if len(shape) != 1 or call.rank("self") < 2:
        raise call.unknown("has a weight of several axes")
    return Draft(
        "prelu", (call.args["self"],), {"num_parameters": shape[0]}, weights(call, "weight")
    )


PARAMETRIC_RULES: Mapping[str, Rule] = {
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), _conv_transpose),
    "group_norm": _group_norm,
    "instance_norm": _instance_norm,
    "layer_norm": _layer_norm,
    "rms_norm": _rms_norm,
    "prelu": _prelu,
}
"""ATen base name -> rule."""
