"""Removal with refit: any layer that keeps the size of the feature map may go, and its neighbours take the channels that arrive.

Removing a layer makes the channels that it reads and those that it writes one. Where their numbers differ, one side takes the other's:

    1. a frozen side gives the number (the network's input and output);
    2. else the side with more producers does (a residual stream);
    3. else the input does, as in N2N.

The action is refused, the layer kept, where a frozen side meets several producers of another number, where the side that must
change is not one class of channels, or where a grouped convolution does not take the new number. Layers go one after the other, in the
order of the network; the student is thus a function of the executed actions alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from raysearch.architecture.apply import apply_edits
from raysearch.architecture.channels import ChannelAnalysis, analyse
from raysearch.architecture.checks import infer_shapes
from raysearch.architecture.graph import Architecture
from raysearch.architecture.groups import channel_map, group_channels
from raysearch.architecture.refit.rules import Refit, Rules, may_remove
from raysearch.architecture.variables import Blocks
from raysearch.errors import InvalidArchitecture


def remove_layers(
    network: Architecture, remove: Sequence[bool] | np.ndarray, rules: Rules | None = None
) -> Refit:
    """Removes layers; each becomes an identity of its own name.

    Args:
        network: what is edited.
        remove: [L] which layers to remove.
        rules: what stays on principle.

    Returns:
        The student and which layers were removed: a subset of `remove`.

    Raises:
        InvalidArchitecture: `remove` has another length, or is not boolean.
    """
    asked = np.asarray(remove)
    if asked.shape != (len(network.layers),) or asked.dtype != bool:
        raise InvalidArchitecture(
            f"remove has shape {asked.shape} and type {asked.dtype}: give a boolean for each of {len(network.layers)} layers"
        )
    removal = _Removal(network)
    for place in np.flatnonzero(asked & may_remove(network, rules or Rules())).tolist():
        removal.try_to_remove(place)
    return Refit(network, removal.finish(), removal.executed)


class _Removal:
    """The state between two removals.

    Attributes:
        student: the network so far, without the layers in `pending`.
        pending: layers that go without changing any number of channels, taken out with the next one that does.
        executed: [L] bool.
    """

    def __init__(self, network: Architecture) -> None:
        self.student = network
        self.analysis = analyse(network)
        self.pending: set[int] = set()
        self.executed = np.zeros(len(network.layers), bool)

    def try_to_remove(self, place: int) -> None:
        into, out = self.analysis.inputs[place], self.analysis.outputs[place]
        if into != out:
            sizes = meeting_sizes(self.analysis, into, out)
            student = None if sizes is None else self.resized({*self.pending, place}, sizes)
            if student is None:
                return
            self.student, self.analysis, self.pending = student, analyse(student), set()
        else:
            self.pending.add(place)
        self.executed[place] = True

    def finish(self) -> Architecture:
        if self.pending:
            student = self.resized(self.pending, {})
            assert student is not None, "removing layers that keep their shape is always legal"
            self.student, self.pending = student, set()
        return self.student

    def resized(self, remove: set[int], sizes: dict[int, int]) -> Architecture | None:
        """The student without some layers and with other sizes of channel variables; None where it is not a network."""
        student = with_sizes(self.student, self.analysis, sizes, remove)
        try:
            shapes = infer_shapes(student)
        except InvalidArchitecture:
            return None
        stated = tuple(layer.shape for layer in student.layers)
        same = student[student.output].shape == self.student[self.student.output].shape
        return student if shapes == stated and same else None


def with_sizes(
    network: Architecture,
    analysis: ChannelAnalysis,
    sizes: dict[int, int],
    remove: set[int] | frozenset[int] = frozenset(),
) -> Architecture:
    """A network with other sizes of some free channel variables and without some layers."""
    grouping = group_channels(analysis)
    widths = [group.size for group in grouping.free]
    for variable, size in sizes.items():
        widths[grouping.group_of[variable]] = size
    return apply_edits(network, channel_map(network, analysis, grouping), remove, widths, ())


def meeting_sizes(analysis: ChannelAnalysis, into: Blocks, out: Blocks) -> dict[int, int] | None:
    """The variables that change so that two channel axes have one length, with their new sizes; None where that is refused."""
    pairs = [(into, out)]
    if len(into) == len(out) and all(a[1] == b[1] for a, b in zip(into, out, strict=True)):
        pairs = [((a,), (b,)) for a, b in zip(into, out, strict=True)]
    sizes: dict[int, int] = {}
    kept: set[int] = set()
    for left, right in pairs:
        if left == right or _length(analysis, left) == _length(analysis, right):
            kept |= {variable for variable, _ in (*left, *right)}
            continue
        sides = _winner_and_loser(analysis, left, right)
        if sides is None:
            return None
        winner, loser = sides
        size = _new_size(analysis, winner, loser)
        variable = loser[0][0]
        if size is None or sizes.setdefault(variable, size) != size:
            return None
        kept |= {number for number, _ in winner}
    return None if kept & set(sizes) else sizes


def _winner_and_loser(
    analysis: ChannelAnalysis, into: Blocks, out: Blocks
) -> tuple[Blocks, Blocks] | None:
    frozen = [_is_frozen(analysis, blocks) for blocks in (into, out)]
    count = [_num_producers(analysis, blocks) for blocks in (into, out)]
    if any(frozen):
        loser = 0 if frozen[1] else 1
        if all(frozen) or count[loser] > 1:
            return None
        return (out, into) if loser == 0 else (into, out)
    return (out, into) if count[1] > count[0] else (into, out)


def _new_size(analysis: ChannelAnalysis, winner: Blocks, loser: Blocks) -> int | None:
    """What the one variable of the loser becomes."""
    if len(loser) != 1:
        return None
    variable, multiplicity = loser[0]
    size, rest = divmod(_length(analysis, winner), multiplicity)
    divides = not rest and size % analysis.variables[variable].divisor == 0
    return size if size and divides else None


def _length(analysis: ChannelAnalysis, blocks: Blocks) -> int:
    return sum(analysis.variables[variable].size * m for variable, m in blocks)


def _is_frozen(analysis: ChannelAnalysis, blocks: Blocks) -> bool:
    return any(analysis.variables[variable].frozen for variable, _ in blocks)


def _num_producers(analysis: ChannelAnalysis, blocks: Blocks) -> int:
    return len({name for v, _ in blocks for name in analysis.variables[v].producers})
