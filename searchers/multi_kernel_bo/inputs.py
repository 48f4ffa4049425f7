"""Students as inputs X of the models: flat layer vectors, then the hand-made features.

ESNAC's layer vector has m + 6 + 2 n = 272 columns; a teacher's students use about 100. Leaving the others out changes no embedding by
a bit, since a zero times any weight is zero.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from raysearch.architecture.encoding import N_MAX, NUM_ATTRS

if TYPE_CHECKING:
    from raysearch.architecture import Edits, EditsBatch, SearchSpace


@dataclass(frozen=True, eq=False)
class LayerColumns:
    """Which columns of the layer vectors are inputs.

    Attributes:
        types: the words of the type's one-hot columns.
        num_links: n, the columns of in-links and of out-links each.
        kept: [F] int64, those that some student uses.
    """

    types: tuple[str, ...]
    num_links: int
    kept: np.ndarray

    @classmethod
    def of(cls, *spaces: SearchSpace) -> LayerColumns:
        """The columns that any student of any of the spaces uses."""
        richest = [space.encode_compact(space.batch([_richest(space)])) for space in spaces]
        types = max((one.vocabulary for one in richest), key=len)
        num_links = max(N_MAX, *(one.types.shape[1] for one in richest))
        used = np.zeros(len(types) + NUM_ATTRS + 2 * num_links, bool)
        used[types.index("identity")] = True  # a removed layer
        for one in richest:
            used |= one.dense(n_max=num_links, types=types).any(axis=(0, 1))
        return cls(types, num_links, np.flatnonzero(used))

    def encode(self, space: SearchSpace, batch: EditsBatch) -> np.ndarray:
        """The kept columns of every student: [B, L, F] float32."""
        encoded = space.encode_compact(batch)
        return encoded.dense(n_max=self.num_links, types=self.types)[:, :, self.kept]


@dataclass(frozen=True, eq=False)
class Inputs:
    """Writes X: [B, L F + D] float64, the layer vectors of a space's students and then their features.

    Attributes:
        space: where the students come from.
        columns: of their layer vectors.
        with_features: else D is 0.
    """

    space: SearchSpace
    columns: LayerColumns
    with_features: bool = True

    @classmethod
    def of(cls, space: SearchSpace) -> Inputs:
        """Inputs of one space's own columns."""
        return cls(space, LayerColumns.of(space))

    @property
    def num_features(self) -> int:
        """D."""
        if not self.with_features:
            return 0
        return max(block.stop for block in self.space.feature_blocks.values())

    @cached_property
    def width(self) -> int:
        """L F + D."""
        return self.teacher().shape[1]

    def __call__(self, batch: EditsBatch) -> Tensor:
        """X of the students."""
        dense = self.columns.encode(self.space, batch)  # [B, L, F]
        layers = dense.reshape(len(batch), dense.shape[1] * dense.shape[2])
        parts = [layers, self.space.features(batch)] if self.with_features else [layers]
        return torch.from_numpy(np.concatenate(parts, axis=1).astype(np.float64))

    def teacher(self) -> Tensor:
        """X of the teacher: [1, L F + D]."""
        return self(self.space.batch([self.space.largest()]))


def _richest(space: SearchSpace) -> Edits:
    """The teacher with every skip: whatever a student's vectors use, its do."""
    return replace(space.largest(), skips=tuple(range(len(space.skip_pairs))))
