"""Exact costs of whole batches of students, without building one.

Every term of a cost is keep * (uv * u v + v * v + u * u + fixed), where v are a layer's output channels and u the input
channels that one of them reads, both affine in the widths. All numbers are integers below 2**53, so that float64 arithmetic (and BLAS) is exact.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from raysearch.architecture.axes import is_last, other_axes
from raysearch.architecture.graph import Architecture, Layer
from raysearch.architecture.groups import ChannelMap
from raysearch.architecture.parametric import PARAMETRIC, channel_entry, conv_transpose_space
from raysearch.errors import InvalidArchitecture

EXACT = 2**53
_CHUNK = 256
"""Candidates at a time, so that the arrays stay in the cache."""


@dataclass(frozen=True)
class Term:
    """Coefficients of one term; the last axis of each tuple is (params, macs)."""

    layer: int
    layers: tuple[int, ...]  # the term vanishes when all of them are removed
    groups: int = 1  # an output channel reads u = input channels / groups
    uv: tuple[float, float] = (0, 0)
    v: tuple[float, float] = (0, 0)
    u: tuple[float, float] = (0, 0)
    fixed: tuple[float, float] = (0, 0)


@dataclass(frozen=True, eq=False)
class CostModel:
    """The costs of a space's students; T terms, G groups, M metrics (params, macs; `with_column` adds others).

    Attributes:
        in_matrix, out_matrix: [T, G] float64; v = out_fixed + out_matrix @ widths, u likewise, divided by `groups`.
        in_fixed, out_fixed, groups: [T] float64.
        uv, v, u, fixed: [T, M] float64, the coefficients.
        layers: for each term, the layers that keep it alive.
        single: channel numbers are whole and below 2**24, so that float32 holds them.
    """

    in_matrix: np.ndarray
    in_fixed: np.ndarray
    out_matrix: np.ndarray
    out_fixed: np.ndarray
    groups: np.ndarray
    uv: np.ndarray
    v: np.ndarray
    u: np.ndarray
    fixed: np.ndarray
    layers: tuple[tuple[int, ...], ...]
    single: bool = False

    @classmethod
    def of(cls, teacher: Architecture, channels: ChannelMap) -> CostModel:
        """Reads the coefficients off the teacher's layers.

        Raises:
            InvalidArchitecture: where the costs are too large to be exact.
        """
        if max(teacher.num_params, teacher.macs) >= EXACT:
            raise InvalidArchitecture(
                "the teacher's parameters or MACs exceed 2**53: take a smaller network"
            )
        terms = [
            term for term in _terms(teacher, channels.axes) if any(map(any, _coefficients(term)))
        ]
        uv, v, u, fixed = (
            np.array([_coefficients(term)[k] for term in terms], np.float64).reshape(-1, 2)
            for k in range(4)
        )
        return cls(
            *_channel_rows(terms, channels),
            uv=uv,
            v=v,
            u=u,
            fixed=fixed,
            layers=tuple(term.layers for term in terms),
            single=max(size for layer in teacher.layers for size in (1, *layer.shape)) < 2**24,
        )

    def with_column(
        self, shares: Sequence[float], terms: Sequence[Term], channels: ChannelMap
    ) -> CostModel:
        """The model with one more column: a sum of shares of the columns so far, and terms of its own.

        Args:
            shares: [M].
            terms: what counts in the new column only, with its first coefficient.
            channels: the teacher's channel numbers.
        """
        own = np.array([[c[0] for c in _coefficients(term)] for term in terms], np.float64)
        own = own.reshape(-1, 4)  # [E, (uv, v, u, fixed)]

        def joined(coefficients: np.ndarray, column: np.ndarray) -> np.ndarray:
            mixed = coefficients @ np.array(shares, np.float64)[:, None]  # [T, 1]
            below = np.pad(column[:, None], ((0, 0), (coefficients.shape[1], 0)))  # [E, M + 1]
            return np.concatenate([np.concatenate([coefficients, mixed], axis=1), below])

        mine = (self.in_matrix, self.in_fixed, self.out_matrix, self.out_fixed, self.groups)
        pairs = zip(mine, _channel_rows(terms, channels), strict=True)
        coefficients = (self.uv, self.v, self.u, self.fixed)
        return CostModel(
            *(np.concatenate(pair) for pair in pairs),
            *(joined(one, column) for one, column in zip(coefficients, own.T, strict=True)),
            layers=(*self.layers, *(term.layers for term in terms)),
            single=self.single,
        )

    def keep(self, remove: np.ndarray) -> np.ndarray:
        """Which terms are alive: remove [B, L] bool -> [B, T] float64."""
        first = np.array([layers[0] for layers in self.layers], np.int64)
        gone = remove[:, first]  # [B, T]
        for column, layers in enumerate(self.layers):
            if len(layers) > 1:
                gone[:, column] = remove[:, list(layers)].all(axis=1)
        return 1.0 - gone

    def channels(self, widths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Input and output channels of every term: widths [B, G] -> two [B, T] float64."""
        matrix, fixed, in_row, out_row = self._rows
        numbers = (widths.astype(matrix.dtype) @ matrix.T + fixed).astype(np.float64)  # [B, U]
        into = numbers[:, in_row] / self.groups  # a whole number: exact
        return into, numbers[:, out_row]

    @cached_property
    def _rows(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """The U different channel numbers, few as most layers read what another one makes: [U, G], [U]; the terms' places: two [T]."""
        numbers = np.concatenate(
            [
                np.column_stack([self.in_matrix, self.in_fixed]),
                np.column_stack([self.out_matrix, self.out_fixed]),
            ]
        )  # [2 T, G + 1]
        table, place = np.unique(numbers, axis=0, return_inverse=True)
        in_row, out_row = place.reshape(2, len(self.groups))
        table = table.astype(np.float32 if self.single else np.float64)
        return np.ascontiguousarray(table[:, :-1]), table[:, -1], in_row, out_row

    def terms(self, keep: np.ndarray, widths: np.ndarray, metric: int) -> np.ndarray:
        """The value of every term: keep [B, T], widths [B, G] -> [B, T] float64."""
        u, v = self.channels(widths)
        uv, by_v, by_u, fixed = (c[:, metric] for c in (self.uv, self.v, self.u, self.fixed))
        return keep * (u * v * uv + v * by_v + u * by_u + fixed)

    def totals(self, keep: np.ndarray, widths: np.ndarray, metrics: Sequence[int]) -> np.ndarray:
        """The costs of a batch: keep [B, T], widths [B, G] -> [B, len(metrics)] float64; B may be 1 for one of the two."""
        columns = list(metrics)
        uv, by_v, by_u, fixed = (c[:, columns] for c in (self.uv, self.v, self.u, self.fixed))
        parts = []
        for start in range(0, max(len(keep), len(widths), 1), _CHUNK):
            chunk = slice(start, start + _CHUNK)
            alive = keep if len(keep) == 1 else keep[chunk]
            u, v = self.channels(widths if len(widths) == 1 else widths[chunk])
            v = v * alive
            total = v @ by_v + alive @ fixed + (u * v) @ uv
            if by_u.any():
                total += (u * alive) @ by_u
            parts.append(total)
        return np.concatenate(parts)


def _coefficients(term: Term) -> tuple[tuple[float, float], ...]:
    return term.uv, term.v, term.u, term.fixed


def _channel_rows(terms: Sequence[Term], channels: ChannelMap) -> tuple[np.ndarray, ...]:
    """The input and output channels of terms in the widths: [T, G], [T], [T, G], [T] float64; and what divides the inputs."""
    rows = np.array([term.layer for term in terms], np.int64)
    affine = (channels.into.matrix, channels.into.fixed, channels.out.matrix, channels.out.fixed)
    groups = np.array([term.groups for term in terms], np.float64)
    return (*(array[rows].astype(np.float64) for array in affine), groups)


def _terms(teacher: Architecture, axes: Sequence[int]) -> list[Term]:
    """All terms of the teacher, whose channel axes are given; parameters that several layers share are a term of their own."""
    calls: dict[str, list[int]] = {}
    for position, layer in enumerate(teacher.layers):
        for role in layer.param_shapes:
            calls.setdefault(layer.params.get(role, f"{layer.name}.{role}"), []).append(position)
    terms = []
    for position, layer in enumerate(teacher.layers):
        owners = {
            role: tuple(dict.fromkeys(calls[layer.params.get(role, f"{layer.name}.{role}")]))
            for role in layer.param_shapes
        }
        own = [role for role, layers in owners.items() if layers == (position,)]
        axis = axes[position]
        terms.append(make_term(layer, axis, position, (position,), own, with_macs=True))
        terms += [
            make_term(layer, axis, position, layers, [role], with_macs=False)
            for role, layers in owners.items()
            if len(layers) > 1 and layers[0] == position
        ]
    return terms


def make_term(
    layer: Layer,
    axis: int,
    position: int,
    layers: tuple[int, ...],
    roles: Sequence[str],
    *,
    with_macs: bool,
) -> Term:
    """The term of some parameters of a layer, and of its MACs; it is there while one of `layers` is."""
    if layer.op in ("conv", "conv_transpose"):
        return _conv_term(layer, position, layers, roles, with_macs)
    if layer.op == "linear":
        return _linear_term(layer, axis, position, layers, roles, with_macs)
    if layer.op == "batch_norm":
        return Term(position, layers, v=(len(roles), 0))
    params = sum(math.prod(layer.param_shapes[role]) for role in roles)
    if layer.op in PARAMETRIC:
        entry = channel_entry(layer.op, layer.attrs, len(layer.shape), axis)
        if entry is not None:
            return Term(position, layers, v=(params // layer.shape[axis], 0))
    return Term(position, layers, fixed=(params, layer.macs if with_macs else 0))


def _conv_term(
    layer: Layer, position: int, layers: tuple[int, ...], roles: Sequence[str], with_macs: bool
) -> Term:
    attrs = layer.attrs
    taps = math.prod(attrs["kernel"])
    weight = taps if "weight" in roles else 0
    space = layer.shape[1:] if layer.op == "conv" else conv_transpose_space(attrs, layer.shape)
    macs = taps * math.prod(space) if with_macs else 0
    bias = int("bias" in roles)
    groups = attrs["groups"]
    if groups == attrs["in_channels"] > 1:  # depthwise: each output reads one input
        return Term(position, layers, v=(weight + bias, macs))
    return Term(position, layers, groups, uv=(weight, macs), v=(bias, 0))


def _linear_term(
    layer: Layer,
    axis: int,
    position: int,
    layers: tuple[int, ...],
    roles: Sequence[str],
    with_macs: bool,
) -> Term:
    attrs = layer.attrs
    weight, bias = int("weight" in roles), int("bias" in roles)
    places = math.prod(other_axes(layer.shape[:-1], axis))
    if is_last(layer.shape, axis):
        return Term(position, layers, uv=(weight, places if with_macs else 0), v=(bias, 0))
    size = (
        attrs["in_features"] * attrs["out_features"]
    )  # of the last axis; the channels are another
    return Term(
        position,
        layers,
        v=(0, size * places if with_macs else 0),
        fixed=(weight * size + bias * attrs["out_features"], 0),
    )
