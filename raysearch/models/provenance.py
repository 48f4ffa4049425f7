"""Provenance: which channel of the teacher's tensor each channel of the student's is.

It is propagated from the input to the logits. A layer with weights of its own keeps the first of its channels unless it is told
which; everything else passes on, joins, or spreads what it reads.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from raysearch.architecture.axes import is_last, read_axis
from raysearch.architecture.channels import channel_pads
from raysearch.architecture.graph import Architecture, Layer
from raysearch.architecture.ops import Shape
from raysearch.errors import WeightsError

FRESH = -1
"""The provenance of a channel that the teacher does not have: freshly initialised."""


UNKNOWN = 0
"""The teacher's number of channels where only the rules can tell it."""


@dataclass(frozen=True, eq=False)
class Origin:
    """The provenance of a tensor's channels, which are on the axis that `Architecture.axes` tells.

    Attributes:
        channels: [C] the teacher's channel of each of ours, or `FRESH`.
        total: how many channels the teacher's tensor has.
    """

    channels: np.ndarray
    total: int


Keep = Mapping[str, Sequence[int] | np.ndarray | Origin]
"""Layer name -> the teacher's channels that its outputs are; an `Origin` also tells how many the teacher has."""


def follow(
    architecture: Architecture, shapes: Mapping[str, Shape], keep: Keep
) -> Iterator[tuple[Context, list[Origin], Origin]]:
    """Every layer with the provenance of what arrives in each slot and of what leaves.

    Args:
        architecture: the student (or the teacher itself).
        shapes: the shapes of the teacher's state by name.
        keep: the teacher's channels that a layer's outputs are, for any layers (`keep_sets` names all); default: what follows from
            the layers before, and of new channels the first ones, within each block where a grouped convolution divides the
            channels into blocks.

    Raises:
        WeightsError: the teacher lacks a tensor, or `keep` lists another number of channels than a layer has.
    """
    return walk(architecture, shapes, lambda context, _: _listed(context, keep))


def walk(architecture: Architecture, shapes: Mapping[str, Shape], choose: Choose) -> Trail:
    """As `follow`; `choose` is asked at each layer, and where it answers None the rule of the operation holds."""
    origins: dict[str, Origin] = {}
    blocks = _blocks(architecture, shapes)
    for layer in architecture.layers:
        arriving = [_read(architecture, layer, slot, origins) for slot in layer.inputs]
        context = Context(layer, architecture, shapes, blocks.get(layer.name, 1))
        leaving = choose(context, arriving)
        if leaving is None or leaving.total == UNKNOWN:
            ruled = _RULES.get(layer.op, _pass)(context, arriving)
            leaving = ruled if leaving is None else Origin(leaving.channels, ruled.total)
        origins[layer.name] = leaving
        yield context, arriving, leaving


def _read(
    architecture: Architecture, layer: Layer, slot: tuple[str, ...], origins: Mapping[str, Origin]
) -> Origin:
    """What arrives in a slot, of the axis that the layer takes for the channels."""
    found = architecture.axis(slot[0])
    axis = read_axis(layer, found)
    if axis != found:
        return identity(architecture[slot[0]].shape[axis])
    return _merge([origins[name] for name in slot])


@dataclass(frozen=True)
class Context:
    """What a rule may look at: the layer, its network, and the teacher's shapes."""

    layer: Layer
    architecture: Architecture
    shapes: Mapping[str, Shape]
    blocks: int

    @property
    def axis(self) -> int:
        """The channel axis of the output."""
        return self.architecture.axis(self.layer.name)

    @property
    def size(self) -> int:
        """The output's channels."""
        return self.layer.shape[self.axis] if self.layer.shape else 1

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

    def input_axis(self, slot: int = 0) -> int:
        """The axis of a slot that the layer takes for the channels."""
        return read_axis(self.layer, self.architecture.axis(self.layer.inputs[slot][0]))


Choose = Callable[[Context, list[Origin]], Origin | None]
Trail = Iterator[tuple[Context, list[Origin], Origin]]


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
    size = context.size
    matching = [origin for origin in arriving if len(origin.channels) == size]
    return _merge(matching) if matching else identity(size)


def _new_channels(context: Context, arriving: Sequence[Origin]) -> Origin:
    layer = context.layer
    total = context.teacher_shape("weight")[0]
    size = context.size
    if layer.op == "linear" and not is_last(layer.shape, context.axis):
        return arriving[0]
    if is_depthwise(layer, context.teacher_shape("weight"), arriving[0].total):
        return _depthwise(arriving[0], size, total)
    return Origin(_prefix(size, total, context.blocks), total)


def _transposed(context: Context, arriving: Sequence[Origin]) -> Origin:
    """The weight of a transposed convolution is [in, out / groups, ...]."""
    layer, teacher = context.layer, context.teacher_shape("weight")
    if is_depthwise(layer, teacher, arriving[0].total):
        return _depthwise(arriving[0], context.size, teacher[0] * teacher[1])
    total = teacher[1] * layer.attrs["groups"]
    return Origin(_prefix(context.size, total, context.blocks), total)


def _listed(context: Context, keep: Keep) -> Origin | None:
    """What `keep` says of a layer's output; channels beyond the teacher's are fresh."""
    name = context.layer.name
    listed = keep.get(name)
    if listed is None:
        return None
    origin = listed if isinstance(listed, Origin) else Origin(np.asarray(listed, np.int64), UNKNOWN)
    if origin.channels.shape != (context.size,):
        raise WeightsError(
            f"keep lists {origin.channels.size} channels for layer {name!r}, which has {context.size}; "
            "list the teacher's channel of each"
        )
    return origin


def is_depthwise(layer: Layer, teacher: Shape, total: int = 1) -> bool:
    """Whether each group of a convolution reads one channel, in the teacher of weight shape `teacher`.

    Args:
        total: how many channels the teacher's reads; of one that is left with a single channel only this tells.
    """
    if layer.op == "conv_transpose":
        groups, out = layer.attrs["groups"], layer.attrs["out_channels"]
        alone = groups == layer.attrs["in_channels"] and max(groups, total) > 1
        return alone and out == teacher[1] * groups  # else groups that are left with one channel
    if layer.op != "conv" or teacher[1] != 1:
        return False
    return layer.attrs["groups"] > 1 or (layer.attrs["in_channels"] == 1 and total > 1)


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
    if context.layer.attrs["dim"] != context.axis:
        return _merge(arriving)
    starts = np.cumsum([0, *(origin.total for origin in arriving)])
    parts = [
        np.where(origin.channels < 0, FRESH, origin.channels + start)
        for origin, start in zip(arriving, starts[:-1], strict=True)
    ]
    return Origin(np.concatenate(parts), int(starts[-1]))


def _reshape(context: Context, arriving: Sequence[Origin]) -> Origin:
    attrs, axis, shape = context.layer.attrs, context.input_axis(), context.input_shape()
    if attrs["mode"] == "split":
        return _split(context, arriving[0]) if attrs["dim"] == axis else arriving[0]
    whole = attrs["mode"] == "flatten"
    start, end = (0, len(shape) - 1) if whole else (attrs["start"], attrs["end"])
    if not start <= axis <= end:
        return arriving[0]
    before, after = math.prod(shape[start:axis]), math.prod(shape[axis + 1 : end + 1])
    channels, total = arriving[0].channels[None, :, None], arriving[0].total
    places = np.arange(before)[:, None, None] * total + channels
    grid = places * after + np.arange(after)  # [before, C, after]
    return Origin(np.where(channels < 0, FRESH, grid).ravel(), before * total * after)


def _split(context: Context, arriving: Origin) -> Origin:
    """[a * c * b] -> [a, c, b]: what the first of the a parts holds; unknown where its channels are not runs of b."""
    sizes = list(context.layer.attrs["sizes"])
    place = sizes.index(-1)
    before, after = math.prod(sizes[:place]), math.prod(sizes[place + 1 :])
    first = arriving.channels[: len(arriving.channels) // before].reshape(-1, after)
    runs = (first == first[:, :1] + np.arange(after)).all(axis=1) & (first[:, 0] % after == 0)
    total = arriving.total // (before * after)
    known = runs & (first[:, 0] >= 0) & (first[:, 0] < total * after)
    return Origin(np.where(known, first[:, 0] // after, FRESH), total)


def _slice(context: Context, arriving: Sequence[Origin]) -> Origin:
    """The first channels of the part: where it begins in the teacher's tensor only `keep` can tell."""
    return identity(context.size) if context.layer.attrs["dim"] == context.axis else arriving[0]


def _gather(context: Context, arriving: Sequence[Origin]) -> Origin:
    attrs = context.layer.attrs
    if attrs["dim"] != context.axis:
        return arriving[0]
    return Origin(arriving[0].channels[attrs["index"]], arriving[0].total)


def _shuffle(context: Context, arriving: Sequence[Origin]) -> Origin:
    """The student's own transposition of [g, n], of channels that the teacher's has put elsewhere."""
    groups, origin = context.layer.attrs["groups"], arriving[0]
    ours = origin.channels.reshape(groups, -1).T.ravel()
    width = max(origin.total // groups, 1)
    theirs = ours % width * groups + ours // width
    return Origin(np.where(ours < 0, FRESH, theirs), origin.total)


def _opaque(context: Context, arriving: Sequence[Origin]) -> Origin:
    return identity(context.size)


def _reduce(context: Context, arriving: Sequence[Origin]) -> Origin:
    if context.input_axis() not in context.layer.attrs["dims"]:
        return arriving[0]
    return identity(context.size)


def _pad(context: Context, arriving: Sequence[Origin]) -> Origin:
    """Exact where the whole of the teacher's tensor arrives; else unknown, so that a sum takes its other terms' channels."""
    if channel_pads(context.layer, context.axis) is None:
        return arriving[0]
    size = context.size
    whole = len(arriving[0].channels) == arriving[0].total
    return identity(size) if whole else Origin(np.full(size, FRESH), size)


_RULES: Mapping[str, Callable[[Context, Sequence[Origin]], Origin]] = {
    "conv": _new_channels,
    "conv_transpose": _transposed,
    "linear": _new_channels,
    "concat": _concat,
    "reshape": _reshape,
    "slice": _slice,
    "gather": _gather,
    "channel_shuffle": _shuffle,
    "reduce": _reduce,
    "opaque": _opaque,
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
        ties = layer.op not in _UNTIED
        for slot in layer.inputs:
            tied = [*slot, layer.name] if ties or is_depthwise(layer, teacher) else slot
            for name in tied[1:]:
                parent[find(name)] = find(tied[0])
        groups = layer.attrs.get("groups", 1)
        alone = layer.op == "group_norm" and groups == layer.attrs["num_channels"]
        if groups > 1 and not alone and not is_depthwise(layer, teacher):
            for name in (layer.name, layer.inputs[0][0]):
                needs[name] = groups
    return _spread_blocks(needs, {name: find(name) for name in parent})


_UNTIED = frozenset(
    {"conv", "conv_transpose", "linear", "concat", "gather", "reshape", "input", "opaque"}
)
"""Operations whose output channels are not those of their inputs, or not in the same places."""


def _spread_blocks(needs: Mapping[str, int], roots: Mapping[str, str]) -> dict[str, int]:
    by_root: dict[str, int] = {}
    for name, blocks in needs.items():
        by_root[roots[name]] = math.lcm(by_root.get(roots[name], 1), blocks)
    return {name: by_root.get(root, 1) for name, root in roots.items()}
