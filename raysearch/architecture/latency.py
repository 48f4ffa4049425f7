"""Latency limits: a model of the time proposes, a measurement decides.

The model is additive: ms = a + b layers + c MACs + d bytes written, no coefficient negative, fitted to a handful of measured students.
It is a column of the cost model, so that repair shrinks and fills by it as by any other cost. What repair returns is then measured; where
a student is too slow (or needlessly fast) its own limit on the model is moved by the measured ratio, and it is repaired again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from itertools import combinations
from typing import Protocol

import numpy as np

from raysearch.architecture.axes import other_axes
from raysearch.architecture.costs import CostModel, Term
from raysearch.architecture.edits import Edits, EditsBatch
from raysearch.architecture.graph import Architecture
from raysearch.architecture.groups import ChannelMap
from raysearch.architecture.memory import BYTES
from raysearch.architecture.repair import ENOUGH, Repairer

DEFAULT_METER = "raysearch.models.latency:LatencyMeter"
"""What measures where the caller gives nothing: the CPU (by name, as this package does not know torch)."""
MEASURED = 64
"""So many students are repaired by measurements unless asked otherwise; more are by the model."""
CALIBRATION = 6
"""Random students that the model is fitted to, besides the largest and the smallest one."""
MARGIN = 0.04
"""Students aim this share below the limit, so that a second measurement is inside it too."""
LOW = 0.85
"""A student that takes this share of what it may, or fills another limit, is not grown any more."""
ROUNDS = 6
"""Measurements of a student at most before the smallest one takes its place."""
_GROWING_ROUNDS = 2


class Meter(Protocol):
    """Measures a student: called with an `Architecture`, in the proposing process, gives milliseconds of one forward pass.

    It need not remember anything: every architecture is measured once in a space.
    """

    def __call__(self, architecture: Architecture) -> float: ...


def default_meter() -> Meter:
    """The CPU's, loaded when it is needed."""
    module, _, name = DEFAULT_METER.partition(":")
    return getattr(import_module(module), name)()


class Stopwatch:
    """A meter that measures each architecture once.

    Args:
        meter: None: `default_meter`, from the first measurement on.
    """

    def __init__(self, meter: Meter | None = None) -> None:
        self._meter = meter
        self._known: dict[str, float] = {}

    def __call__(self, architecture: Architecture) -> float:
        """Milliseconds of one forward pass."""
        if architecture.id not in self._known:
            self._meter = self._meter or default_meter()
            self._known[architecture.id] = float(self._meter(architecture))
        return self._known[architecture.id]


@dataclass(frozen=True)
class LatencyModel:
    """ms = base + per_layer layers + per_mac MACs + per_byte bytes written."""

    base: float
    per_layer: float
    per_mac: float
    per_byte: float

    @classmethod
    def fit(cls, students: Sequence[Architecture], ms: Sequence[float]) -> LatencyModel:
        """Least squares of the relative errors without negative coefficients, by trying which ones are zero."""
        times = np.array(ms, np.float64)
        x = np.array([_work(student) for student in students], np.float64) / times[:, None]
        scale = np.maximum(np.abs(x).max(axis=0), 1e-300)
        best, coefficients = np.inf, np.zeros(4)
        for size in range(1, 5):
            for used in map(list, combinations(range(4), size)):
                found = np.linalg.lstsq(x[:, used] / scale[used], np.ones(len(x)), rcond=None)[0]
                error = float(np.square(x[:, used] / scale[used] @ found - 1).sum())
                if (found >= 0).all() and error < best:
                    best, coefficients = error, np.zeros(4)
                    coefficients[used] = found / scale[used]
        return cls(*coefficients.tolist())

    def ms(self, student: Architecture) -> float:
        """The predicted milliseconds."""
        return float(np.dot(_work(student), self._coefficients))

    def column(self, costs: CostModel, teacher: Architecture, channels: ChannelMap) -> CostModel:
        """The cost model with a column of predicted milliseconds (skips cost nothing there)."""
        terms = [Term(0, (0,), fixed=(self.base, 0))]  # the input is never removed
        for place, layer in enumerate(teacher.layers):
            if not layer.is_view:
                places = math.prod(other_axes(layer.shape, channels.axes[place]))
                size = self.per_byte * BYTES * places
                terms.append(Term(place, (place,), v=(size, 0), fixed=(self.per_layer, 0)))
        shares = [0.0, self.per_mac] + [0.0] * (costs.uv.shape[1] - 2)
        return costs.with_column(shares, terms, channels)

    @property
    def _coefficients(self) -> tuple[float, ...]:
        return self.base, self.per_layer, self.per_mac, self.per_byte


def _work(student: Architecture) -> tuple[float, ...]:
    """What the model is linear in: 1, layers that compute, MACs, bytes written."""
    made = [layer for layer in student.layers if not layer.is_view]
    written = BYTES * sum(math.prod(layer.shape) for layer in made)
    return 1.0, float(len(made)), float(student.macs), float(written)


@dataclass(frozen=True, eq=False)
class MeasuredRepair:
    """Repairs students until their measurements are inside the limit.

    Attributes:
        repair: to all limits; the last one is the model's of latency.
        measure: edits -> milliseconds.
        smallest: the smallest student, which measures inside the goal.
        goal: milliseconds that students aim at.
        least: the model's milliseconds of the smallest student, below which its limit makes no sense.
    """

    repair: Repairer
    measure: Callable[[Edits], float]
    smallest: Edits
    goal: float
    least: float

    def __call__(self, batch: EditsBatch) -> list[Edits]:
        """One student for each of the batch; terminates after `ROUNDS` measurements of each."""
        found: list[Edits | None] = [None] * len(batch)
        times = np.zeros(len(batch))
        target = np.full(len(batch), self.goal)
        rows = np.arange(len(batch))
        for tried in range(1, ROUNDS + 1):
            if not len(rows):
                break
            students = self.repair(batch[rows], self._bounds(target[rows]))
            ms = np.array([self.measure(edits) for edits in students])
            inside = ms <= self.goal
            for row, edits, time in zip(rows[inside], students[inside], ms[inside], strict=True):
                if time > times[row]:
                    found[row], times[row] = edits, time
            growing = inside & (ms < LOW * self.goal)
            if growing.any():
                growing &= self._can_grow(students)
            again = ~inside if tried > _GROWING_ROUNDS else ~inside | growing
            # a student that is inside already is not given up for one that is not
            again &= inside | np.array([found[row] is None for row in rows], bool)
            factor = np.where(inside, 1.0, 0.98) * self.goal / ms
            at_least = target[rows] <= self.least  # the model has nothing smaller to propose
            target[rows] = np.maximum(target[rows] * factor, self.least)
            rows = rows[again & ~(at_least & ~inside)]
        return [self.smallest if edits is None else edits for edits in found]

    def _bounds(self, target: np.ndarray) -> np.ndarray:
        """The limits of each student: target [n] -> [n, M]."""
        bounds = np.tile(self.repair.limits.bounds, (len(target), 1))
        bounds[:, self.repair.limits.latency] = np.maximum(target, self.least)
        return bounds

    def _can_grow(self, students: EditsBatch) -> np.ndarray:
        """Which students are smaller than the teacher and fill no other limit: [n] bool."""
        limits = self.repair.limits
        if not self.repair.grow:
            return np.zeros(len(students), bool)
        load = limits.load(students.remove, students.skip_matrix(len(self.repair.targets)))
        share = 1 - limits.slack(load, students.widths) / load.bounds  # [n, M]
        share[:, limits.latency] = 0.0
        whole = ~students.remove.any(axis=1) & (students.widths == self.repair.fill.sizes).all(1)
        return (share.max(axis=1) < ENOUGH) & ~whole
