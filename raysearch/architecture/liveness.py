"""Peak memory of whole batches of students: which tensors live at once, without making a student.

When tensors live depends on what is removed and on the skips, but not on the widths: at each moment the elements that live are an
affine function of the widths. `Liveness.moments` finds these functions for a batch; the peak is their largest value. The rules are
those of `memory.py`, which is the truth that this must equal.

Notation: B candidates, L layers, G groups, P skip pairs, S moments (a tensor was just made, nothing is freed yet).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from raysearch.architecture.axes import other_axes
from raysearch.architecture.graph import Architecture
from raysearch.architecture.groups import ChannelMap
from raysearch.architecture.memory import BYTES


@dataclass(frozen=True, eq=False)
class Moments:
    """What lives at the moments of a batch, in bytes.

    Attributes:
        fixed: [B, S] float64, whatever the widths.
        slopes: [B, S, G] float64, for each channel of a group.
    """

    fixed: np.ndarray
    slopes: np.ndarray

    def __getitem__(self, rows: np.ndarray) -> Moments:
        return Moments(self.fixed[rows], self.slopes[rows])

    def at(self, widths: np.ndarray) -> np.ndarray:
        """The bytes that live at each moment: widths [B, G] -> [B, S] float64, exact; one row stands for all."""
        return np.matmul(self.slopes, widths.astype(np.float64)[:, :, None])[:, :, 0] + self.fixed


@dataclass(frozen=True, eq=False)
class Liveness:
    """What the liveness of a space's students depends on.

    Attributes:
        elements: [L, G + 1] float64, the elements of each layer's output in the widths; the last column is what is fixed.
        owned: [L, G + 1] float64, the same of the tensor that the layer itself may own: its output, or the sum in front of a view.
        slots: for each layer the indices of its producers, slot by slot.
        is_view: [L] bool.
        strided: layer index -> how a linear layer gets at its rows, and whether it has a bias; only where its input is not dense.
        output: the index of the network's output.
        sources, targets: [P] int64, the skip pairs.
    """

    elements: np.ndarray
    owned: np.ndarray
    slots: tuple[tuple[tuple[int, ...], ...], ...]
    is_view: np.ndarray
    strided: Mapping[int, tuple[str, bool]]
    output: int
    sources: np.ndarray
    targets: np.ndarray

    @classmethod
    def of(cls, teacher: Architecture, channels: ChannelMap, skip_pairs: np.ndarray) -> Liveness:
        """Reads the sizes off the teacher; skip_pairs [P, 2]."""
        layers, index = teacher.layers, teacher.index
        slots = tuple(
            tuple(tuple(index[name] for name in slot) for slot in layer.inputs) for layer in layers
        )
        is_view = np.array([layer.is_view for layer in layers], bool)
        channel = np.concatenate([channels.out.matrix, channels.out.fixed[:, None]], axis=1)
        places = [
            math.prod(other_axes(layer.shape, axis))
            for layer, axis in zip(layers, channels.axes, strict=True)
        ]
        elements = channel.astype(np.float64) * np.array(places, np.float64)[:, None]
        owned = elements.copy()
        for place, layer in enumerate(layers):
            if is_view[place] and slots[place]:
                owned[place] = elements[slots[place][0][0]]
            elif layer.op == "input":
                owned[place] = 0.0  # it belongs to the caller
        output = index[teacher.output]
        strided = {
            place: (layer.attrs["strided"], layer.attrs["bias"])
            for place, layer in enumerate(layers)
            if "strided" in layer.attrs
        }
        return cls(elements, owned, slots, is_view, strided, output, *skip_pairs.T)

    def moments(self, remove: np.ndarray, skips: np.ndarray) -> Moments:
        """Plays the students' passes: remove [B, L] bool, skips [B, P] bool."""
        live = _Play(self, remove, skips).run()
        return Moments(BYTES * live[:, :, -1], BYTES * live[:, :, :-1])


class _Play:
    """One batch, played twice in the same order: first who reads a tensor last, then what lives.

    A tensor has the index of the layer that owns it; the sums in front of other layers than views live too shortly to need one.
    """

    def __init__(self, model: Liveness, remove: np.ndarray, skips: np.ndarray) -> None:
        self.model, self.remove = model, remove
        rows, pairs = np.nonzero(skips & ~remove[:, model.targets])
        targets = model.targets[pairs]
        order = np.lexsort((pairs, rows, targets))
        self.rows, self.sources = rows[order], model.sources[pairs[order]]
        self.bounds = np.searchsorted(targets[order], np.arange(len(model.slots) + 1))
        self.all = np.arange(len(remove))
        shape = (len(remove), len(model.slots))
        self.owner = np.zeros(shape, np.int64)
        self.last = np.zeros(shape, np.int64)
        self.time = 0
        self.live = np.zeros((len(remove), model.elements.shape[1]))
        self.record: list[np.ndarray] = []
        self.reading = True  # the first of the two passes

    def run(self) -> np.ndarray:
        """What lives at each moment: [B, S, G + 1] elements."""
        for self.reading in (True, False):
            self.time = 0
            for layer in range(len(self.model.slots)):
                self._layer(layer)
            if self.reading:
                self.last[self.all, self.owner[:, self.model.output]] = self.time + 1
        return np.stack(self.record, axis=1)

    def _layer(self, layer: int) -> None:
        model, gone = self.model, self.remove[:, layer]
        summed = [self._sum(layer, slot) for slot in range(len(model.slots[layer]))]
        views = self.all if model.is_view[layer] else np.flatnonzero(gone)
        if len(views):
            self._alias(layer, views, summed)
        if model.is_view[layer] or gone.all():
            return
        rows = np.flatnonzero(~gone) if len(views) else self.all
        between = self._between(layer, rows)
        self._made(layer, rows)
        self.live[rows] -= between
        for producers, has_sum in zip(model.slots[layer], summed, strict=True):
            self._read(rows[~has_sum[rows]], producers[0])
            if not self.reading and has_sum.any():
                self.live[rows[has_sum[rows]]] -= model.elements[producers[0]]
        self._free_unread(layer, rows)

    def _sum(self, layer: int, slot: int) -> np.ndarray:
        """The explicit additions in front of a slot; returns which rows have one: [B] bool."""
        first, *rest = self.model.slots[layer][slot]
        has_sum = np.zeros(len(self.all), bool)
        terms = [(self.all, np.full(len(self.all), other)) for other in rest]
        if slot == 0:
            terms += self._skips_into(layer)
        for rows, others in terms:
            self.time += 1
            fresh = ~has_sum[rows]
            if not self.reading:
                self.live[rows] += self.model.elements[first]
                self._note(rows)
                self.live[rows[~fresh]] -= self.model.elements[first]  # the sum so far
            self._read(rows[fresh], first)
            self._read(rows, others)
            has_sum[rows] = True
        return has_sum

    def _skips_into(self, layer: int) -> list[tuple[np.ndarray, np.ndarray]]:
        """The first skip of every row that has one, then the second ones, and so on: (rows, sources)."""
        part = slice(self.bounds[layer], self.bounds[layer + 1])
        rows, sources = self.rows[part], self.sources[part]
        if not len(rows):
            return []
        rank = np.arange(len(rows)) - np.searchsorted(rows, rows)
        return [(rows[rank == r], sources[rank == r]) for r in range(int(rank.max()) + 1)]

    def _alias(self, layer: int, rows: np.ndarray, summed: list[np.ndarray]) -> None:
        """A view or a removed layer shares what it reads, and owns a sum that was made for it."""
        slots = self.model.slots[layer]
        if not slots:
            self.owner[rows, layer] = layer
            return
        has_sum = summed[0][rows]
        if self.reading:
            self.owner[rows, layer] = np.where(has_sum, layer, self.owner[rows, slots[0][0]])
            self.last[rows, layer] = self.time
        elif has_sum.any():
            self._free_unread(layer, rows[has_sum])

    def _between(self, layer: int, rows: np.ndarray) -> np.ndarray | float:
        """What a linear layer of a strided input holds until its output is made: [G + 1] elements."""
        strided, has_bias = self.model.strided.get(layer, ("", False))
        if self.reading or not strided:
            return 0.0
        copy = self.model.elements[self.model.slots[layer][0][0]] if strided == "copy" else 0.0
        if not has_bias:
            self.live[rows] += copy
            return copy
        product = self.model.elements[layer]
        self.live[rows] += product + copy
        self._note(rows)
        self.live[rows] -= copy
        return product

    def _made(self, layer: int, rows: np.ndarray) -> None:
        self.time += 1
        if self.reading:
            self.owner[rows, layer] = layer
            self.last[rows, layer] = self.time
        else:
            self.live[rows] += self.model.owned[layer]
            self._note(rows)

    def _note(self, rows: np.ndarray) -> None:
        if len(rows) == len(self.all):
            self.record.append(self.live.copy())
        else:
            moment = np.zeros_like(self.live)
            moment[rows] = self.live[rows]
            self.record.append(moment)

    def _read(self, rows: np.ndarray, producer: np.ndarray | int) -> None:
        """Each of the rows reads a producer's tensor now, and frees it where nobody reads it later."""
        tensors = self.owner[rows, producer]
        if self.reading:
            self.last[rows, tensors] = self.time
        else:
            self._free(rows, tensors)

    def _free_unread(self, layer: int, rows: np.ndarray) -> None:
        if not self.reading:
            self._free(rows, np.full(len(rows), layer))

    def _free(self, rows: np.ndarray, tensors: np.ndarray) -> None:
        ends = self.last[rows, tensors] == self.time
        rows, tensors = rows[ends], tensors[ends]
        self.live[rows] -= self.model.owned[tensors]
        self.last[rows, tensors] = -1  # freed once
