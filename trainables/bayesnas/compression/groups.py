"""Groups of weights that live and die together, and sums over them; several groupings of one weight at once (figures A-1, A-2).

All groups of a network are numbered through. A `Member` says how one tensor takes part in one grouping; groups of coupled channels have members in
several layers.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from trainables.bayesnas.compression.places import Filters, Places

NO_GROUP = -1


@dataclass(frozen=True, eq=False)
class Member:
    """One tensor in one grouping.

    Attributes:
        key: the parameter's name in the state.
        layer: the layer with the filters that it belongs to.
        kind: "filter", "channel", "shape", "row" or "column".
        ids: the group of each slice, shaped to broadcast against the tensor ([out, 1, 1, 1], [1, in, kh, kw], ...).
    """

    key: str
    layer: str
    kind: str
    ids: torch.Tensor

    def sum_over(self, values: torch.Tensor, totals: torch.Tensor) -> None:
        """Adds the sums of each group's numbers to `totals` [G], in place.

        Args:
            values: as the tensor.
        """
        dims = [axis for axis, size in enumerate(self.ids.shape) if size == 1]
        dims = [axis for axis in dims if values.shape[axis] > 1]
        sums = values.sum(dims, keepdim=True) if dims else values
        totals.index_add_(0, self.ids.flatten(), sums.flatten())

    def spread(self, numbers: torch.Tensor) -> torch.Tensor:
        """The groups' numbers [G] at the tensor's slices, in the shape of `ids`."""
        return numbers[self.ids]


@dataclass(frozen=True, eq=False)
class Groups:
    """All groups of a network.

    Attributes:
        count: how many there are, G.
        members: who is in them.
        filter_group: [channels] the group of the filters that create a channel, or `NO_GROUP`.
        reading: layer with filters -> for each of its kinds that read, [in, n] the groups of each input, which is lost when all of them are.
    """

    count: int
    members: tuple[Member, ...]
    filter_group: np.ndarray
    reading: Mapping[str, tuple[np.ndarray, ...]]

    @property
    def keys(self) -> tuple[str, ...]:
        """The names of the parameters that have groups."""
        return tuple(dict.fromkeys(member.key for member in self.members))

    def of(self, key: str) -> list[Member]:
        """The groupings of one parameter."""
        return [member for member in self.members if member.key == key]

    def sums(self, values: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """[G] the sums over each group of numbers given for each weight."""
        some = next(iter(values.values()))
        totals = torch.zeros(self.count, dtype=some.dtype, device=some.device)
        for member in self.members:
            member.sum_over(values[member.key], totals)
        return totals

    def sizes(self, shapes: Mapping[str, torch.Size]) -> torch.Tensor:
        """[G] how many weights each group has."""
        return self.sums({key: torch.ones(shapes[key]) for key in self.keys})


def make_groups(
    places: Places,
    conv_groups: Sequence[str],
    linear_groups: Sequence[str],
    *,
    measured: Collection[str] | None = None,
) -> Groups:
    """The groups of a network.

    Filters that create a channel are one group in all layers, and so are the slices that read one; but of a linear layer behind a flatten, or
    of one that reads the network's input, each column is a group of its own. Filters of the network's output have no group.

    Args:
        places: the network's channels.
        conv_groups, linear_groups: as in `CompressionSettings`.
        measured: the parameters that have a curvature; the others get no group. None: all.
    """
    return _Maker(places, conv_groups, linear_groups, measured).make()


class _Maker:
    def __init__(
        self,
        places: Places,
        conv_groups: Sequence[str],
        linear_groups: Sequence[str],
        measured: Collection[str] | None,
    ) -> None:
        self.places = places
        self.measured = measured
        self.kinds = {"conv": conv_groups, "linear": linear_groups}
        self.count = 0
        self.members: list[Member] = []
        variables = places.analysis.variables
        self.frozen = np.concatenate([np.full(v.size, bool(v.frozen)) for v in variables])
        self.filter_group = np.full(places.num_channels, NO_GROUP)
        self.column_group = np.full(places.num_channels, NO_GROUP)
        self.reading: dict[str, tuple[np.ndarray, ...]] = {}

    def make(self) -> Groups:
        for filters in self.places.filters:
            if self.measured is not None and _key(filters) not in self.measured:
                continue
            for kind in self.kinds[filters.layer.op]:
                if kind in ("filter", "row"):
                    self.add_rows(filters, kind)
                elif kind == "shape":
                    self.add_shapes(filters)
                else:
                    self.add_columns(filters, kind)
        return Groups(self.count, tuple(self.members), self.filter_group, self.reading)

    def add_rows(self, filters: Filters, kind: str) -> None:
        if self.frozen[filters.rows].any():
            return
        ids = self.named(self.filter_group, filters.rows)
        key, rank = _key(filters), len(filters.layer.param_shapes["weight"])
        if filters.norm is not None:
            norm = self.places.architecture[filters.norm]
            key, rank = norm.params.get("weight", f"{norm.name}.weight"), 1
        self.add(key, filters, kind, ids.reshape(-1, *[1] * (rank - 1)))

    def add_columns(self, filters: Filters, kind: str) -> None:
        columns = filters.columns
        if columns is None:
            return
        own = filters.spread | self.frozen[columns]
        ids = np.empty(len(columns), np.int64)
        ids[~own] = self.named(self.column_group, columns[~own])
        ids[own] = self.new(int(own.sum()))
        rank = len(filters.layer.param_shapes["weight"])
        self.add(_key(filters), filters, kind, ids.reshape(1, -1, *[1] * (rank - 2)))
        self.read(filters, ids[:, None])

    def add_shapes(self, filters: Filters) -> None:
        if filters.columns is None:
            return
        shape = filters.layer.param_shapes["weight"][1:]
        ids = self.new(math.prod(shape)).reshape(1, *shape)
        self.add(_key(filters), filters, "shape", ids)
        self.read(filters, ids.reshape(shape[0], -1))

    def read(self, filters: Filters, ids: np.ndarray) -> None:
        name = filters.layer.name
        self.reading[name] = (*self.reading.get(name, ()), ids)

    def named(self, table: np.ndarray, channels: np.ndarray) -> np.ndarray:
        """The groups of channels, new ones where they have none."""
        without = np.unique(channels[table[channels] == NO_GROUP])
        table[without] = self.new(len(without))
        return table[channels]

    def new(self, count: int) -> np.ndarray:
        self.count += count
        return np.arange(self.count - count, self.count)

    def add(self, key: str, filters: Filters, kind: str, ids: np.ndarray) -> None:
        self.members.append(Member(key, filters.layer.name, kind, torch.from_numpy(ids)))


def _key(filters: Filters) -> str:
    return filters.layer.params.get("weight", f"{filters.layer.name}.weight")
