"""Which channels of a network are the same channels: the channel analysis.

The channel axis of every tensor is an ordered list of *blocks* (variable, multiplicity): a convolution opens a new variable, a
concatenation joins lists, a flatten of [C, H, W] multiplies by H * W, and an addition unifies two lists. Unification is union-find with
*refinement*: where block boundaries differ, the larger variable is split. Whatever is not understood freezes the channels it touches.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from raysearch.architecture.graph import Architecture, Layer
from raysearch.architecture.ops import Shape
from raysearch.architecture.parametric import PARAMETRIC
from raysearch.architecture.programs import label
from raysearch.architecture.variables import Blocks, Variables

MAX_BLOCKS = 4096
"""A channel axis of more blocks than this is frozen instead of tracked."""


@dataclass(frozen=True)
class ChannelVariable:
    """Channels that exist or vanish together.

    Attributes:
        size: how many channels the teacher has.
        divisor: what the number of channels must stay divisible by (grouped convolutions).
        frozen: why the number must not change; "" when it may.
        producers: the layers whose parameters create the channels.
        consumers: the layers whose parameters read them.
    """

    size: int
    divisor: int
    frozen: str
    producers: tuple[str, ...]
    consumers: tuple[str, ...]


@dataclass(frozen=True)
class ChannelAnalysis:
    """The channel variables of a network and the channel axes written in them.

    Attributes:
        variables: in the order of their first appearance.
        inputs: for each layer, the blocks of its first slot (() where it has none).
        outputs: for each layer, the blocks of its output.
    """

    variables: tuple[ChannelVariable, ...]
    inputs: tuple[Blocks, ...]
    outputs: tuple[Blocks, ...]


def analyse(architecture: Architecture) -> ChannelAnalysis:
    """Finds the channel variables of a network in one pass over its layers."""
    return _Analyser(architecture).run()


class _Analyser:
    def __init__(self, architecture: Architecture) -> None:
        self.architecture = architecture
        self.variables = Variables()
        self.inputs: list[Blocks] = []
        self.outputs: list[Blocks] = []
        self.owners: dict[str, int] = {}

    def run(self) -> ChannelAnalysis:
        architecture, variables = self.architecture, self.variables
        for position, layer in enumerate(architecture.layers):
            slots = [self.slot(slot) for slot in layer.inputs]
            shapes = [architecture[slot[0]].shape for slot in layer.inputs]
            out = _RULES.get(layer.op, _unknown)(variables, layer, slots, shapes)
            if len(out) > MAX_BLOCKS:
                variables.freeze(out, "its channels are joined too often to follow")
                out = _constant(variables, layer, "its channels are joined too often to follow")
            self.inputs.append(slots[0] if slots else ())
            self.outputs.append(out)
            self.tie_shared(position, layer)
        output = self.outputs[architecture.index[architecture.output]]
        variables.freeze(output, "it is the network's output")
        return self.result()

    def slot(self, producers: tuple[str, ...]) -> Blocks:
        """The channel axis of a slot: the axes of all its producers, unified."""
        first, *rest = (self.outputs[self.architecture.index[name]] for name in producers)
        for other in rest:
            first = self.variables.unify(first, other)
        return first

    def tie_shared(self, position: int, layer: Layer) -> None:
        """Layers that share a parameter share its channels."""
        for entry in layer.params.values():
            first = self.owners.setdefault(entry, position)
            if first == position:
                continue
            if self.architecture.layers[first].op == layer.op:
                self.variables.unify(self.inputs[first], self.inputs[position])
                self.variables.unify(self.outputs[first], self.outputs[position])
            else:
                for index in (first, position):
                    self.variables.freeze(self.inputs[index], "it shares a parameter")
                    self.variables.freeze(self.outputs[index], "it shares a parameter")

    def result(self) -> ChannelAnalysis:
        variables = self.variables
        inputs = [variables.resolve(blocks) for blocks in self.inputs]
        outputs = [variables.resolve(blocks) for blocks in self.outputs]
        number: dict[int, int] = {}
        for blocks in (*outputs, *inputs):
            for root, _ in blocks:
                number.setdefault(root, len(number))
        producers: dict[int, dict[str, None]] = {root: {} for root in number}
        consumers: dict[int, dict[str, None]] = {root: {} for root in number}
        for layer, into, out in zip(self.architecture.layers, inputs, outputs, strict=True):
            if layer.op in _PRODUCERS and not _is_depthwise(layer):
                for root, _ in out:
                    producers[root][layer.name] = None
            if layer.op in _CONSUMERS:
                for root, _ in into:
                    consumers[root][layer.name] = None
        found = tuple(
            ChannelVariable(
                variables.size[root],
                variables.divisor[root],
                variables.frozen[root] or _indivisible(variables, root),
                tuple(producers[root]),
                tuple(consumers[root]),
            )
            for root in number
        )
        return ChannelAnalysis(
            found,
            tuple(tuple((number[root], m) for root, m in blocks) for blocks in inputs),
            tuple(tuple((number[root], m) for root, m in blocks) for blocks in outputs),
        )


_PRODUCERS = frozenset({"conv", "conv_transpose", "linear"})
_CONSUMERS = frozenset({*_PRODUCERS, "batch_norm", *PARAMETRIC})


def _indivisible(variables: Variables, root: int) -> str:
    fits = variables.size[root] % variables.divisor[root] == 0
    return "" if fits else "it crosses the groups of a grouped convolution"


def _is_depthwise(layer: Layer) -> bool:
    """A convolution that handles each channel alone (one input channel is not enough to call it so)."""
    return (
        layer.op in ("conv", "conv_transpose")
        and layer.attrs["groups"] == layer.attrs["in_channels"] > 1
    )


def _constant(variables: Variables, layer: Layer, reason: str) -> Blocks:
    return ((variables.new(layer.shape[0], reason), 1),) if layer.shape else ()


def _unknown(
    variables: Variables, layer: Layer, slots: Sequence[Blocks], shapes: Sequence[Shape]
) -> Blocks:
    reason = f"{layer.name} ({layer.op}) is not understood"
    for blocks in slots:
        variables.freeze(blocks, reason)
    return _constant(variables, layer, reason)


def _opaque(
    variables: Variables, layer: Layer, slots: Sequence[Blocks], shapes: Sequence[Shape]
) -> Blocks:
    reason = f"{layer.name} ({label(layer.attrs['program'])}) is replayed as it is"
    for blocks in slots:
        variables.freeze(blocks, reason)
    return _constant(variables, layer, reason)


def _group_norm(
    variables: Variables, layer: Layer, slots: Sequence[Blocks], shapes: Sequence[Shape]
) -> Blocks:
    groups = layer.attrs["groups"]
    if groups != layer.attrs["num_channels"]:  # else each channel is normalised alone
        variables.divide(slots[0], groups)
    return slots[0]


def _input(
    variables: Variables, layer: Layer, slots: Sequence[Blocks], shapes: Sequence[Shape]
) -> Blocks:
    return _constant(variables, layer, "it is the network's input")


def _same(
    variables: Variables, layer: Layer, slots: Sequence[Blocks], shapes: Sequence[Shape]
) -> Blocks:
    if shapes[0][:1] != layer.shape[:1]:
        return _unknown(variables, layer, slots, shapes)
    return slots[0]


def _conv(
    variables: Variables, layer: Layer, slots: Sequence[Blocks], shapes: Sequence[Shape]
) -> Blocks:
    attrs = layer.attrs
    if _is_depthwise(layer):
        multiplier = attrs["out_channels"] // attrs["in_channels"]
        return tuple((variable, m * multiplier) for variable, m in slots[0])
    out: Blocks = ((variables.new(attrs["out_channels"]), 1),)
    if attrs["groups"] > 1:
        variables.divide(slots[0], attrs["groups"])
        variables.divide(out, attrs["groups"])
    return out


def _linear(
    variables: Variables, layer: Layer, slots: Sequence[Blocks], shapes: Sequence[Shape]
) -> Blocks:
    if len(layer.shape) > 1:  # it acts on the last axis, the channels are the first
        return slots[0]
    return ((variables.new(layer.attrs["out_features"]), 1),)


def _reduce(
    variables: Variables, layer: Layer, slots: Sequence[Blocks], shapes: Sequence[Shape]
) -> Blocks:
    if 0 not in layer.attrs["dims"]:
        return slots[0]
    reason = f"{layer.name} reduces over the channels"
    variables.freeze(slots[0], reason)
    return _constant(variables, layer, reason)


def _softmax(
    variables: Variables, layer: Layer, slots: Sequence[Blocks], shapes: Sequence[Shape]
) -> Blocks:
    if layer.attrs["dim"] in (0, -len(layer.shape)):
        variables.freeze(slots[0], f"{layer.name} normalises over the channels")
    return slots[0]


def _broadcast(
    variables: Variables, layer: Layer, slots: Sequence[Blocks], shapes: Sequence[Shape]
) -> Blocks:
    """Operands that bring all channels are one; those that are broadcast over channels stay as they are."""
    full: Blocks | None = None
    for blocks, shape in zip(slots, shapes, strict=True):
        if len(shape) < len(layer.shape) or shape[:1] != layer.shape[:1]:
            variables.freeze(blocks, f"{layer.name} broadcasts it over the channels")
        else:
            full = blocks if full is None else variables.unify(full, blocks)
    return full if full is not None else _unknown(variables, layer, slots, shapes)


def _concat(
    variables: Variables, layer: Layer, slots: Sequence[Blocks], shapes: Sequence[Shape]
) -> Blocks:
    if layer.attrs["dim"] in (0, -len(layer.shape)):
        return tuple(block for blocks in slots for block in blocks)
    first = slots[0]
    for blocks in slots[1:]:
        first = variables.unify(first, blocks)
    return first


def _reshape(
    variables: Variables, layer: Layer, slots: Sequence[Blocks], shapes: Sequence[Shape]
) -> Blocks:
    if layer.attrs["mode"] != "flatten":
        return _unknown(variables, layer, slots, shapes)
    places = math.prod(shapes[0][1:])
    return tuple((variable, m * places) for variable, m in slots[0])


def channel_pads(layer: Layer) -> tuple[int, int] | None:
    """How many channels a `pad` layer adds (before, after); None where it leaves the channels alone."""
    pads = layer.attrs["pads"]
    first = 2 * (len(layer.shape) - 1)
    if len(pads) <= first or not any(pads[first : first + 2]):
        return None
    return pads[first], pads[first + 1]


def _pad(
    variables: Variables, layer: Layer, slots: Sequence[Blocks], shapes: Sequence[Shape]
) -> Blocks:
    added = channel_pads(layer)
    if added is None:
        return slots[0]
    if layer.attrs["mode"] != "constant" or min(added) < 0:
        return _unknown(variables, layer, slots, shapes)
    before, after = (((variables.new(n), 1),) if n else () for n in added)
    return (*before, *slots[0], *after)


_Rule = Callable[[Variables, Layer, Sequence[Blocks], Sequence[Shape]], Blocks]
_RULES: Mapping[str, _Rule] = {
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
    "reduce": _reduce,
    "add": _broadcast,
    "binary": _broadcast,
    "concat": _concat,
    "reshape": _reshape,
    "pad": _pad,
    "softmax": _softmax,
    **dict.fromkeys(PARAMETRIC, _same),
    "group_norm": _group_norm,
    "opaque": _opaque,
}
