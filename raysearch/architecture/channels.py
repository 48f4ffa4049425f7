"""Which channels of a network are the same channels: the channel analysis.

The channel axis of every tensor (see `axes.py`) is an ordered list of *blocks* (variable, multiplicity): a convolution opens a new variable, a
concatenation joins lists, a flatten of [C, H, W] multiplies by H * W, and an addition unifies two lists. Unification is union-find with
*refinement*: where block boundaries differ, the larger variable is split. What each operation does is in `channel_rules.py`;
whatever is not understood freezes the channels it touches.
"""

from __future__ import annotations

from dataclasses import dataclass

from raysearch.architecture.axes import is_last, read_axis
from raysearch.architecture.channel_rules import (
    Site,
    channel_blocks,
    channel_pads,
    constant,
    is_depthwise,
)
from raysearch.architecture.graph import Architecture, Layer
from raysearch.architecture.parametric import PARAMETRIC, channel_entry
from raysearch.architecture.variables import Blocks, Variables


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
            site = self.site(position, layer)
            self.inputs.append(site.slots[0] if site.slots else ())
            self.outputs.append(channel_blocks(variables, site))
            self.tie_shared(position, layer)
        output = self.outputs[architecture.index[architecture.output]]
        variables.freeze(output, "it is the network's output")
        return self.result()

    def site(self, position: int, layer: Layer) -> Site:
        """What a layer reads."""
        axes, index = self.architecture.axes, self.architecture.index
        shapes = tuple(self.architecture[slot[0]].shape for slot in layer.inputs)
        found = [axes[index[slot[0]]] for slot in layer.inputs]
        read = tuple(read_axis(layer, axis) for axis in found)
        slots = []
        for slot, own, axis, shape in zip(layer.inputs, found, read, shapes, strict=True):
            blocks = self.slot(slot)
            if own != axis:
                reason = f"{layer.name} does not take it for channels"
                self.variables.freeze(blocks, reason)
                blocks = constant(self.variables, shape, axis, reason)
            slots.append(blocks)
        return Site(layer, tuple(slots), read, shapes, axes[position])

    def slot(self, producers: tuple[str, ...]) -> Blocks:
        """The channel axis of a slot: the axes of all its producers, unified."""
        index, axes = self.architecture.index, self.architecture.axes
        first, *rest = (self.outputs[index[name]] for name in producers)
        if len({axes[index[name]] for name in producers}) > 1:
            for blocks in (first, *rest):
                self.variables.freeze(blocks, "its channels are added to those of another axis")
            return first
        for other in rest:
            first = self.variables.unify(first, other)
        return first

    def tie_shared(self, position: int, layer: Layer) -> None:
        """Layers that share a parameter share its channels."""
        for entry in layer.params.values():
            first = self.owners.setdefault(entry, position)
            if first == position or (self.is_blind(first) and self.is_blind(position)):
                continue
            if self.reads_alike(first, position):
                self.variables.unify(self.inputs[first], self.inputs[position])
                self.variables.unify(self.outputs[first], self.outputs[position])
            else:
                for index in (first, position):
                    self.variables.freeze(self.inputs[index], "it shares a parameter")
                    self.variables.freeze(self.outputs[index], "it shares a parameter")

    def entry(self, place: int) -> int | None:
        """The axis of a parametric layer's parameters that follows the channels."""
        layer = self.architecture.layers[place]
        axis = self.architecture.axes[place]
        return channel_entry(layer.op, layer.attrs, len(layer.shape), axis)

    def is_blind(self, place: int) -> bool:
        """Whether a layer's parameters do not know the channels (one slope for all, a gate)."""
        return self.architecture.layers[place].op in PARAMETRIC and self.entry(place) is None

    def reads_alike(self, first: int, second: int) -> bool:
        """Whether two layers' weights belong to the channels in the same way."""
        one, other = (self.architecture.layers[place] for place in (first, second))
        if one.op != other.op:
            return False
        if one.op in PARAMETRIC:
            return self.entry(first) == self.entry(second)
        axes = self.architecture.axes
        return is_last(one.shape, axes[first]) == is_last(other.shape, axes[second]) or (
            one.op != "linear"
        )

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
            if layer.op == "linear" and not is_last(
                layer.shape, self.architecture.axis(layer.name)
            ):
                continue  # its weights are those of another axis
            if layer.op in _PRODUCERS and not is_depthwise(layer):
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
    return "" if fits else "it crosses the groups of a grouped convolution or of a shuffle"


__all__ = ["ChannelAnalysis", "ChannelVariable", "analyse", "channel_pads"]
