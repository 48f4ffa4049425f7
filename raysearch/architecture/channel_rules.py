"""What every operation does to channels: its output's blocks from those of its inputs.

A rule may open variables, unify, split or freeze them. What it does not understand it freezes: the numbers of all channels that it
touches stay the teacher's, which is never wrong.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from raysearch.architecture.axes import aligned_axis, is_last
from raysearch.architecture.graph import Layer
from raysearch.architecture.ops import Shape
from raysearch.architecture.parametric import PARAMETRIC
from raysearch.architecture.programs import label
from raysearch.architecture.variables import Blocks, Variables

MAX_BLOCKS = 4096
"""A channel axis of more blocks than this is frozen instead of tracked."""
MAX_PARTS = 256
"""Channels that are divided into more equal parts than this are frozen."""


@dataclass(frozen=True)
class Site:
    """A layer and what arrives there.

    Attributes:
        layer: the layer.
        slots: for each slot, the blocks of its channel axis.
        axes: for each slot, the channel axis that is read.
        shapes: for each slot, its shape.
        axis: the channel axis of the output.
    """

    layer: Layer
    slots: tuple[Blocks, ...]
    axes: tuple[int, ...]
    shapes: tuple[Shape, ...]
    axis: int


def channel_blocks(variables: Variables, site: Site) -> Blocks:
    """The blocks of a layer's output."""
    out = _RULES.get(site.layer.op, _unknown)(variables, site)
    if len(out) > MAX_BLOCKS:
        reason = "its channels are joined too often to follow"
        variables.freeze(out, reason)
        return constant(variables, site.layer.shape, site.axis, reason)
    return out


def constant(variables: Variables, shape: Shape, axis: int, reason: str) -> Blocks:
    """An axis whose size is fixed."""
    return ((variables.new(shape[axis], reason), 1),) if shape else ()


def is_depthwise(layer: Layer) -> bool:
    """A convolution that handles each channel alone (one input channel is not enough to call it so)."""
    return (
        layer.op in ("conv", "conv_transpose")
        and layer.attrs["groups"] == layer.attrs["in_channels"] > 1
    )


def channel_pads(layer: Layer, axis: int = 0) -> tuple[int, int] | None:
    """How many channels a `pad` layer adds (before, after); None where it leaves the channels alone."""
    pads = layer.attrs["pads"]
    first = 2 * (len(layer.shape) - 1 - axis)
    if len(pads) <= first or not any(pads[first : first + 2]):
        return None
    return pads[first], pads[first + 1]


def _frozen(variables: Variables, site: Site, reason: str) -> Blocks:
    for blocks in site.slots:
        variables.freeze(blocks, reason)
    return constant(variables, site.layer.shape, site.axis, reason)


def _unknown(variables: Variables, site: Site) -> Blocks:
    return _frozen(variables, site, f"{site.layer.name} ({site.layer.op}) is not understood")


def _input(variables: Variables, site: Site) -> Blocks:
    return _frozen(variables, site, "it is the network's input")


def _opaque(variables: Variables, site: Site) -> Blocks:
    layer = site.layer
    return _frozen(
        variables, site, f"{layer.name} ({label(layer.attrs['program'])}) is replayed as it is"
    )


def _group_norm(variables: Variables, site: Site) -> Blocks:
    groups = site.layer.attrs["groups"]
    if groups != site.layer.attrs["num_channels"]:  # else each channel is normalised alone
        variables.divide(site.slots[0], groups)
    return site.slots[0]


def _same(variables: Variables, site: Site) -> Blocks:
    shape, axis = site.layer.shape, site.axis
    if site.axes[0] != axis or site.shapes[0][axis : axis + 1] != shape[axis : axis + 1]:
        return _unknown(variables, site)
    return site.slots[0]


def _conv(variables: Variables, site: Site) -> Blocks:
    attrs, into = site.layer.attrs, site.slots[0]
    if is_depthwise(site.layer):
        multiplier = attrs["out_channels"] // attrs["in_channels"]
        return tuple((variable, m * multiplier) for variable, m in into)
    out: Blocks = ((variables.new(attrs["out_channels"]), 1),)
    if attrs["groups"] > 1:
        variables.divide(into, attrs["groups"])
        variables.divide(out, attrs["groups"])
    return out


def _linear(variables: Variables, site: Site) -> Blocks:
    if not is_last(site.shapes[0], site.axes[0]):  # it mixes another axis than the channels
        return site.slots[0]
    return ((variables.new(site.layer.attrs["out_features"]), 1),)


def _reduce(variables: Variables, site: Site) -> Blocks:
    if site.axes[0] in site.layer.attrs["dims"]:
        return _frozen(variables, site, f"{site.layer.name} reduces over the channels")
    return site.slots[0]


def _softmax(variables: Variables, site: Site) -> Blocks:
    if site.layer.attrs["dim"] in (site.axis, site.axis - len(site.layer.shape)):
        variables.freeze(site.slots[0], f"{site.layer.name} normalises over the channels")
    return site.slots[0]


def _broadcast(variables: Variables, site: Site) -> Blocks:
    """Operands that bring all channels are one; those that are broadcast over channels stay as they are."""
    shape, axis = site.layer.shape, site.axis
    reason = f"{site.layer.name} broadcasts it over the channels"
    full: Blocks | None = None
    crossed = False
    for blocks, own, size in zip(site.slots, site.axes, site.shapes, strict=True):
        there = aligned_axis(
            axis, len(shape), size
        )  # where the output's channels are in the operand
        brings = there >= 0 and size[there] == shape[axis]
        if brings and own == there:
            full = blocks if full is None else variables.unify(full, blocks)
        else:
            variables.freeze(blocks, reason)
            crossed = crossed or brings
    if full is None:
        return _unknown(variables, site)
    if crossed:
        variables.freeze(full, f"{site.layer.name} combines it with other channels")
    return full


def _concat(variables: Variables, site: Site) -> Blocks:
    if len(set(site.axes)) > 1:
        return _frozen(variables, site, f"{site.layer.name} joins other axes than the channels")
    if site.layer.attrs["dim"] in (site.axis, site.axis - len(site.layer.shape)):
        return tuple(block for blocks in site.slots for block in blocks)
    first = site.slots[0]
    for blocks in site.slots[1:]:
        first = variables.unify(first, blocks)
    return first


def _slice(variables: Variables, site: Site) -> Blocks:
    attrs, blocks = site.layer.attrs, site.slots[0]
    if attrs["dim"] != site.axis:
        return blocks
    if attrs["step"] == 1:
        head = variables.cut(blocks, attrs["stop"])
        part = variables.cut(head[0], attrs["start"]) if head else None
        if part:
            return part[1]
    return _frozen(
        variables, site, f"{site.layer.name} takes channels that are not a run of whole ones"
    )


def _gather(variables: Variables, site: Site) -> Blocks:
    if site.layer.attrs["dim"] != site.axis:
        return site.slots[0]
    return _frozen(variables, site, f"{site.layer.name} keeps single ones by their places")


def _pad(variables: Variables, site: Site) -> Blocks:
    added = channel_pads(site.layer, site.axis)
    if added is None:
        return site.slots[0]
    if site.layer.attrs["mode"] != "constant" or min(added) < 0:
        return _unknown(variables, site)
    before, after = (((variables.new(n), 1),) if n else () for n in added)
    return (*before, *site.slots[0], *after)


def _shuffle(variables: Variables, site: Site) -> Blocks:
    """The numbers of channels pass, each a multiple of the groups; their order in a student is what the shuffle makes of it."""
    variables.divide(site.slots[0], site.layer.attrs["groups"])
    return site.slots[0]


def _reshape(variables: Variables, site: Site) -> Blocks:
    attrs, blocks, axis = site.layer.attrs, site.slots[0], site.axes[0]
    if attrs["mode"] == "split":
        return _split(variables, site) if attrs["dim"] == axis else blocks
    whole = attrs["mode"] == "flatten"
    start, end = (0, len(site.shapes[0]) - 1) if whole else (attrs["start"], attrs["end"])
    if not start <= axis <= end:
        return blocks
    before = math.prod(site.shapes[0][start:axis])
    after = math.prod(site.shapes[0][axis + 1 : end + 1])
    if before * len(blocks) > MAX_BLOCKS:
        return _frozen(variables, site, "its channels are joined too often to follow")
    return tuple((variable, m * after) for variable, m in blocks) * before


def _split(variables: Variables, site: Site) -> Blocks:
    """[a * c * b] -> [a, c, b]: the a parts are the same channels, each b places long."""
    sizes = list(site.layer.attrs["sizes"])
    place = sizes.index(-1)
    before, after = math.prod(sizes[:place]), math.prod(sizes[place + 1 :])
    width = site.shapes[0][site.axes[0]] // before
    parts, rest = [], site.slots[0]
    for _ in range(before):
        cut = variables.cut(rest, width) if before <= MAX_PARTS else None
        if cut is None:
            return _frozen(variables, site, f"{site.layer.name} divides channels that do not align")
        parts.append(cut[0])
        rest = cut[1]
    first = parts[0]
    for part in parts[1:]:
        first = variables.unify(first, part)
    runs = variables.bundle(first, after)
    if runs is None:
        return _frozen(variables, site, f"{site.layer.name} divides channels that do not align")
    return tuple((variable, m // after) for variable, m in runs)


_RULES: Mapping[str, Callable[[Variables, Site], Blocks]] = {
    "input": _input,
    "identity": _same,
    "conv": _conv,
    "conv_transpose": _conv,
    "linear": _linear,
    "batch_norm": _same,
    "unary": _same,
    "dropout": _same,
    "pool": _same,
    "adaptive_pool": _same,
    "resize": _same,
    "reduce": _reduce,
    "add": _broadcast,
    "binary": _broadcast,
    "concat": _concat,
    "slice": _slice,
    "gather": _gather,
    "reshape": _reshape,
    "permute": lambda variables, site: site.slots[0],
    "channel_shuffle": _shuffle,
    "pad": _pad,
    "softmax": _softmax,
    **dict.fromkeys(PARAMETRIC, _same),
    "group_norm": _group_norm,
    "local_response_norm": _same,
    "opaque": _opaque,
}
