"""The students that the method searches: what it needs of them, and those of a teacher's own space (edits).

Decoded rows are read onto the teacher's graph (`decode_onto`) and repaired into the budget, so that every one of them is a legal student.
A sequence does not show skips: a student that a descent began with keeps its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from raysearch.architecture import EditsBatch
from raysearch.architecture.sequences import decode_onto, encode_sequence, encode_students
from raysearch.architecture.sequences.chains import NONE
from searchers.candidates import scaled_variations
from searchers.embedding_gradient.options import StepOptions
from searchers.ledger import unmeasured

if TYPE_CHECKING:
    from raysearch.architecture import SearchSpace

SIZE_SPREAD = (0.5, 2.0)
"""Within a budget all students have one size: half of the architectures that f_p learns from have widths scaled by a factor of this range."""


Reader = Callable[[int, int], str | None]


class Domain(Protocol):
    """The students of a search, as texts that `SearchSpace.apply` reads.

    Attributes:
        num_rows: T_max.
        aligned: row t is layer t of the teacher.
        teacher_rows: [T_max, 5]
    """

    @property
    def num_rows(self) -> int: ...
    @property
    def aligned(self) -> bool: ...
    @property
    def teacher_rows(self) -> np.ndarray: ...
    def rows(self, texts: Sequence[str]) -> np.ndarray:
        """[B, T_max, 5] int64."""
        ...

    def sizes(self, texts: Sequence[str], metric: str) -> np.ndarray:
        """Exact parameters or MACs, or measured milliseconds: [B] float64."""
        ...

    def cloud(
        self, num: int, metric: str, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Architectures to learn the embedding from, any size: [num, T_max, 5], and their sizes [num]; None: only a clock knows them."""
        ...

    def sample(self, num: int, rng: np.random.Generator) -> list[str]:
        """Random students within the budget, at most `num`."""
        ...

    def decode(self, rows: np.ndarray, origins: Sequence[str | None]) -> list[str]:
        """The distinct legal students within the budget that are nearest to rows, in their order.

        Args:
            rows: [B, T_max, 5]
            origins: B students that the rows were made of; None: nobody.
        """
        ...

    def nearest(self, rows: np.ndarray) -> np.ndarray:
        """The rows of the legal students nearest to rows, one for each: [B, T_max, 5]."""
        ...

    def neighbours(self, texts: Sequence[str], num: int, rng: np.random.Generator) -> list[str]:
        """Students near the given ones."""
        ...

    def around(
        self, texts: Sequence[str], num: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, Reader]:
        """Students near each of S given ones.

        Args:
            texts: the S students.
            num: how many around each; free chains, which are slow to make, have fewer.
            rng: makes them.

        Returns:
            Rows [S, 1 + num, T_max, 5], the given student first, and what gives the text at [start, place]; None: over the budget after all.
        """
        ...


@dataclass(frozen=True, eq=False)
class EditsDomain:
    """The students of a space, as edits."""

    space: SearchSpace

    @property
    def num_rows(self) -> int:
        return len(self.teacher_rows)

    @property
    def aligned(self) -> bool:
        return True

    @property
    def teacher_rows(self) -> np.ndarray:
        return encode_sequence(self.space.teacher)

    def rows(self, texts: Sequence[str]) -> np.ndarray:
        return encode_students(self.space, self.space.batch(texts))

    def sizes(self, texts: Sequence[str], metric: str) -> np.ndarray:
        return self._sizes(self.space.batch(texts), metric)

    def cloud(
        self, num: int, metric: str, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray | None]:
        batch = self._draw(num, rng)
        rows = encode_students(self.space, batch)
        if self.space.limits:
            low, high = np.log(SIZE_SPREAD)
            factor = np.exp(rng.uniform(low, high, (num, 1)))
            factor[: num // 2] = 1.0
            scaled = rows.astype(np.float64)
            scaled[:, :, 2] = np.maximum(np.rint(scaled[:, :, 2] * factor), 1)
            batch = decode_onto(self.space, np.where(rows[:, :, :1] == NONE, 0, scaled))
            rows = encode_students(self.space, batch)
        return rows, None if metric == "latency" else self._sizes(batch, metric)

    def sample(self, num: int, rng: np.random.Generator) -> list[str]:
        return [str(edits) for edits in self._draw(num, rng)]

    def decode(self, rows: np.ndarray, origins: Sequence[str | None]) -> list[str]:
        if not len(rows):
            return []
        batch = decode_onto(self.space, rows)
        batch = self._with_skips(batch, origins)
        batch = self.space.repair(_distinct(batch), **unmeasured(self.space))
        return list(dict.fromkeys(str(edits) for edits in batch))

    def nearest(self, rows: np.ndarray) -> np.ndarray:
        batch = self.space.repair(decode_onto(self.space, rows), **unmeasured(self.space))
        return encode_students(self.space, batch)

    def neighbours(self, texts: Sequence[str], num: int, rng: np.random.Generator) -> list[str]:
        if not num:
            return []
        options = unmeasured(self.space)
        chosen = rng.integers(len(texts), size=num)
        parents = self.space.batch([texts[int(place)] for place in chosen])
        half = num // 2
        varied = self.space.vary(parents[:half], rng, **options)
        mutated = self.space.mutate(parents[half:], rng, **options)
        return list(dict.fromkeys(str(edits) for batch in (varied, mutated) for edits in batch))

    def around(
        self, texts: Sequence[str], num: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, Reader]:
        options, half = unmeasured(self.space), num // 2
        parents, each = self.space.batch(texts), np.arange(len(texts))
        varied = self.space.vary(parents[np.repeat(each, half)], rng, **options)
        mutated = self.space.mutate(parents[np.repeat(each, num - half)], rng, **options)
        batch = EditsBatch.concatenate([parents, varied, mutated])
        behind = np.split(np.arange(len(each), len(batch)), [len(varied)])
        table = [each[:, None], *(part.reshape(len(each), -1) for part in behind)]
        places = np.concatenate(table, axis=1)  # [S, 1 + num]
        rows = encode_students(self.space, batch)[places]
        return rows, lambda start, place: str(batch[int(places[start, place])])

    def _draw(self, num: int, rng: np.random.Generator) -> EditsBatch:
        """Random students; inside a budget half of them are variations of the scaled teacher."""
        options = unmeasured(self.space)
        if not self.space.limits or num < 2:
            return self.space.sample(num, rng, **options)
        half = num // 2
        parts = [self.space.sample(half, rng, **options)]
        parts.append(scaled_variations(self.space, num - half, rng))
        batch = EditsBatch.concatenate(parts)
        return batch[rng.permutation(num)]

    def _sizes(self, batch: EditsBatch, metric: str) -> np.ndarray:
        if metric == "latency":
            return self.space.latency_ms(batch)
        counts = self.space.macs(batch) if metric == "macs" else self.space.num_params(batch)
        return counts.astype(np.float64)

    def _with_skips(self, batch: EditsBatch, origins: Sequence[str | None]) -> EditsBatch:
        known = {text: self.space.parse(text).skips for text in set(origins) if text is not None}
        skips = [known.get(text, ()) if text is not None else () for text in origins]
        rows = np.repeat(np.arange(len(skips)), [len(one) for one in skips])
        pairs = np.array([pair for one in skips for pair in one], np.int64)
        return EditsBatch(batch.remove, batch.widths, rows, pairs)


def _distinct(batch: EditsBatch) -> EditsBatch:
    """The batch without repetitions, in the order of first appearance."""
    keys = [row.tobytes() for row in np.concatenate([batch.remove, batch.widths], axis=1)]
    skips: list[list[int]] = [[] for _ in keys]
    for row, pair in zip(batch.skip_rows.tolist(), batch.skip_pairs.tolist(), strict=True):
        skips[row].append(pair)
    first: dict[tuple[bytes, tuple[int, ...]], int] = {}
    for place, (key, pairs) in enumerate(zip(keys, skips, strict=True)):
        first.setdefault((key, tuple(pairs)), place)
    return batch[np.array(list(first.values()), np.int64)]


def make_domain(space: SearchSpace, options: StepOptions) -> Domain:
    """The students that the options ask for; raises ConfigError where the teacher does not suit them."""
    if not options.chains:
        return EditsDomain(space)
    from searchers.embedding_gradient.chains import make_chain_domain

    return make_chain_domain(space, options.sampler, faithful=options.faithful)
