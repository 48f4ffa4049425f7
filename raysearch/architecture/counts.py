"""What whole batches of students cost: parameters, MACs and memory, exactly and without making one."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from raysearch.architecture.budget import METRICS
from raysearch.architecture.costs import CostModel
from raysearch.architecture.edits import EditsBatch
from raysearch.architecture.graph import Architecture
from raysearch.architecture.groups import ChannelMap
from raysearch.architecture.limits import liveness_chunk, with_weight_bytes
from raysearch.architecture.liveness import Liveness


@dataclass(frozen=True, eq=False)
class Counts:
    """The counts of a space.

    Attributes:
        teacher: the teacher's network.
        channels: its channel numbers.
        skip_pairs: [P, 2] int64.
        costs: the cost model of parameters and MACs.
    """

    teacher: Architecture
    channels: ChannelMap
    skip_pairs: np.ndarray
    costs: CostModel

    @cached_property
    def weight_costs(self) -> CostModel:
        """The cost model with the bytes of the weights as its last column."""
        return with_weight_bytes(self.costs, self.teacher, self.channels)

    @cached_property
    def liveness(self) -> Liveness:
        """Which tensors live when."""
        return Liveness.of(self.teacher, self.channels, self.skip_pairs)

    def __call__(self, batch: EditsBatch, metric: str) -> np.ndarray:
        """ "params", "macs" or "memory" of every student: [n] int64; `remove` has a column for every layer."""
        if metric == "memory":
            return self._memory(batch)
        keep = self.costs.keep(batch.remove)
        totals = self.costs.totals(keep, batch.widths, [METRICS.index(metric)])
        return totals[:, 0].astype(np.int64)

    def _memory(self, batch: EditsBatch) -> np.ndarray:
        costs, size = self.weight_costs, liveness_chunk(self.liveness)
        column = [costs.uv.shape[1] - 1]
        total = costs.totals(costs.keep(batch.remove), batch.widths, column)[:, 0]
        for start in range(0, len(batch), size):
            part = batch[start : start + size]
            moments = self.liveness.moments(part.remove, part.skip_matrix(len(self.skip_pairs)))
            total[start : start + size] += moments.at(part.widths).max(axis=1)
        return total.astype(np.int64)
