"""Hand-made features of students, for a plain Gaussian process.

Blocks: `remove` (a bit for each removable layer), `width` (share of the teacher's channels), `log_width` (its logarithm), `stage` (share
of the removable layers that are kept, for each spatial size and operation), `skips` (log(1 + number) over the log of all pairs), `params`
(log10 of the share of the teacher's parameters). All lie within or near [-1, 1].
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from raysearch.architecture.axes import other_axes
from raysearch.architecture.edits import EditsBatch
from raysearch.architecture.graph import Architecture

_DECADES = 3.0
"""log10 of the usual smallest share of parameters: scales the block `params` to unit range."""


@dataclass(frozen=True, eq=False)
class FeatureMap:
    """The features of a space's students; B candidates, R removable layers, G groups, S stages, D columns.

    Attributes:
        removable: [R] int64 layer indices.
        sizes: [G] int64.
        stages: [R, S] float64, column s averages the layers of stage s.
        num_pairs: the number of skip pairs.
        num_params: the teacher's.
        blocks: the columns of each block.
    """

    removable: np.ndarray
    sizes: np.ndarray
    stages: np.ndarray
    num_pairs: int
    num_params: int
    blocks: Mapping[str, slice]

    @classmethod
    def of(
        cls, teacher: Architecture, removable: np.ndarray, sizes: np.ndarray, num_pairs: int
    ) -> FeatureMap:
        """Lays the columns out."""
        layers, axes = teacher.layers, teacher.axes
        keys = [(other_axes(layers[i].shape, axes[i]), layers[i].op) for i in removable]
        distinct = list(dict.fromkeys(keys))
        stages = np.array([[key == stage for stage in distinct] for key in keys], np.float64)
        stages = stages.reshape(len(keys), len(distinct))
        counts = {
            "remove": len(removable),
            "width": len(sizes),
            "log_width": len(sizes),
            "stage": len(distinct),
            "skips": int(num_pairs > 0),
            "params": 1,
        }
        ends = np.cumsum(list(counts.values()))
        blocks = {
            name: slice(int(end) - counts[name], int(end))
            for name, end in zip(counts, ends, strict=True)
        }
        stages /= np.maximum(stages.sum(axis=0), 1)
        return cls(removable, sizes, stages, num_pairs, teacher.num_params, blocks)

    def __call__(self, batch: EditsBatch, num_params: np.ndarray) -> np.ndarray:
        """The features [B, D] float32 of a batch and its parameters [B]."""
        removed = batch.remove[:, self.removable].astype(np.float64)  # [B, R]
        share = batch.widths / self.sizes  # [B, G]
        skips = np.bincount(batch.skip_rows, minlength=len(batch))[:, None]  # [B, 1]
        columns = {
            "remove": removed,
            "width": share,
            "log_width": np.log(share) / np.log(np.maximum(self.sizes, 2)),
            "stage": (1 - removed) @ self.stages,
            "skips": np.log1p(skips) / np.log1p(max(self.num_pairs, 1)),
            "params": np.log10(np.maximum(num_params, 1) / max(self.num_params, 1))[:, None]
            / _DECADES,
        }
        if not self.num_pairs:
            del columns["skips"]
        return np.concatenate(list(columns.values()), axis=1).astype(np.float32)
