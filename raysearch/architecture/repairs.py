"""What brings the students of a space into its limits: counts alone, or measurements where latency is limited."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from raysearch.architecture.budget import METRICS
from raysearch.architecture.counts import Counts
from raysearch.architecture.edits import Edits
from raysearch.architecture.graph import Architecture
from raysearch.architecture.groups import ChannelGroup
from raysearch.architecture.latency import (
    CALIBRATION,
    MARGIN,
    LatencyModel,
    MeasuredRepair,
    Stopwatch,
)
from raysearch.architecture.limits import Limits
from raysearch.architecture.repair import Repairer
from raysearch.architecture.sampling import Dimensions, sample_edits


@dataclass(frozen=True, eq=False)
class RepairMaker:
    """Makes the repair of one space.

    Attributes:
        counts: the space's, with its teacher, its channels and its pairs.
        dimensions: what may be edited.
        groups: the free channel groups.
        grow: whether students are grown to fill the limits.
        apply: edits -> the student.
        stopwatch: measures it.
        smallest, largest: the edits of the smallest student, and of the teacher.
    """

    counts: Counts
    dimensions: Dimensions
    groups: tuple[ChannelGroup, ...]
    grow: bool
    apply: Callable[[Edits], Architecture]
    stopwatch: Stopwatch
    smallest: Edits
    largest: Edits

    def make(self, limits: Mapping[str, float]) -> tuple[Repairer, MeasuredRepair | None]:
        """What repairs to the limits, and what does so by measurements where latency is limited.

        Args:
            limits: by metric, in absolute numbers.
        """
        costs = self.counts.costs
        columns = {metric: place for place, metric in enumerate(METRICS)}
        bounds = dict(limits)
        if "memory" in bounds:
            costs = self.counts.weight_costs
            columns["memory"] = costs.uv.shape[1] - 1
        if "latency_ms" not in bounds:
            return self._repairer(Limits.of(costs, columns, bounds)), None
        limit = bounds["latency_ms"]
        # what the teacher takes fills any limit above it; where even the smallest student is within the margin, it is what there is
        goal = min((1 - MARGIN) * limit, self._measure(self.largest))
        goal = max(goal, self._measure(self.smallest))
        model = self._fit_latency()
        costs = model.column(costs, self.counts.teacher, self.counts.channels)
        columns["latency_ms"] = costs.uv.shape[1] - 1
        least = (1 + 1e-9) * model.ms(self.apply(self.smallest))
        bounds["latency_ms"] = max(goal, least)
        repairer = self._repairer(Limits.of(costs, columns, bounds))
        return repairer, MeasuredRepair(repairer, self._measure, self.smallest, goal, least)

    def _measure(self, edits: Edits) -> float:
        return self.stopwatch(self.apply(edits))

    def _fit_latency(self) -> LatencyModel:
        """The model of latency, from the largest, the smallest and some random students."""
        free = self._repairer(Limits.of(self.counts.costs, {}, {}))
        drawn = free(sample_edits(self.dimensions, CALIBRATION, np.random.default_rng(0)))
        students = [self.apply(one) for one in (self.largest, self.smallest, *drawn)]
        return LatencyModel.fit(students, [self.stopwatch(student) for student in students])

    def _repairer(self, limits: Limits) -> Repairer:
        if limits.memory >= 0:
            limits = limits.with_liveness(self.counts.liveness)
        return Repairer.of(
            limits,
            self.groups,
            shrink=self.dimensions.shrink,
            removable=self.dimensions.removable.tolist(),
            skip_pairs=self.counts.skip_pairs,
            num_layers=self.dimensions.num_layers,
            grow=self.grow,
        )
