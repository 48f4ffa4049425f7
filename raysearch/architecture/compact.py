"""The compact encoding of a batch: everything that the dense layer vectors say, linear in layers and edits.

The 2 n link columns of the dense form (see `encoding.py`) are nearly all zero, and the same for every student but for its added skips.
Here the teacher's edges are stated once for the batch, and the skips as a list.

Notation: B candidates, G groups, L listed layers, E edges, S added skips.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from raysearch.architecture.encoding import (
    ALL_TYPES,
    NUM_ATTRS,
    BatchEncoder,
    code_table,
    link_columns,
    link_width,
    sufficient_types,
)

_EXACT = 2**24
"""Whole numbers below it are exact in float32."""
_CHUNK = 128
"""Candidates at a time, so that what is written stays in the cache until it is done."""


@dataclass(frozen=True, eq=False)
class CompactBatch:
    """Many encoded students.

    Attributes:
        types: [B, L] uint8, indices into `ALL_TYPES` (of which ESNAC's types are the first ten).
        attrs: [B, L, 6] float32: kernel, stride, padding, groups, in, out; 0 where a layer has none.
        edges: [E, 2] int64, the teacher's edges (from, to) in places of the view; all students have them.
        skip_rows: [S] int64, the candidate of every added skip, sorted.
        skip_sources, skip_targets: [S] int64, the places that the skips join.
        vocabulary: the types that suffice for the teacher, and so for all of its students.
    """

    types: np.ndarray
    attrs: np.ndarray
    edges: np.ndarray
    skip_rows: np.ndarray
    skip_sources: np.ndarray
    skip_targets: np.ndarray
    vocabulary: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.types)

    def __getitem__(self, rows: slice) -> CompactBatch:
        """The candidates of a slice of step 1: for encoding densely in chunks."""
        start, stop, step = rows.indices(len(self))
        if step != 1:
            raise ValueError(f"a compact batch is sliced in steps of 1, got {step}")
        first, last = np.searchsorted(self.skip_rows, [start, max(start, stop)])
        return replace(
            self,
            types=self.types[start:stop],
            attrs=self.attrs[start:stop],
            skip_rows=self.skip_rows[first:last] - start,
            skip_sources=self.skip_sources[first:last],
            skip_targets=self.skip_targets[first:last],
        )

    def dense(self, *, n_max: int | None = None, types: Sequence[str] | None = None) -> np.ndarray:
        """What `SearchSpace.encode` gives: [B, L, m + 6 + 2 n] float32.

        Args:
            n_max: n; None: max(128, L).
            types: `ESNAC_TYPES` or `ALL_TYPES`; None: the shorter one that suffices.
        """
        types = types or self.vocabulary
        num, layers = self.types.shape
        codes = code_table((ALL_TYPES[code] for code in np.unique(self.types)), types)
        m, n = len(types), link_width(layers, n_max)
        template = np.zeros((layers, m + NUM_ATTRS + 2 * n), np.float32)
        source, target = self.edges.T
        into, out = link_columns(source, target, m, n)
        template[target, into] = template[source, out] = 1
        dense = np.repeat(template[None], num, axis=0)  # [B, L, F]
        dense[:, :, m : m + NUM_ATTRS] = self.attrs
        flat = dense.reshape(num * layers, m + NUM_ATTRS + 2 * n)
        flat[np.arange(len(flat)), codes[self.types.ravel()]] = 1
        into, out = link_columns(self.skip_sources, self.skip_targets, m, n)
        dense[self.skip_rows, self.skip_targets, into] = 1
        dense[self.skip_rows, self.skip_sources, out] = 1
        return dense


@dataclass(frozen=True, eq=False)
class CompactEncoder:
    """Writes compact batches: the teacher's attributes, the channels as one product with the widths; removed layers are cleared.

    Attributes:
        types: [L] uint8, the teacher's.
        attrs: [6 L] float32, the teacher's.
        columns: [K] int64, the places in `attrs` that depend on the widths.
        matrix, fixed: [G, K] and [K], the numbers there are fixed + widths @ matrix; float32 where that is exact, else float64.
        listed: [L] int64 layer indices.
        edges, pairs: [E, 2] and [P, 2] int64, the teacher's edges and the skip pairs, in places.
        vocabulary: as in `CompactBatch`.
    """

    types: np.ndarray
    attrs: np.ndarray
    columns: np.ndarray
    matrix: np.ndarray
    fixed: np.ndarray
    listed: np.ndarray
    edges: np.ndarray
    pairs: np.ndarray
    vocabulary: tuple[str, ...]

    @classmethod
    def of(cls, encoder: BatchEncoder) -> CompactEncoder:
        """Prepares the compact form of what a dense encoder writes."""
        words, attrs = encoder.teacher_words(), encoder.teacher_attrs()  # [L], [L, 6]
        dtype = np.float32 if attrs.max(initial=0) < _EXACT else np.float64
        variable = [row for row in encoder.variable_columns() if row[3].any()]
        groups = encoder.channels.out.matrix.shape[1]
        matrix = np.array([row for *_, row in variable], dtype).reshape(-1, groups)
        return cls(
            np.array([ALL_TYPES.index(word) for word in words], np.uint8),
            attrs.ravel().astype(np.float32),
            np.array([place * NUM_ATTRS + column for place, column, *_ in variable], np.int64),
            np.ascontiguousarray(matrix.T),
            np.array([fixed for *_, fixed, _ in variable], dtype),
            np.array(encoder.seen.listed, np.int64),
            np.array(encoder.seen.edges, np.int64).reshape(-1, 2),
            encoder.pairs,
            sufficient_types(encoder.teacher),
        )

    def __call__(
        self, remove: np.ndarray, widths: np.ndarray, skip_rows: np.ndarray, skip_pairs: np.ndarray
    ) -> CompactBatch:
        """Encodes the arrays of a batch of edits whose skips are all active."""
        gone = remove[:, self.listed]
        widths = widths.astype(self.matrix.dtype)
        attrs = np.empty((len(gone), len(self.attrs)), np.float32)  # [B, 6 L]
        for start in range(0, len(gone), _CHUNK):
            part = attrs[start : start + _CHUNK]
            part[:] = self.attrs
            part[:, self.columns] = widths[start : start + _CHUNK] @ self.matrix + self.fixed
            cleared = np.flatnonzero(gone[start : start + _CHUNK])
            part.reshape(-1, NUM_ATTRS)[cleared] = 0
        types = np.where(gone, np.uint8(ALL_TYPES.index("identity")), self.types)
        source, target = self.pairs[skip_pairs].T
        return CompactBatch(
            types,
            attrs.reshape(*types.shape, NUM_ATTRS),
            self.edges,
            skip_rows,
            source,
            target,
            self.vocabulary,
        )
