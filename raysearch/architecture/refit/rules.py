"""What N2N's policies may act on, and what comes of their actions.

Notation: L layers of the network (all of them, the input included), columns of shrinkage factors in the order of `FACTORS`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from raysearch.architecture.axes import other_axes
from raysearch.architecture.channels import ChannelAnalysis, analyse
from raysearch.architecture.encoding import layer_type
from raysearch.architecture.graph import Architecture, Layer
from raysearch.architecture.legal import REMOVABLE_OPS
from raysearch.architecture.paths import cut_vertices, innermost_blocks
from raysearch.architecture.view import view
from raysearch.errors import ConfigError

FACTORS = ("filters", "kernel", "padding")
"""What a layer's factors multiply: output channels, window size, padding."""
FIXED = ("reference", "paper")


@dataclass(frozen=True)
class Rules:
    """What is left alone on principle.

    Attributes:
        fixed: "reference" (the authors' code): the first and the last layer, strided convolutions, linear layers, average pools
            and shortcuts stay; inside residual blocks only the number of filters changes. "paper": whatever the graph allows.
        min_channels: no layer gets fewer channels by shrinking, unless it has fewer (10 in the authors' code).
        free_padding: windows on a layer that all paths lead through may change the size of the feature map; the linear layer
            behind it is bound to what arrives. False: sizes stay everywhere.
    """

    fixed: str = "reference"
    min_channels: int = 10
    free_padding: bool = True

    def __post_init__(self) -> None:
        if self.fixed not in FIXED:
            raise ConfigError(f"fixed is {self.fixed!r}: choose one of {', '.join(FIXED)}")
        if isinstance(self.min_channels, bool) or self.min_channels < 1:
            raise ConfigError(f"min_channels is {self.min_channels!r}: give at least 1")


@dataclass(frozen=True, eq=False)
class Refit:
    """A student and the actions that made it.

    Attributes:
        network: what was edited.
        student: what came of it.
        actions: what was executed; applying it again gives the same student. Removal: [L] bool. Shrinkage: [L, 3] float64, 1 where
            nothing was done, and the class's factor at every producer of a class of channels.
    """

    network: Architecture
    student: Architecture
    actions: np.ndarray

    @property
    def is_smaller(self) -> bool:
        """Whether the student has fewer parameters: refitting can widen layers, and N2N rejects such students."""
        return self.student.num_params < self.network.num_params


def may_remove(network: Architecture, rules: Rules) -> np.ndarray:
    """Which layers a removal policy decides on: [L] bool.

    Layers of one input slot that keep the size of the feature map. Some actions are refused all the same, where channels do not fit
    (see `removal.py`).
    """
    seen, blocks = view(network), innermost_blocks(network)
    allowed = np.zeros(len(network.layers), bool)
    for place in seen.listed:
        layer = network.layers[place]
        allowed[place] = keeps_size(network, layer)
        if allowed[place] and rules.fixed == "reference":
            block = blocks.get(place)
            shortcut = block is not None and place not in block.longest
            ends = place in (seen.listed[0], seen.listed[-1])
            allowed[place] = not (ends or shortcut or is_fixed(layer))
    return allowed


def may_shrink(network: Architecture, rules: Rules) -> np.ndarray:
    """Which factors a shrinkage policy decides on: [L, 3] bool; the filters of a class at its first producer only."""
    allowed = np.zeros((len(network.layers), len(FACTORS)), bool)
    for producer in deciding_producers(network, analyse(network), rules):
        if producer is not None:
            allowed[network.index[producer], 0] = True
    cuts, blocks = cut_vertices(network), innermost_blocks(network)
    for place, layer in enumerate(network.layers):
        if not has_window(layer):
            continue
        if rules.fixed == "reference" and (place in blocks or is_fixed(layer)):
            continue
        allowed[place, 1] = max(layer.attrs["kernel"]) > 2
        allowed[place, 2] = rules.free_padding and place in cuts and any(layer.attrs["padding"])
    return allowed


def deciding_producers(
    network: Architecture, analysis: ChannelAnalysis, rules: Rules
) -> list[str | None]:
    """For each channel variable the layer whose factor counts; None where the number of channels stays."""
    found: list[str | None] = []
    for variable in analysis.variables:
        first = next(iter(variable.producers), None)
        if variable.frozen or first is None:
            found.append(None)
        else:
            fixed = rules.fixed == "reference" and is_fixed(network[first])
            found.append(None if fixed else first)
    return found


def keeps_size(network: Architecture, layer: Layer) -> bool:
    """A layer that removal understands: one input slot, one size of feature map, and not the output."""
    if layer.op not in REMOVABLE_OPS or len(layer.inputs) != 1 or layer.name == network.output:
        return False
    source, axis = layer.inputs[0][0], network.axis(layer.name)
    into = network[source].shape
    same_axis = len(into) == len(layer.shape) and network.axis(source) == axis
    return same_axis and other_axes(into, axis) == other_axes(layer.shape, axis)


def has_window(layer: Layer) -> bool:
    """A layer with a window whose size can change: its kernel and padding are lists of numbers, one an axis."""
    kernel, padding = layer.attrs.get("kernel"), layer.attrs.get("padding")
    if not isinstance(kernel, list) or not isinstance(padding, list):
        return False
    return len(kernel) == len(padding) > 0


def is_fixed(layer: Layer) -> bool:
    """What the authors' code never changes wherever it stands."""
    strided = layer.op != "pool" and max(layer.attrs.get("stride") or [1]) > 1
    return strided or layer_type(layer) in ("linear", "avgpool")
