"""Channel groups: the width variables of the search.

"coupled" gives every channel variable its own width (DepGraph's dependency groups); "by_size" lets all free variables of one size share
a width (ESNAC, section 4: four widths for a CIFAR ResNet), after which more layers can be removed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from raysearch.architecture.axes import read_axis
from raysearch.architecture.channels import ChannelAnalysis, ChannelVariable, channel_pads
from raysearch.architecture.graph import Architecture, Layer
from raysearch.architecture.variables import Blocks
from raysearch.errors import ConfigError

GROUPINGS = ("coupled", "by_size")
WIDE = 64
"""From this many channels on, widths are rounded to multiples of `WIDE_DIVISOR` unless asked otherwise: odd widths are slower."""
WIDE_DIVISOR = 8


@dataclass(frozen=True)
class ChannelGroup:
    """Channels that must shrink together.

    Attributes:
        id: its position among the groups of the space, and in the widths of edits.
        size: the teacher's number of channels.
        divisor: the search uses multiples of it, and `size`.
        min_channels: the smallest width that the search uses, a multiple of the divisor or `size`.
        producers: names of the layers whose parameters create the channels.
        consumers: names of the layers whose parameters read them.
        frozen: the width must stay `size`.
        reason: why it is frozen, else "".
        alignment: any legal width is a multiple of it (grouped convolutions).
    """

    id: int
    size: int
    divisor: int
    min_channels: int
    producers: tuple[str, ...]
    consumers: tuple[str, ...]
    frozen: bool = False
    reason: str = ""
    alignment: int = 1


@dataclass(frozen=True)
class Grouping:
    """The groups of a space and the variables they stand for.

    Attributes:
        free: the groups that the search may shrink.
        frozen: the others, one for each frozen variable.
        group_of: for each channel variable the position in `free`, or -1.
    """

    free: tuple[ChannelGroup, ...]
    frozen: tuple[ChannelGroup, ...]
    group_of: tuple[int, ...]


def group_channels(
    analysis: ChannelAnalysis,
    *,
    grouping: str = "coupled",
    divisor: int | None = None,
    min_channels: int = 1,
) -> Grouping:
    """Makes the width variables of a search.

    Args:
        analysis: the teacher's channel variables.
        grouping: "coupled" or "by_size".
        divisor: widths are multiples of it; None: 1 for narrow groups, 8 from 64 channels up.
        min_channels: the smallest width wanted (a group that is smaller keeps its size).

    Raises:
        ConfigError: where an argument is not one of the above.
    """
    if grouping not in GROUPINGS:
        raise ConfigError(f"space.grouping is {grouping!r}: choose one of {', '.join(GROUPINGS)}")
    for field, value in (("divisor", divisor), ("min_channels", min_channels)):
        if value is not None and (
            isinstance(value, bool) or not isinstance(value, int) or value < 1
        ):
            raise ConfigError(f"space.{field} is {value!r}: give a whole number of at least 1")
    members: dict[object, list[int]] = {}
    for number, variable in enumerate(analysis.variables):
        if not variable.frozen:
            key = variable.size if grouping == "by_size" else (number,)
            members.setdefault(key, []).append(number)
    group_of = [-1] * len(analysis.variables)
    free = []
    for numbers in members.values():
        for number in numbers:
            group_of[number] = len(free)
        variables = [analysis.variables[number] for number in numbers]
        free.append(_free_group(len(free), variables, divisor, min_channels))
    frozen = [
        _frozen_group(len(free) + position, variable)
        for position, variable in enumerate(v for v in analysis.variables if v.frozen)
    ]
    return Grouping(tuple(free), tuple(frozen), tuple(group_of))


def _free_group(
    number: int, variables: Sequence[ChannelVariable], divisor: int | None, min_channels: int
) -> ChannelGroup:
    size = variables[0].size
    alignment = math.lcm(*(variable.divisor for variable in variables))
    wanted = divisor or (WIDE_DIVISOR if size >= WIDE else 1)
    step = math.lcm(alignment, wanted)
    if step > size:
        step = alignment
    return ChannelGroup(
        id=number,
        size=size,
        divisor=step,
        min_channels=min(size, -(-min_channels // step) * step),
        producers=_names(variable.producers for variable in variables),
        consumers=_names(variable.consumers for variable in variables),
        alignment=alignment,
    )


def _frozen_group(number: int, variable: ChannelVariable) -> ChannelGroup:
    return ChannelGroup(
        id=number,
        size=variable.size,
        divisor=variable.size,
        min_channels=variable.size,
        producers=variable.producers,
        consumers=variable.consumers,
        frozen=True,
        reason=variable.frozen,
        alignment=variable.size,
    )


def _names(lists: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for names in lists for name in names))


@dataclass(frozen=True, eq=False)
class Affine:
    """Channel numbers as affine functions of the widths: fixed + matrix @ widths.

    Attributes:
        matrix: [L, G] int64, one row a layer.
        fixed: [L] int64.
    """

    matrix: np.ndarray
    fixed: np.ndarray

    def at(self, widths: np.ndarray) -> np.ndarray:
        """The numbers for widths [G]: [L] int64."""
        return self.fixed + self.matrix @ widths


@dataclass(frozen=True, eq=False)
class ChannelMap:
    """The channel numbers of every layer.

    Attributes:
        into: of the first input slot.
        out: of the output.
        before: of the channels that a `pad` layer puts before its input's, or that a `slice` of channels leaves out before
            its own (0 for all others).
        axes: the channel axis of every output.
        read: the channel axis of the first input slot, as the layer reads it.
    """

    into: Affine
    out: Affine
    before: Affine
    axes: tuple[int, ...]
    read: tuple[int, ...]


def channel_map(teacher: Architecture, analysis: ChannelAnalysis, grouping: Grouping) -> ChannelMap:
    """Writes every layer's channel numbers in the widths of the free groups."""
    before, rest = [], []
    for place, layer in enumerate(teacher.layers):
        blocks, part = _leading(analysis, *_skipped(teacher, analysis, place, layer))
        before.append(blocks)
        rest.append(part)
    axes = teacher.axes
    read = tuple(
        read_axis(layer, teacher.axis(layer.inputs[0][0]) if layer.inputs else 0)
        for layer in teacher.layers
    )
    return ChannelMap(
        _affine(analysis.inputs, analysis, grouping),
        _affine(analysis.outputs, analysis, grouping),
        _affine(before, analysis, grouping, rest),
        axes,
        read,
    )


def _skipped(
    teacher: Architecture, analysis: ChannelAnalysis, place: int, layer: Layer
) -> tuple[Blocks, int]:
    """The axis, and how many of its first channels are not the layer's input (pad) or output (slice)."""
    axis = teacher.axes[place]
    if layer.op == "pad":
        return analysis.outputs[place], (channel_pads(layer, axis) or (0, 0))[0]
    if layer.op == "slice" and layer.attrs["dim"] == axis:
        return analysis.inputs[place], layer.attrs["start"]
    return (), 0


def _affine(
    lists: Sequence[Blocks],
    analysis: ChannelAnalysis,
    grouping: Grouping,
    rest: Sequence[int] = (),
) -> Affine:
    matrix = np.zeros((len(lists), len(grouping.free)), np.int64)
    fixed = np.zeros(len(lists), np.int64)
    fixed[: len(rest)] = rest
    for row, blocks in enumerate(lists):
        for variable, multiplicity in blocks:
            group = grouping.group_of[variable]
            if group >= 0:
                matrix[row, group] += multiplicity
            else:
                fixed[row] += analysis.variables[variable].size * multiplicity
    return Affine(matrix, fixed)


def _leading(analysis: ChannelAnalysis, blocks: Blocks, channels: int) -> tuple[Blocks, int]:
    """The first blocks that fit into that many of the teacher's channels, and what is left of these (within a frozen block)."""
    for count, (variable, multiplicity) in enumerate(blocks):
        width = analysis.variables[variable].size * multiplicity
        if width > channels:
            return blocks[:count], channels
        channels -= width
    return blocks, channels
