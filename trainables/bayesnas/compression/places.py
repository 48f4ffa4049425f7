"""Where the channels of a network stand in its parameters.

A channel is numbered through the whole network: `Places.first[v] + c` is channel c of the channel variable v (`raysearch.architecture.channels`), in
whatever layers it is created, normalised, summed and read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from raysearch.architecture import Architecture
from raysearch.architecture.axes import is_last
from raysearch.architecture.channels import ChannelAnalysis, analyse
from raysearch.architecture.graph import Layer
from raysearch.architecture.parametric import PARAMETRIC, channel_entry
from raysearch.architecture.variables import Blocks
from raysearch.models.importance import creates_channels

_NORMS = ("batch_norm", "group_norm", "instance_norm")


@dataclass(frozen=True, eq=False)
class Filters:
    """A layer whose weight makes channels of channels.

    Attributes:
        layer: a convolution or a linear layer.
        rows: [out] the channel that each filter creates.
        columns: [in] the channel that each input is; None where filters read different inputs (grouped convolutions).
        spread: [in] whether the input is one of several numbers of its channel (behind a flatten).
        norm: the BatchNorm that alone reads its output; None: there is none.
    """

    layer: Layer
    rows: np.ndarray
    columns: np.ndarray | None
    spread: np.ndarray
    norm: str | None


@dataclass(frozen=True, eq=False)
class Places:
    """The channels of a network, and the parameters where they stand.

    Attributes:
        architecture: the network.
        analysis: its channel variables.
        first: [V + 1] the number of the first channel of each variable; the last is how many there are.
        filters: every layer with filters whose weights are its own, in the network's order.
        along: (state's name, axis, [size] channel) of every other parameter with a number for each channel: biases, norms, slopes, and
            filters that handle channels one by one.
        readers: for each variable the layers of `filters`, and others, whose weights read its channels.
    """

    architecture: Architecture
    analysis: ChannelAnalysis
    first: np.ndarray
    filters: tuple[Filters, ...]
    along: tuple[tuple[str, int, np.ndarray], ...]
    readers: tuple[tuple[str, ...], ...]

    @property
    def num_channels(self) -> int:
        return int(self.first[-1])

    def of(self, variable: int) -> slice:
        """The numbers of a variable's channels."""
        return slice(int(self.first[variable]), int(self.first[variable + 1]))


def find_places(architecture: Architecture) -> Places:
    """The channels of a network and where its parameters hold them."""
    analysis = analyse(architecture)
    sizes = [variable.size for variable in analysis.variables]
    first = np.cumsum([0, *sizes])
    keys = _unshared(architecture)
    norms = _norms_behind(architecture)
    filters: list[Filters] = []
    along: list[tuple[str, int, np.ndarray]] = []
    for layer, into, out in zip(
        architecture.layers, analysis.inputs, analysis.outputs, strict=True
    ):
        rows = _numbers(out, first, sizes)
        weight = layer.params.get("weight", f"{layer.name}.weight")
        if layer.op in ("conv", "linear") and creates_channels(architecture, layer):
            if weight in keys:
                filters.append(_filters(layer, rows, into, first, sizes, norms.get(layer.name)))
            along += _entries(layer, ("bias",), 0, rows)
        elif layer.op == "conv":
            along += _entries(layer, ("weight", "bias"), 0, rows)
        elif layer.op in (*_NORMS, *PARAMETRIC):
            axis = architecture.axis(layer.name)
            entry = 0
            if layer.op in PARAMETRIC:
                entry = channel_entry(layer.op, layer.attrs, len(layer.shape), axis)
            if entry is not None:
                along += _entries(layer, tuple(layer.param_shapes), entry, rows)
    readers = tuple(
        tuple(name for name in variable.consumers if _reads(architecture, name))
        for variable in analysis.variables
    )
    return Places(architecture, analysis, first, tuple(filters), tuple(along), readers)


def scale_free(places: Places) -> dict[str, tuple[int, ...]]:
    """The parameters whose length BatchNorm takes away, with the axes of that length: filters before one, each for itself, and its factors."""
    found: dict[str, tuple[int, ...]] = {}
    for filters in places.filters:
        if filters.norm is None:
            continue
        norm, layer = places.architecture[filters.norm], filters.layer
        rank = len(layer.param_shapes["weight"])
        found[layer.params.get("weight", f"{layer.name}.weight")] = tuple(range(1, rank))
        found[norm.params.get("weight", f"{norm.name}.weight")] = (0,)
    return found


def _filters(
    layer: Layer,
    rows: np.ndarray,
    into: Blocks,
    first: np.ndarray,
    sizes: Sequence[int],
    norm: str | None,
) -> Filters:
    spread = np.concatenate([np.full(sizes[v] * m, m > 1) for v, m in into])
    columns = _numbers(into, first, sizes) if layer.attrs.get("groups", 1) == 1 else None
    return Filters(layer, rows, columns, spread, norm)


def _numbers(blocks: Blocks, first: np.ndarray, sizes: Sequence[int]) -> np.ndarray:
    """[C] the channel at each place of an axis."""
    parts = [np.repeat(first[v] + np.arange(sizes[v]), m) for v, m in blocks]
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)


def _entries(
    layer: Layer, roles: Sequence[str], axis: int, channels: np.ndarray
) -> Iterator[tuple[str, int, np.ndarray]]:
    for role in roles:
        shape = layer.param_shapes.get(role)
        if shape is not None and len(shape) > axis and shape[axis] == len(channels):
            yield layer.params.get(role, f"{layer.name}.{role}"), axis, channels


def _unshared(architecture: Architecture) -> set[str]:
    """The state's names of weights that belong to one layer."""
    counts: dict[str, int] = {}
    for layer in architecture.layers:
        for role in layer.param_shapes:
            key = layer.params.get(role, f"{layer.name}.{role}")
            counts[key] = counts.get(key, 0) + 1
    return {key for key, count in counts.items() if count == 1}


def _norms_behind(architecture: Architecture) -> dict[str, str]:
    """Layer -> the affine BatchNorm that is the only one to read it."""
    readers: dict[str, list[Layer]] = {}
    for layer in architecture.layers:
        for slot in layer.inputs:
            for name in slot:
                readers.setdefault(name, []).append(layer)
    return {
        name: found[0].name
        for name, found in readers.items()
        if len(found) == 1
        and found[0].op == "batch_norm"
        and "weight" in found[0].param_shapes
        and found[0].inputs == ((name,),)
    }


def _reads(architecture: Architecture, name: str) -> bool:
    layer = architecture[name]
    if layer.op == "linear":
        return is_last(layer.shape, architecture.axis(name))
    if layer.op not in ("conv", "conv_transpose"):
        return False
    return creates_channels(architecture, layer)
