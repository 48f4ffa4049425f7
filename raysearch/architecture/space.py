"""The search space: all students that removing layers, shrinking channel groups and adding skips make of one teacher.

Everything here works on batches of edits (`EditsBatch`) relative to the teacher; `apply` alone makes a network, and is the truth that the
fast counts must equal.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np

from raysearch.architecture.apply import apply_edits
from raysearch.architecture.budget import (
    check_latency,
    check_limit,
    cost,
    resolve_budget,
    teacher_costs,
)
from raysearch.architecture.channels import analyse
from raysearch.architecture.compact import CompactBatch, CompactEncoder
from raysearch.architecture.costs import CostModel
from raysearch.architecture.counts import Counts
from raysearch.architecture.edits import Edits, EditsBatch, pad_columns
from raysearch.architecture.encoding import BatchEncoder
from raysearch.architecture.features import FeatureMap
from raysearch.architecture.gathers import check_inputs, gatherable, insert_gathers
from raysearch.architecture.graph import COMPACT_PREFIX, Architecture
from raysearch.architecture.groups import ChannelGroup, channel_map, group_channels
from raysearch.architecture.latency import MEASURED, Meter, Stopwatch
from raysearch.architecture.legal import removable_layers, skip_pairs
from raysearch.architecture.repairs import RepairMaker
from raysearch.architecture.sampling import Dimensions, mutate_edits, sample_edits, vary_edits
from raysearch.architecture.validate import (
    OPERATIONS,
    check_batch,
    check_edits,
    check_operations,
    free_architecture,
)
from raysearch.errors import ConfigError, InvalidArchitecture


class SearchSpace:
    """The students of one teacher.

    Attributes:
        teacher: the network that is compressed.
        operations: which of "remove", "shrink", "skip" may be used.
        groups: the free channel groups, in the order of the widths of edits.
        frozen_groups: the channels that must keep their number, and why.
        group_of: for each channel variable of `analyse(teacher)` the position of its group in `groups`, or -1 where it is frozen.
        removable: indices of the layers that may be removed.
        skip_pairs: [P, 2] int64, layer indices (from, to) of the skips that may be added.
        limits: the budget by metric, in absolute numbers; an accuracy limits nothing here.
        meter: what measures latency; None: the CPU's meter, from the first measurement on.
    """

    def __init__(
        self,
        teacher: Architecture,
        operations: Sequence[str] = OPERATIONS,
        grouping: str = "coupled",
        divisor: int | None = None,
        min_channels: int = 1,
        budget: Mapping[str, object] | None = None,
        latency: Meter | None = None,
    ) -> None:
        """
        Args:
            teacher: the network to compress.
            operations: any of "remove", "shrink", "skip".
            grouping: "coupled" (a width for each set of coupled channels) or "by_size" (ESNAC: one for all of a size).
            divisor: widths are multiples of it; None: 1 for narrow groups, 8 from 64 channels up.
            min_channels: the smallest width.
            budget: limits on "params", "macs" and "memory": a float in (0, 1] (a fraction of the teacher's), a number above 1, or text
                ("60%", "1.2M"); on "latency_ms": a number. With an "accuracy" (a floor) students are not grown to fill the limits, as
                small ones are wanted.
            latency: measures students for `latency_ms`; None: on the CPU.

        Raises:
            ConfigError: operations, grouping, divisor or min_channels are wrong.
            BudgetError: the budget is malformed, or no student meets it.
        """
        self.teacher = teacher
        self.operations = check_operations(operations)
        analysis = analyse(teacher)
        grouped = group_channels(
            analysis, grouping=grouping, divisor=divisor, min_channels=min_channels
        )
        self.groups: tuple[ChannelGroup, ...] = grouped.free
        self.frozen_groups: tuple[ChannelGroup, ...] = grouped.frozen
        self.group_of: tuple[int, ...] = grouped.group_of
        self._channels = channel_map(teacher, analysis, grouped)
        costs = CostModel.of(teacher, self._channels)
        self.removable: tuple[int, ...] = ()
        if "remove" in self.operations:
            self.removable = removable_layers(teacher, self._channels)
        self.skip_pairs: np.ndarray = np.zeros((0, 2), np.int64)
        if "skip" in self.operations:
            self.skip_pairs = skip_pairs(teacher, self._channels)
        self._counts = Counts(teacher, self._channels, self.skip_pairs, costs)
        self._dimensions = Dimensions(
            num_layers=len(teacher.layers),
            removable=np.array(self.removable, np.int64),
            sizes=np.array([group.size for group in self.groups], np.int64),
            steps=np.array([group.divisor for group in self.groups], np.int64),
            shrink="shrink" in self.operations,
            num_pairs=len(self.skip_pairs),
        )
        self.limits: dict[str, float] = resolve_budget(budget, teacher_costs(teacher))
        self.meter = latency
        self._stopwatch = Stopwatch(latency)
        self._settled: set[str] = set()
        self._check_budget()
        self._repairer, self._measured = RepairMaker(
            counts=self._counts,
            dimensions=self._dimensions,
            groups=self.groups,
            grow="accuracy" not in (budget or {}),
            apply=self.apply,
            stopwatch=self._stopwatch,
            smallest=self.smallest(),
            largest=self.largest(),
        ).make(self.limits)

    def __repr__(self) -> str:
        return (
            f"SearchSpace({len(self.teacher.layers)} layers, {len(self.groups)} groups, "
            f"{len(self.removable)} removable, {len(self.skip_pairs)} skip pairs, limits={self.limits})"
        )

    def sample(
        self, n: int, seed: int | np.random.Generator, *, measured: bool | None = None
    ) -> EditsBatch:
        """Draws n students by ESNAC's distributions and repairs them to the budget; `measured` as in `repair`."""
        if not isinstance(n, int | np.integer) or isinstance(n, bool) or n < 0:
            raise ConfigError(f"n is {n!r}: give the number of students to draw")
        right = isinstance(seed, np.random.Generator | int | np.integer)
        if not right or (not isinstance(seed, np.random.Generator) and seed < 0):
            raise ConfigError(
                f"seed is {seed!r}: give a whole number of at least 0, or a generator"
            )
        drawn = sample_edits(self._dimensions, n, np.random.default_rng(seed))
        return self.repair(drawn, measured=measured)

    def mutate(
        self,
        batch: EditsBatch,
        rng: int | np.random.Generator,
        num_edits: tuple[int, int] = (1, 4),
        *,
        measured: bool | None = None,
    ) -> EditsBatch:
        """Applies some random edits to each student and repairs it to the budget; `measured` as in `repair`."""
        full = self._conform(batch)
        mutated = mutate_edits(self._dimensions, full, np.random.default_rng(rng), num_edits)
        return self.repair(mutated, measured=measured)

    def vary(
        self, batch: EditsBatch, rng: int | np.random.Generator, *, measured: bool | None = None
    ) -> EditsBatch:
        """Varies all widths of each student, and a few removals, and repairs it to the budget; `measured` as in `repair`."""
        varied = vary_edits(self._dimensions, self._conform(batch), np.random.default_rng(rng))
        return self.repair(varied, measured=measured)

    def repair(self, batch: EditsBatch, *, measured: bool | None = None) -> EditsBatch:
        """Moves every student into the budget: shrunk to fit, grown to fill (see `repair.py`).

        Deterministic (given the measurements) and idempotent. Skips into removed layers, which have no effect, are dropped.

        Args:
            batch: any students.
            measured: with a latency budget, whether measurements or the model of `latency.py` decide about it. None: measurements for up
                to `MEASURED` students. Searchers that weigh thousands let the model propose, and repair the one that they take.
        """
        batch = self._conform(batch)
        if measured is None:
            measured = len(batch) <= MEASURED
        if self._measured is None or not measured:
            return self._repairer(batch)
        given = list(batch)
        known = [str(edits) in self._settled for edits in given]
        rows = np.flatnonzero(~np.array(known, bool))
        for row, edits in zip(rows, self._measured(batch[rows]), strict=True):
            given[row] = edits
            self._settled.add(str(edits))
        return self.batch(given)

    def uniform(self) -> Edits:
        """The teacher scaled to the budget: all groups by one factor, nothing removed if it can be helped, the rest filled."""
        return self.repair(EditsBatch.from_edits([self.largest()]))[0]

    def largest(self) -> Edits:
        """The teacher itself, whatever the budget."""
        return Edits(widths=tuple(group.size for group in self.groups))

    def smallest(self) -> Edits:
        """Every removable layer removed, every width at its minimum."""
        return Edits(remove=self.removable, widths=self._smallest_widths())

    def num_params(self, batch: EditsBatch | Edits) -> np.ndarray:
        """Trainable parameters of every student: [n] int64, exact."""
        return self._count(batch, "params")

    def macs(self, batch: EditsBatch | Edits) -> np.ndarray:
        """Multiply-accumulates of every student for one input: [n] int64, exact."""
        return self._count(batch, "macs")

    def memory(self, batch: EditsBatch | Edits) -> np.ndarray:
        """Bytes of weights and of the activations that live at once, for one input (`Architecture.memory_bytes`): [n] int64, exact."""
        return self._count(batch, "memory")

    def latency_ms(self, batch: EditsBatch | Edits | Sequence[Edits | str]) -> np.ndarray:
        """Measured milliseconds of one forward pass: [n] float64. Each architecture is built and measured once in a space.

        Args:
            batch: students as `apply` takes them.
        """
        edits = [batch] if isinstance(batch, Edits) else batch
        return np.array([self._measure(one) for one in edits], np.float64)

    def within_budget(self, batch: EditsBatch | Edits) -> np.ndarray:
        """Which students are inside every limit: [n] bool; with a latency budget each is measured."""
        counts = [self._count(batch, metric) <= limit for metric, limit in self.limits.items()]
        rows = 1 if isinstance(batch, Edits) else len(batch)
        return np.logical_and.reduce(counts) if counts else np.ones(rows, bool)

    def batch(self, edits: Iterable[Edits | str]) -> EditsBatch:
        """Stacks edits or their texts."""
        parsed = [self.parse(one) if isinstance(one, str) else one for one in edits]
        if not parsed:
            return EditsBatch(
                np.zeros((0, len(self.teacher.layers)), bool),
                np.zeros((0, len(self.groups)), np.int64),
            )
        return self._conform(EditsBatch.from_edits(parsed, len(self.teacher.layers)))

    def parse(self, text: str) -> Edits:
        """Reads the text of edits and checks it against this space; `parse(str(edits)) == edits`.

        Raises:
            InvalidArchitecture: where the text is malformed, or names what this space does not have.
        """
        edits = Edits.from_text(text)
        self._check_edits(edits)
        return edits

    def apply(self, edits: Edits | str) -> Architecture:
        """Makes the student.

        Args:
            edits: edits, their text, or the compact text of a whole network (`Architecture.to_compact`).

        Raises:
            InvalidArchitecture: where the text is malformed or does not fit this space.
        """
        if isinstance(edits, str):
            if edits.startswith(COMPACT_PREFIX):
                return free_architecture(edits, self.teacher)
            edits = self.parse(edits)
        elif isinstance(edits, Edits):
            self._check_edits(edits)
        else:
            raise InvalidArchitecture(
                f"an architecture is edits or their text, got {type(edits).__name__}"
            )
        removed = set(edits.remove)
        skips = [tuple(pair) for pair in self.skip_pairs[list(edits.skips)].tolist()]
        skips = [(source, target) for source, target in skips if target not in removed]
        student = apply_edits(self.teacher, self._channels, removed, edits.widths, skips)
        return insert_gathers(student, edits, self._channels) if edits.inputs else student

    def architecture_id(self, edits: Edits | str) -> str:
        """The content hash of the student; edits that make the same network have the same one."""
        return self.apply(edits).id

    def encode(
        self, batch: EditsBatch, *, n_max: int | None = None, types: Sequence[str] | None = None
    ) -> np.ndarray:
        """Layer vectors of every student: [n, L, F] float32 (see `encoding.py`)."""
        full = self._conform(batch)
        return self._encoder.encode(self._drop_inactive(full), n_max=n_max, types=types)

    def channel_numbers(self, widths: np.ndarray) -> np.ndarray:
        """Output channels of every layer of the teacher at widths [n, G], removed or not: [n, L] int64."""
        out = self._channels.out
        return out.fixed + widths @ out.matrix.T

    def encode_compact(self, batch: EditsBatch) -> CompactBatch:
        """The same as `encode` in a form that is linear in layers and edits: for thousands (see `compact.py`)."""
        active = self._drop_inactive(self._conform(batch))
        return self._compact_encoder(
            active.remove, active.widths, active.skip_rows, active.skip_pairs
        )

    def features(self, batch: EditsBatch) -> np.ndarray:
        """Hand-made features for a Gaussian process: [n, D] float32, of about unit range; `feature_blocks` names the columns."""
        full = self._conform(batch)
        return self._features(self._drop_inactive(full), self.num_params(full))

    @property
    def feature_blocks(self) -> Mapping[str, slice]:
        """The columns of `features` by block, for kernels with one length scale a block."""
        return self._features.blocks

    @cached_property
    def gatherable(self) -> tuple[int, ...]:
        """Indices of the layers that may keep some of their inputs (`Edits.inputs`) where nothing is removed."""
        return gatherable(self.teacher, self._channels)

    @cached_property
    def _encoder(self) -> BatchEncoder:
        return BatchEncoder.of(self.teacher, self._channels, self.skip_pairs)

    @cached_property
    def _compact_encoder(self) -> CompactEncoder:
        return CompactEncoder.of(self._encoder)

    @cached_property
    def _features(self) -> FeatureMap:
        return FeatureMap.of(
            self.teacher,
            np.array(self.removable, np.int64),
            self._dimensions.sizes,
            len(self.skip_pairs),
        )

    def _smallest_widths(self) -> tuple[int, ...]:
        shrink = "shrink" in self.operations
        return tuple(group.min_channels if shrink else group.size for group in self.groups)

    def _measure(self, edits: Edits | str) -> float:
        return self._stopwatch(self.apply(edits))

    def _count(self, batch: EditsBatch | Edits, metric: str) -> np.ndarray:
        if metric == "latency_ms":
            return self.latency_ms(batch)
        if isinstance(batch, Edits):
            batch = EditsBatch.from_edits([batch])
        batch = self._conform(batch)
        found = self._counts(batch, metric)
        for row in np.unique(batch.input_rows):  # of few inputs, and hardly ever any
            found[row] = cost(self.apply(batch[row]), metric)
        return found

    def _active_skips(self, remove: np.ndarray, batch: EditsBatch) -> np.ndarray:
        return ~remove[batch.skip_rows, self.skip_pairs[batch.skip_pairs, 1]]

    def _drop_inactive(self, batch: EditsBatch) -> EditsBatch:
        active = self._active_skips(batch.remove, batch)
        return replace(
            batch, skip_rows=batch.skip_rows[active], skip_pairs=batch.skip_pairs[active]
        )

    def _conform(self, batch: EditsBatch) -> EditsBatch:
        """The batch with one column of `remove` for every layer, checked to be of this space."""
        layers = len(self.teacher.layers)
        if not len(batch) and not batch.widths.size:
            widths = np.zeros((0, len(self.groups)), np.int64)
            return EditsBatch(np.zeros((0, layers), bool), widths)
        check_batch(batch, self.groups, self.removable, len(self.skip_pairs))
        return replace(batch, remove=pad_columns(batch.remove, layers))

    def _check_edits(self, edits: Edits) -> None:
        check_edits(edits, self.teacher, self.groups, self.removable, len(self.skip_pairs))
        check_inputs(edits, self.teacher, self._channels)

    def _check_budget(self) -> None:
        """Raises BudgetError where not even the smallest student is inside a limit."""
        smallest = self.apply(self.smallest())
        for metric, limit in self.limits.items():
            if metric == "latency_ms":
                check_latency(limit, self._stopwatch(smallest), smallest)
            else:
                check_limit(metric, limit, smallest, self.teacher)
