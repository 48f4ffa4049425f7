"""Which of the teacher's channels a student keeps: one ranking for each channel variable.

Channels that are coupled (by residual sums, concatenations, depthwise convolutions, ...) are one variable (`architecture.channels`) and
have one ranking, so every tensor of a student holds the same channels wherever the teacher's tensors do.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from raysearch.architecture.channels import ChannelAnalysis, ChannelVariable, analyse, channel_pads
from raysearch.architecture.graph import Architecture, Layer
from raysearch.architecture.ops import Shape
from raysearch.architecture.variables import Blocks
from raysearch.errors import WeightsError
from raysearch.models.importance import creates_channels
from raysearch.models.provenance import FRESH, Context, Origin, walk

Scores = Sequence[np.ndarray]
"""For each channel variable of the teacher, in the order of `analyse`, [size] the importance of its channels; higher is kept."""


@dataclass(frozen=True, eq=False)
class ChannelRanking:
    """A teacher's channels in the order in which students keep them.

    Attributes:
        teacher: the network that students are made of.
        scores: see `Scores`; None: the first channels are kept.
    """

    teacher: Architecture
    scores: Scores | None = None

    def __post_init__(self) -> None:
        if self.scores is None:
            return
        wanted = [variable.size for variable in self.analysis.variables]
        found = [len(values) for values in self.scores]
        if found != wanted:
            raise WeightsError(
                f"the importance scores are for {len(found)} channel variables of {sum(found)} channels, but the teacher has "
                f"{len(wanted)} of {sum(wanted)}; compute them from this teacher"
            )

    @cached_property
    def analysis(self) -> ChannelAnalysis:
        """The teacher's channel variables."""
        return analyse(self.teacher)

    @cached_property
    def shapes(self) -> dict[str, Shape]:
        """The shapes of the teacher's state by name."""
        found: dict[str, Shape] = {}
        for layer in self.teacher.layers:
            for role, shape in {**layer.param_shapes, **layer.buffer_shapes}.items():
                found[layer.params.get(role, f"{layer.name}.{role}")] = shape
        return found

    def keep(self, student: Architecture) -> dict[str, Origin]:
        """Layer name -> the teacher's channels that the layer's output channels are.

        All layers are listed. Where channels do not stand where the analysis has them (behind a shuffle), or a width does not
        follow from the teacher's variables, the rules of `provenance` hold.
        """
        chosen = self._by_variable(student)
        moved: set[str] = set()

        def choose(context: Context, arriving: list[Origin]) -> Origin | None:
            layer = context.layer
            reads_moved = any(name in moved for slot in layer.inputs for name in slot)
            if layer.op == "channel_shuffle" or (reads_moved and not self._is_new(layer)):
                moved.add(layer.name)
                return self._part(context, arriving)
            return chosen.get(layer.name)

        trail = walk(student, self.shapes, choose)
        return {context.layer.name: leaving for context, _, leaving in trail}

    def _is_new(self, layer: Layer) -> bool:
        """Whether a student's layer has channels of its own, whatever it reads."""
        if layer.name not in self.teacher.index:
            return layer.op != "gather"
        return layer.op != "identity" and creates_channels(self.teacher, self.teacher[layer.name])

    def _part(self, context: Context, arriving: list[Origin]) -> Origin | None:
        """What a slice of moved channels holds; None: it is no slice of channels."""
        layer = context.layer
        if layer.op != "slice" or layer.attrs["dim"] != context.axis:
            return None
        theirs = self.teacher[layer.name]
        if theirs.op != "slice":
            return None
        start, size = theirs.attrs["start"], theirs.shape[context.axis]
        places = arriving[0].channels[layer.attrs["start"] : layer.attrs["stop"]] - start
        return Origin(np.where((places < 0) | (places >= size), FRESH, places), size)

    def _by_variable(self, student: Architecture) -> dict[str, Origin]:
        """The channels of every layer as the analysis has them, where the student's widths follow from it."""
        teacher = self.teacher
        widths = variable_widths(student, teacher, self.analysis)
        kept = [
            None if width is None else self._kept(number, width)
            for number, width in enumerate(widths)
        ]
        found = {}
        for layer, axis, blocks in zip(
            teacher.layers, teacher.axes, self.analysis.outputs, strict=True
        ):
            channels = self._axis(blocks, kept)
            ours = student.index.get(layer.name)
            if channels is None or ours is None:
                continue
            shape = student.layers[ours].shape
            if len(shape) == len(layer.shape) and len(channels) == shape[axis]:
                found[layer.name] = Origin(channels, layer.shape[axis])
        return found

    def _kept(self, number: int, width: int) -> np.ndarray:
        """[width] a variable's kept channels, ascending; numbers from its size on are channels that the teacher lacks."""
        variable = self.analysis.variables[number]
        if self.scores is None:
            scores = np.zeros(variable.size)
        else:
            scores = np.asarray(self.scores[number], np.float64)
        blocks = variable.divisor if _divides(variable, width) else 1
        return best_of_blocks(scores, width, blocks)

    def _axis(self, blocks: Blocks, kept: Sequence[np.ndarray | None]) -> np.ndarray | None:
        """[C] the channels of an axis; None where a variable's width is not known."""
        start, parts = 0, []
        for variable, multiplicity in blocks:
            own, size = kept[variable], self.analysis.variables[variable].size
            if own is None:
                return None
            places = own[:, None] * multiplicity + np.arange(multiplicity)  # [W, m]
            places = np.where(own[:, None] < size, start + places, FRESH)
            parts.append(places.ravel())
            start += size * multiplicity
        return np.concatenate(parts) if parts else None


def keep_sets(
    student: Architecture, teacher: Architecture, scores: Scores | None = None
) -> dict[str, Origin]:
    """The `keep` of `build(student, inherit_from=..., keep=...)`.

    Args:
        student: derived from `teacher`, whose layers' names it has.
        teacher: the network that was traced.
        scores: from `raysearch.models.importance`; None: the first channels of every variable.

    Raises:
        WeightsError: the scores are another teacher's.
    """
    return ChannelRanking(teacher, scores).keep(student)


def best_of_blocks(scores: np.ndarray, width: int, blocks: int = 1) -> np.ndarray:
    """The indices of the highest scores, equally many in each of `blocks` equal blocks, ascending.

    Among equal scores the first wins; what is not a number is least.

    Args:
        scores: [N].
        width: how many to take; beyond N, the indices just go on.
    """
    if width >= len(scores):
        return np.arange(width)
    grid = np.nan_to_num(scores, nan=-np.inf, neginf=-np.inf).reshape(blocks, -1)
    order = np.argsort(-grid, axis=1, kind="stable")[:, : width // blocks]
    starts = np.arange(blocks)[:, None] * grid.shape[1]
    return np.sort((order + starts).ravel())  # [width]


def variable_widths(
    student: Architecture, teacher: Architecture, analysis: ChannelAnalysis
) -> list[int | None]:
    """How many channels of each of the teacher's variables a student has; None where its layers do not tell."""
    equations = list(_equations(student, teacher, analysis))
    widths: list[int | None] = [None] * len(analysis.variables)
    found = True
    while found:
        found = False
        for blocks, total in equations:
            unknown = {variable for variable, _ in blocks if widths[variable] is None}
            if len(unknown) != 1:
                continue
            (variable,) = unknown
            rest = total - sum((widths[v] or 0) * m for v, m in blocks)
            times = sum(m for v, m in blocks if v == variable)
            if rest >= 0 and rest % times == 0:
                widths[variable] = rest // times
                found = True
    return widths


def _equations(
    student: Architecture, teacher: Architecture, analysis: ChannelAnalysis
) -> Iterator[tuple[Blocks, int]]:
    """(blocks, how many channels they have in the student); removed layers say nothing of their own channels."""
    for layer, axis, into, blocks in zip(
        teacher.layers, teacher.axes, analysis.inputs, analysis.outputs, strict=True
    ):
        position = student.index.get(layer.name)
        if position is None or not layer.shape:
            continue
        ours = student.layers[position]
        if ours.op != layer.op or len(ours.shape) != len(layer.shape):
            continue
        yield blocks, ours.shape[axis]
        added = channel_pads(layer, axis) if layer.op == "pad" else None
        if added is not None and (now := channel_pads(ours, axis)) is not None:
            yield _leading(blocks, analysis, added[0]), now[0]
        if layer.op == "slice" and layer.attrs["dim"] == axis:
            yield _leading(into, analysis, layer.attrs["start"]), ours.attrs["start"]


def _leading(blocks: Blocks, analysis: ChannelAnalysis, channels: int) -> Blocks:
    """The blocks that make up the first of the teacher's channels."""
    sizes = np.cumsum([0, *(analysis.variables[v].size * m for v, m in blocks)])
    return blocks[: int(np.searchsorted(sizes, channels))]


def _divides(variable: ChannelVariable, width: int) -> bool:
    return math.gcd(variable.size, variable.divisor, width) == variable.divisor
