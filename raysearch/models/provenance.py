"""Provenance: which channel of the teacher's tensor each channel of the student's is.

It is propagated from the input to the logits. A layer with weights of its own keeps the first of its channels unless it is told
which; everything else passes on, joins, or spreads what it reads.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from raysearch.architecture.graph import Architecture, Layer
from raysearch.architecture.ops import Shape
from raysearch.errors import WeightsError

Keep = Mapping[str, Sequence[int]]
"""Layer name -> the teacher's channels that its outputs are."""

FRESH = -1
"""The provenance of a channel that the teacher does not have: freshly initialised."""


@dataclass(frozen=True)
class Origin:
    """The provenance of a tensor's first axis.

    Attributes:
        channels: [C] the teacher's channel of each of ours, or `FRESH`.
        total: how many channels the teacher's tensor has.
    """

    channels: np.ndarray
    total: int


def follow(
    architecture: Architecture, shapes: Mapping[str, Shape], keep: Keep
) -> Iterator[tuple[Context, list[Origin], Origin]]:
    """Every layer with the provenance of what arrives in each slot and of what leaves.

    Args:
        architecture: the student (or the teacher itself).
        shapes: the shapes of the teacher's state by name.
        keep: the teacher's channels that a layer's outputs are; default: the first ones, within each block where a grouped
            convolution divides the channels into blocks.
    """
    origins: dict[str, Origin] = {}
    blocks = _blocks(architecture, shapes)
    for layer in architecture.layers:
        arriving = [_merge([origins[name] for name in slot]) for slot in layer.inputs]
        context = Context(layer, architecture, shapes, keep, blocks.get(layer.name, 1))
        origins[layer.name] = _RULES.get(layer.op, _pass)(context, arriving)
        yield context, arriving, origins[layer.name]


@dataclass(frozen=True)
class Context:
    """What a rule may look at: the layer, its network, and the teacher's shapes."""

    layer: Layer
    architecture: Architecture
    shapes: Mapping[str, Shape]
    keep: Keep
    blocks: int

    def key(self, role: str) -> str:
        """The state's name of a role."""
        return self.layer.params.get(role, f"{self.layer.name}.{role}")

    def teacher_shape(self, role: str) -> Shape:
        """The shape of the teacher's tensor.

        Raises:
            WeightsError: it has none.
        """
        key = self.key(role)
        if key not in self.shapes:
            raise WeightsError(
                f"the weights to inherit from have no {key!r}, which layer {self.layer.name!r} needs; "
                "pass the teacher that the architecture was traced from"
            )
        return self.shapes[key]

    def input_shape(self, slot: int = 0) -> Shape:
        """The shape of what arrives in a slot."""
        return self.architecture[self.layer.inputs[slot][0]].shape


def _merge(origins: Sequence[Origin]) -> Origin:
    """A sum's provenance: the first producer's, completed by the others."""
    first, *others = origins
    channels = first.channels
    for other in others:
        if len(other.channels) == len(channels) and (channels < 0).any():
            channels = np.where(channels < 0, other.channels, channels)
    return Origin(channels, max(origin.total for origin in origins))


def identity(size: int) -> Origin:
    """The provenance of a tensor that is the teacher's own."""
    return Origin(np.arange(size), size)


def _pass(context: Context, arriving: Sequence[Origin]) -> Origin:
    """Element-wise operations and windows keep channels; of several operands the widest ones count."""
    size = context.layer.shape[0] if context.layer.shape else 1
    matching = [origin for origin in arriving if len(origin.channels) == size]
    return _merge(matching) if matching else identity(size)


def _new_channels(context: Context, arriving: Sequence[Origin]) -> Origin:
    layer = context.layer
    total = context.teacher_shape("weight")[0]
    size = layer.shape[0]
    if layer.op == "linear" and len(layer.shape) > 1:
        return arriving[0]
    if layer.name in context.keep:
        return Origin(np.asarray(context.keep[layer.name], np.int64), total)
    if is_depthwise(layer, context.teacher_shape("weight")):
        return _depthwise(arriving[0], size, total)
    return Origin(_prefix(size, total, context.blocks), total)


def is_depthwise(layer: Layer, teacher: Shape) -> bool:
    """Whether each group of a convolution reads one channel, in the teacher of weight shape `teacher`."""
    return layer.op == "conv" and layer.attrs["groups"] > 1 and teacher[1] == 1


def _depthwise(arriving: Origin, size: int, total: int) -> Origin:
    ours, theirs = size // len(arriving.channels), total // arriving.total
    if ours != theirs:  # another tensor arrives than in the teacher
        return Origin(np.arange(size), total)
    grid = arriving.channels[:, None] * theirs + np.arange(ours)  # [C, ours]
    return Origin(np.where(arriving.channels[:, None] < 0, FRESH, grid).ravel(), total)


def _prefix(size: int, total: int, blocks: int) -> np.ndarray:
    """The first channels of each of `blocks` equal blocks."""
    if blocks == 1 or size % blocks or total % blocks:
        return np.arange(size)
    starts = np.arange(blocks)[:, None] * (total // blocks)
    return (starts + np.arange(size // blocks)).ravel()


def _concat(context: Context, arriving: Sequence[Origin]) -> Origin:
    if context.layer.attrs["dim"] != 0:
        return _merge(arriving)
    starts = np.cumsum([0, *(origin.total for origin in arriving)])
    parts = [
        np.where(origin.channels < 0, FRESH, origin.channels + start)
        for origin, start in zip(arriving, starts[:-1], strict=True)
    ]
    return Origin(np.concatenate(parts), int(starts[-1]))


def _flatten(context: Context, arriving: Sequence[Origin]) -> Origin:
    space = math.prod(context.input_shape()[1:])
    channels = arriving[0].channels[:, None]
    grid = channels * space + np.arange(space)  # [C, H * W]
    return Origin(np.where(channels < 0, FRESH, grid).ravel(), arriving[0].total * space)


def _reduce(context: Context, arriving: Sequence[Origin]) -> Origin:
    shape = context.layer.shape
    if 0 not in context.layer.attrs["dims"]:
        return arriving[0]
    return identity(shape[0] if shape else 1)


def _pad(context: Context, arriving: Sequence[Origin]) -> Origin:
    """Exact where the whole of the teacher's tensor arrives; else unknown, so that a sum takes its other terms' channels."""
    if len(context.layer.attrs["pads"]) // 2 < len(context.layer.shape):
        return arriving[0]
    size = context.layer.shape[0]
    whole = len(arriving[0].channels) == arriving[0].total
    return identity(size) if whole else Origin(np.full(size, FRESH), size)


_RULES: Mapping[str, Callable[[Context, Sequence[Origin]], Origin]] = {
    "conv": _new_channels,
    "linear": _new_channels,
    "concat": _concat,
    "reshape": _flatten,
    "reduce": _reduce,
    "pad": _pad,
}


def _blocks(architecture: Architecture, shapes: Mapping[str, Shape]) -> dict[str, int]:
    """Layer name -> into how many blocks grouped convolutions divide its output channels (1 where none does)."""
    if all(layer.attrs.get("groups", 1) == 1 for layer in architecture.layers):
        return {}
    parent = {layer.name: layer.name for layer in architecture.layers}

    def find(name: str) -> str:
        while parent[name] != name:
            name = parent[name]
        return name

    needs: dict[str, int] = {}
    for layer in architecture.layers:
        teacher = shapes.get(layer.params.get("weight", f"{layer.name}.weight"), (0, 0))
        ties = layer.op not in ("conv", "linear", "concat", "reshape", "input")
        for slot in layer.inputs:
            tied = [*slot, layer.name] if ties or is_depthwise(layer, teacher) else slot
            for name in tied[1:]:
                parent[find(name)] = find(tied[0])
        groups = layer.attrs.get("groups", 1)
        if groups > 1 and not is_depthwise(layer, teacher):
            for name in (layer.name, layer.inputs[0][0]):
                needs[name] = groups
    return _spread_blocks(needs, {name: find(name) for name in parent})


def _spread_blocks(needs: Mapping[str, int], roots: Mapping[str, str]) -> dict[str, int]:
    by_root: dict[str, int] = {}
    for name, blocks in needs.items():
        by_root[roots[name]] = math.lcm(by_root.get(roots[name], 1), blocks)
    return {name: by_root.get(root, 1) for name, root in roots.items()}
