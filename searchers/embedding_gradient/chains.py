"""Free chains as students (the paper's own setting), repaired to the nearest valid one of a size.

A decoded sequence is seldom a network: kernels are cut to the map that arrives, pools without a map and windows behind a linear layer are
left out, a linear layer of the classes ends it, and all widths shrink by one factor until it fits the budget and is smaller than the
teacher. What has no convolution then, or cannot fit, is rejected, as in section 9 of the paper.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from raysearch.architecture.budget import cost
from raysearch.architecture.sequences import (
    decode_chain,
    encode_sequence,
    sample_chains,
    valid_chains,
    without_gaps,
)
from raysearch.architecture.sequences.chains import (
    AVG_POOL,
    CONV,
    LINEAR,
    MAX_POOL,
    MAX_ROWS,
    NONE,
    NORM,
)
from raysearch.errors import ConfigError

if TYPE_CHECKING:
    from raysearch.architecture import SearchSpace
    from searchers.embedding_gradient.domain import Reader

Row = tuple[int, int, int, int, int]
DRAWN = {"paper": 2048, "restricted": 128}
"""Chains that are drawn at a time."""
MAX_DRAWS = 64
"""Draws after which a sample is as small as it is."""
MAX_DECODED = 256
"""Of the points on the paths of a step, evenly chosen: a chain takes a millisecond to write."""
MAX_AROUND = 6
"""Around each start: as many as 48 descents can afford."""
HALVINGS = 16
"""Of the interval of the factor of all widths."""
_WINDOWS = (CONV, MAX_POOL, AVG_POOL)


def chain_costs(rows: Sequence[Row], input_shape: Sequence[int]) -> tuple[int, int]:
    """Parameters and MACs of a valid chain, equal to those of `decode_chain`'s network."""
    channels, size, params, macs = input_shape[0], list(input_shape[1:]), 0, 0
    rank = len(size)
    followers = [row[0] for row in rows[1:]] + [NONE]
    for (kind, kernel, outputs, stride, padding), follower in zip(rows, followers, strict=True):
        if kind in _WINDOWS:
            size = [(one + 2 * padding - kernel) // stride + 1 for one in size]
        if kind == CONV:
            weights = channels * kernel**rank * outputs
            params += weights + (0 if follower == NORM else outputs)  # the bias
            macs += weights * math.prod(size)
            channels = outputs
        elif kind == LINEAR:
            into = channels * math.prod(size)
            params += into * outputs + outputs
            macs += into * outputs
            channels, size = outputs, []
        elif kind == NORM:
            params += 2 * channels
    return params, macs


def nearest_valid(
    rows: np.ndarray, input_shape: Sequence[int], num_classes: int, max_rows: int = MAX_ROWS
) -> list[Row] | None:
    """The valid chain nearest to rows; None: it has no convolution.

    Args:
        rows: [T, 5] whole numbers.
        input_shape, num_classes: of the networks.
        max_rows: of the chain.
    """
    size, is_flat = list(input_shape[1:]), len(input_shape) == 1
    channels, made = int(input_shape[0]), []
    for kind, kernel, outputs, stride, padding in np.asarray(rows, np.int64).tolist():
        if not CONV <= kind <= LINEAR:
            continue
        if kind in _WINDOWS:
            kernel, stride, padding = max(kernel, 1), max(stride, 1), max(padding, 0)
            is_pool = kind != CONV
            fits = kernel <= min(size, default=0) + 2 * padding
            fits &= not is_pool or padding <= kernel // 2
            if is_flat or (is_pool and not fits and min(size) < 2):
                continue
            kernel = min(kernel, min(size) + 2 * padding)
            if is_pool and padding > kernel // 2:
                padding = kernel // 2
                kernel = min(kernel, min(size) + 2 * padding)
            size = [(one + 2 * padding - kernel) // stride + 1 for one in size]
        else:
            kernel = stride = padding = 0
        if kind in (CONV, LINEAR):
            channels = max(outputs, 1)
        is_flat |= kind == LINEAR
        made.append((kind, kernel, channels, stride, padding))
    if made and made[-1][0] == LINEAR:
        made.pop()
    made = [*made[: max_rows - 1], (LINEAR, 0, num_classes, 0, 0)]
    return made if any(row[0] == CONV for row in made) else None


def scaled(rows: Sequence[Row], input_shape: Sequence[int], factor: float) -> list[Row]:
    """All widths but the last by one factor."""
    channels, made = int(input_shape[0]), []
    for place, (kind, kernel, outputs, stride, padding) in enumerate(rows):
        if kind in (CONV, LINEAR):
            is_last = place == len(rows) - 1
            channels = outputs if is_last else max(1, math.floor(outputs * factor))
        made.append((kind, kernel, channels, stride, padding))
    return made


def fitted(
    rows: Sequence[Row], input_shape: Sequence[int], limits: Mapping[str, float]
) -> list[Row] | None:
    """The chain with its widths as large as "params" and "macs" allow, at most as they are; None: it cannot fit."""

    def fits(candidate: Sequence[Row]) -> bool:
        params, macs = chain_costs(candidate, input_shape)
        return params <= limits.get("params", math.inf) and macs <= limits.get("macs", math.inf)

    if fits(rows):
        return list(rows)
    low, high, best = 0.0, 1.0, scaled(rows, input_shape, 0.0)
    if not fits(best):
        return None
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        candidate = scaled(rows, input_shape, middle)
        if fits(candidate):
            low, best = middle, candidate
        else:
            high = middle
    return best


@dataclass(frozen=True, eq=False)
class ChainDomain:
    """Free chains that take the teacher's input and give its classes.

    Attributes:
        space: whose teacher and budget count.
        sampler: "paper" or "restricted".
        num_rows: T_max.
    """

    space: SearchSpace
    sampler: str
    num_rows: int
    _rows: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def aligned(self) -> bool:
        return False

    @property
    def input_shape(self) -> tuple[int, ...]:
        return self.space.teacher.input_shape

    @property
    def num_classes(self) -> int:
        return self.space.teacher[self.space.teacher.output].shape[0]

    @property
    def limits(self) -> dict[str, float]:
        """Of the budget; and a student has fewer parameters than the teacher."""
        most = self.space.teacher.num_params - 1
        return {**self.space.limits, "params": min(self.space.limits.get("params", most), most)}

    @property
    def teacher_rows(self) -> np.ndarray:
        return self._pad(without_gaps(encode_sequence(self.space.teacher)))

    def rows(self, texts: Sequence[str]) -> np.ndarray:
        for text in texts:
            if text not in self._rows:
                rows = without_gaps(encode_sequence(self.space.apply(text)))
                self._rows[text] = self._pad(rows[: self.num_rows])
        if not texts:
            return np.zeros((0, self.num_rows, 5), np.int64)
        return np.stack([self._rows[text] for text in texts])

    def sizes(self, texts: Sequence[str], metric: str) -> np.ndarray:
        return self._costs(self.rows(texts), metric)

    def cloud(
        self, num: int, metric: str, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Half of them random ones, half made of the teacher."""
        made = self._sample(num // 2, rng)
        teacher = self.teacher_rows
        while len(made) < num:
            changed = self._changed(teacher, rng, share=float(rng.uniform(0, 0.5)))
            if (rows := nearest_valid(changed, self.input_shape, self.num_classes)) is not None:
                made.append(self._pad(np.array(rows)))
        rows = np.stack(made)
        return rows, self._costs(rows, metric)

    def sample(self, num: int, rng: np.random.Generator) -> list[str]:
        return [text for rows in self._sample(num, rng) if (text := self._write(rows)) is not None]

    def near_teacher(self, num: int, rng: np.random.Generator) -> list[str]:
        """Students made of the teacher, and random ones of any size: where `sample`, which fills a limit, has few (chains of two layers)."""
        return self.decode(self.cloud(num, "params", rng)[0], [None] * num)

    def decode(self, rows: np.ndarray, origins: Sequence[str | None]) -> list[str]:
        del origins  # a chain's sequence says everything
        distinct = list({one.tobytes(): one for one in np.rint(rows).astype(np.int64)}.values())
        stride = max(1, -(-len(distinct) // MAX_DECODED))
        repaired = [self._repair(one) for one in distinct[::stride]]
        texts = [self._write(one) for one in repaired if one is not None]
        return list(dict.fromkeys(text for text in texts if text is not None))

    def nearest(self, rows: np.ndarray) -> np.ndarray:
        found = [self._repair(one) for one in np.rint(rows).astype(np.int64)]
        teacher = self.teacher_rows
        return np.stack([teacher if one is None else one for one in found])

    def neighbours(self, texts: Sequence[str], num: int, rng: np.random.Generator) -> list[str]:
        parents = self.rows(texts)
        made = []
        for _ in range(num):
            parent = parents[int(rng.integers(len(parents)))]
            made.append(self._changed(parent, rng, share=0.15))
        return self.decode(np.stack(made), [None] * num) if made else []

    def around(
        self, texts: Sequence[str], num: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, Reader]:
        made = []
        for parent in self.rows(texts):
            changed = (self._changed(parent, rng, share=0.15) for _ in range(min(num, MAX_AROUND)))
            repaired = (self._repair(one) for one in changed)
            made.append(np.stack([parent, *(parent if r is None else r for r in repaired)]))
        rows = np.stack(made)
        return rows, lambda start, place: self._write(rows[start, place])

    def _sample(self, num: int, rng: np.random.Generator) -> list[np.ndarray]:
        """The literal sampler rejects what is too large, as the paper does; the restricted one shrinks it."""
        made: list[np.ndarray] = []
        for _ in range(MAX_DRAWS):
            if len(made) >= num:
                break
            drawn = sample_chains(
                DRAWN[self.sampler], rng, self.input_shape, self.num_classes, sampler=self.sampler
            )
            drawn = drawn[(drawn[:, :, 0] != NONE).sum(axis=1) <= self.num_rows]
            drawn = drawn[valid_chains(drawn, self.input_shape, self.num_classes)]
            for rows in drawn[:, : self.num_rows]:
                chain = [tuple(row) for row in rows.tolist() if row[0] != NONE]
                fit = fitted(chain, self.input_shape, self.limits)
                is_cut = fit is not None and fit != chain
                if fit is not None and not (is_cut and self.sampler == "paper"):
                    made.append(self._pad(np.array(fit)))
                if len(made) == num:
                    break
        return made

    def _changed(self, rows: np.ndarray, rng: np.random.Generator, share: float) -> np.ndarray:
        """Some layers left out, all widths changed a little, and together."""
        stays = rng.random(len(rows)) >= share * rng.random()
        factor = np.exp(rng.normal(0, 0.35, len(rows)) + rng.normal(0, 0.7) - 0.5)
        changed = rows.copy()
        changed[:, 2] = np.maximum(np.rint(rows[:, 2] * factor), 1)
        changed[~stays] = NONE
        return changed

    def _repair(self, rows: np.ndarray) -> np.ndarray | None:
        chain = nearest_valid(rows, self.input_shape, self.num_classes, self.num_rows)
        if chain is None:
            return None
        chain = fitted(chain, self.input_shape, self.limits)
        return None if chain is None else self._pad(np.array(chain))

    def _write(self, rows: np.ndarray) -> str | None:
        """The text; None: over the budget of memory."""
        network = decode_chain(rows, self.input_shape, self.num_classes)
        memory = self.limits.get("memory", math.inf)
        if memory < math.inf and cost(network, "memory") > memory:
            return None
        text = network.to_compact()
        self._rows[text] = rows
        return text

    def _costs(self, rows: np.ndarray, metric: str) -> np.ndarray:
        place = {"params": 0, "macs": 1}[metric]
        chains = [[tuple(row) for row in one.tolist() if row[0] != NONE] for one in rows]
        return np.array([chain_costs(one, self.input_shape)[place] for one in chains], np.float64)

    def _pad(self, rows: np.ndarray) -> np.ndarray:
        return np.pad(rows, ((0, self.num_rows - len(rows)), (0, 0)))


def make_chain_domain(space: SearchSpace, sampler: str, *, faithful: bool) -> ChainDomain:
    """The chains of a teacher; T_max is the paper's 50 where faithful, else the teacher's.

    Raises:
        ConfigError: the teacher is no chain, or latency is limited.
    """
    teacher = space.teacher
    rows = without_gaps(encode_sequence(teacher))
    output = teacher[teacher.output].shape
    if len(rows) > MAX_ROWS:
        raise ConfigError(
            f"search.options.chains is true, but the teacher has {len(rows)} layers, and a chain at most {MAX_ROWS}: set it to false"
        )
    if not (len(output) == 1 and valid_chains(rows[None], teacher.input_shape, output[0])[0]):
        raise ConfigError(
            f"search.options.chains is true, but the teacher of {len(rows)} layers is no chain of convolutions, pools, norms and linear layers: "
            "set it to false"
        )
    if "latency_ms" in space.limits:
        raise ConfigError(
            f"budget.latency_ms is {space.limits['latency_ms']}, which free chains are not repaired to: limit macs, or set search.options.chains to false"
        )
    return ChainDomain(space, sampler, MAX_ROWS if faithful else len(rows))
