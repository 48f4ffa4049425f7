"""The slow path: makes one student network of the teacher and its edits."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from raysearch.architecture.axes import is_last
from raysearch.architecture.channels import channel_pads
from raysearch.architecture.graph import Architecture, Layer
from raysearch.architecture.groups import ChannelMap
from raysearch.architecture.parametric import PARAMETRIC, parametric_attrs


def apply_edits(
    teacher: Architecture,
    channels: ChannelMap,
    remove: Collection[int],
    widths: Sequence[int],
    skips: Sequence[tuple[int, int]],
) -> Architecture:
    """Makes a student; legality is the caller's affair (`SearchSpace.apply`).

    Args:
        teacher: the network that is edited.
        channels: its channel numbers in the widths.
        remove: indices of the layers that become identities.
        widths: [G].
        skips: (from, to) layer indices; `from` is added to the first slot of `to`.
    """
    exact = np.asarray(widths, np.int64)
    numbers = [
        affine.at(exact).tolist() for affine in (channels.into, channels.before, channels.out)
    ]
    added: dict[int, list[str]] = {}
    for source, target in skips:
        added.setdefault(target, []).append(teacher.layers[source].name)
    layers = []
    for position, (layer, into, before, out) in enumerate(
        zip(teacher.layers, *numbers, strict=True)
    ):
        axis = channels.axes[position]
        shape = (*layer.shape[:axis], out, *layer.shape[axis + 1 :]) if layer.shape else ()
        inputs = layer.inputs
        if position in added:
            inputs = ((*inputs[0], *added[position]), *inputs[1:])
        if position in remove:
            layers.append(Layer(layer.name, "identity", inputs, shape=shape))
            continue
        attrs = _resized(layer, axis, into, before, out)
        resized = any(layer.attrs[key] != value for key, value in attrs.items())
        if resized or shape != layer.shape or inputs is not layer.inputs:
            layer = replace(layer, inputs=inputs, shape=shape, attrs={**layer.attrs, **attrs})
        layers.append(layer)
    return Architecture(teacher.input_shape, tuple(layers), teacher.output)


def _resized(layer: Layer, axis: int, into: int, before: int, out: int) -> dict[str, Any]:
    """The attributes that depend on the numbers of channels; `axis` is where the output's channels are."""
    attrs = layer.attrs
    if layer.op in ("conv", "conv_transpose"):
        depthwise = attrs["groups"] == attrs["in_channels"] > 1
        groups = into if depthwise else attrs["groups"]
        return {"in_channels": into, "out_channels": out, "groups": groups}
    if layer.op == "linear" and is_last(layer.shape, axis):
        return {"in_features": into, "out_features": out}
    if layer.op == "batch_norm":
        return {"num_features": out}
    if layer.op in PARAMETRIC:
        return parametric_attrs(layer.op, attrs, len(layer.shape), out, axis)
    if layer.op == "slice" and attrs["dim"] == axis and attrs["step"] == 1:
        return {"start": before, "stop": before + out}
    if layer.op == "pad" and channel_pads(layer, axis) is not None:
        pads, place = attrs["pads"], 2 * (len(layer.shape) - 1 - axis)
        return {"pads": [*pads[:place], before, out - into - before, *pads[place + 2 :]]}
    return {}
