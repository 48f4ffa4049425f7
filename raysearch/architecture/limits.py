"""The limits of a space: what a batch of students costs in every limited metric, as a function of the widths.

Parameters and MACs are columns of the cost model, as are the bytes of the weights; to these the largest moment of `liveness.py` is added.
What does not depend on the widths is worked out once for a batch of students (`Load`), as repair tries many widths on the same students.

Notation: B candidates, G groups, L layers, P skip pairs, T terms of the cost model, M limits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from raysearch.architecture.costs import CostModel, Term, make_term
from raysearch.architecture.graph import Architecture
from raysearch.architecture.groups import ChannelMap
from raysearch.architecture.liveness import Liveness, Moments
from raysearch.architecture.memory import BYTES, buffer_bytes, index_bytes
from raysearch.architecture.ops import OPS

CHUNK = 256
"""Candidates at a time: BLAS stays on one thread (a second one only spins on products this small), arrays stay in the cache."""
_MOMENT_NUMBERS = 4_000_000
"""Of the moments of a chunk at most: 32 MB."""


@dataclass(frozen=True, eq=False)
class Load:
    """What the costs of a batch of students depend on besides their widths.

    Attributes:
        keep: [B, T] float64, the terms that are alive.
        moments: what lives when; None where memory is not limited.
        bounds: [B, M] float64, the limits (a row may have tighter ones than the space).
    """

    keep: np.ndarray
    moments: Moments | None
    bounds: np.ndarray

    def __len__(self) -> int:
        return len(self.keep)

    def __getitem__(self, rows: np.ndarray) -> Load:
        moments = None if self.moments is None else self.moments[rows]
        return Load(self.keep[rows], moments, self.bounds[rows])


@dataclass(frozen=True, eq=False)
class Limits:
    """The limited metrics of a space.

    Attributes:
        costs: the cost model, with a column for every limit.
        columns: the column of each of the M limits.
        bounds: [M] float64.
        memory, latency: the positions of these limits among the M; -1 without one.
        liveness: None without a memory limit.
        chunk: candidates that are worked on at a time.
    """

    costs: CostModel
    columns: tuple[int, ...]
    bounds: np.ndarray
    memory: int = -1
    latency: int = -1
    liveness: Liveness | None = None
    chunk: int = CHUNK

    @classmethod
    def of(
        cls, costs: CostModel, columns: Mapping[str, int], bounds: Mapping[str, float]
    ) -> Limits:
        """The limits on metrics that are columns of the cost model, which may be memory's weights."""
        metrics = list(bounds)
        return cls(
            costs,
            tuple(columns[metric] for metric in metrics),
            np.array([bounds[metric] for metric in metrics], np.float64),
            metrics.index("memory") if "memory" in metrics else -1,
            metrics.index("latency_ms") if "latency_ms" in metrics else -1,
        )

    def with_liveness(self, liveness: Liveness) -> Limits:
        """The limits with what memory needs."""
        return replace(self, liveness=liveness, chunk=liveness_chunk(liveness))

    def load(self, remove: np.ndarray, skips: np.ndarray, bounds: np.ndarray | None = None) -> Load:
        """Prepares a batch: remove [B, L] bool; skips [B, P] bool, read where memory is limited; bounds [B, M], None: the space's."""
        if bounds is None:
            bounds = np.broadcast_to(self.bounds, (len(remove), len(self.bounds)))
        moments = None if self.liveness is None else self.liveness.moments(remove, skips)
        return Load(self.costs.keep(remove), moments, bounds)

    def slack(self, load: Load, widths: np.ndarray) -> np.ndarray:
        """What is left of every limit: widths [B, G] -> [B, M]; negative where it is exceeded."""
        slack = load.bounds - self.costs.totals(load.keep, widths, self.columns)
        if load.moments is not None:
            slack[:, self.memory] -= load.moments.at(widths).max(axis=1)
        return slack

    def fits(self, load: Load, widths: np.ndarray) -> np.ndarray:
        """Which students are inside every limit: [B] bool."""
        return np.all(self.slack(load, widths) >= 0, axis=1)

    def used(self, load: Load, widths: np.ndarray) -> np.ndarray:
        """The largest used share of a limit: [B]."""
        return 1.0 - (self.slack(load, widths) / load.bounds).min(axis=1)


def liveness_chunk(liveness: Liveness) -> int:
    """How many candidates' moments are held at a time."""
    layers, columns = liveness.elements.shape
    return max(16, min(CHUNK, _MOMENT_NUMBERS // (2 * layers * columns)))


def with_weight_bytes(costs: CostModel, teacher: Architecture, channels: ChannelMap) -> CostModel:
    """The cost model with a column for the bytes of parameters, buffers and gathers, as `memory.weight_bytes` counts them."""
    users: dict[str, dict[int, str]] = {}
    for place, layer in enumerate(teacher.layers):
        for role in layer.buffer_shapes:
            name = layer.params.get(role, f"{layer.name}.{role}")
            users.setdefault(name, {}).setdefault(place, role)
    terms = []
    for layers in users.values():
        place, role = next(iter(layers.items()))
        terms.append(_buffer_term(teacher, channels, place, role, tuple(layers)))
    for place, layer in enumerate(teacher.layers):
        if layer.op == "gather":
            terms.append(Term(place, (place,), fixed=(index_bytes(layer), 0)))
    shares = [0.0] * costs.uv.shape[1]
    shares[0] = BYTES  # of each parameter
    return costs.with_column(shares, terms, channels)


def _buffer_term(
    teacher: Architecture, channels: ChannelMap, place: int, role: str, layers: tuple[int, ...]
) -> Term:
    """The bytes of a buffer: those of a weight that is not trained, else in proportion to the output channels if its first axis is theirs."""
    layer, axis = teacher.layers[place], channels.axes[place]
    shape = layer.buffer_shapes[role]
    size = buffer_bytes(role, shape)
    if role in OPS[layer.op].params(layer.attrs):
        attrs = {key: value for key, value in layer.attrs.items() if key != "untrained"}
        trained = replace(layer, attrs=attrs)
        term = make_term(trained, axis, place, layers, [role], with_macs=False)
        uv, v, u, fixed = ((BYTES * one[0], 0.0) for one in (term.uv, term.v, term.u, term.fixed))
        return replace(term, uv=uv, v=v, u=u, fixed=fixed)
    if shape and layer.shape and shape[0] == layer.shape[axis]:
        return Term(place, layers, v=(size / shape[0], 0))
    return Term(place, layers, fixed=(size, 0))
