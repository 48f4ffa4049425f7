"""Searches by steps: a step computes a batch of students ahead, in a thread, as soon as a result has come and while other students train.

What a step gives depends on the seed and on what was told when it began, never on when it was ready. A saved search begins its unfinished
batch again from the same snapshot, so that neither students nor models need to be saved.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np

from searchers.ahead import Ahead, Cancelled
from searchers.algorithm import Observation
from searchers.candidates import scaled_variations
from searchers.insight import Insight, InsightFailed
from searchers.ledger import Ledger, fresh_draws

if TYPE_CHECKING:
    from raysearch.architecture import EditsBatch, SearchSpace

C = TypeVar("C")

MIN_FULL = 2
"""Full observations below which there is nothing to learn from."""

ONE_AT_A_TIME = threading.Lock()
"""Held by whatever uses models: GPyTorch's settings belong to the whole process, and a look inside shares the step's networks."""


@dataclass(frozen=True)
class Snapshot:
    """What is known when a step begins.

    Attributes:
        full: the outcomes of full trainings, in the order of telling.
        pending: texts of the outstanding students.
        known: texts of all students that were proposed or told.
        seed: of everything random in the step; its first number is the search's.
        stopped: the outcomes of trainings that were stopped early, in the order of telling.
    """

    full: tuple[Observation, ...]
    pending: tuple[str, ...]
    known: frozenset[str]
    seed: tuple[int, ...]
    stopped: tuple[Observation, ...] = ()


@dataclass
class Batch:
    """The students of one step.

    Attributes:
        key: the number of tellings when it began, and how many steps began at the same number before it.
        num_outcomes: the outcomes that it knows are so many of the oldest.
        snapshot: what it is computed from.
        taken: how many of its students were looked at.
        num_given: how many of them were proposed, where the method counts them.
        spent: it has no more.
    """

    key: tuple[int, int]
    num_outcomes: int
    snapshot: Snapshot
    taken: int = 0
    num_given: int = 0
    spent: bool = False

    def state_dict(self) -> dict[str, Any]:
        """Everything but the outcomes, which the ledger keeps."""
        return {
            "key": list(self.key),
            "num_outcomes": self.num_outcomes,
            "pending": list(self.snapshot.pending),
            "taken": self.taken,
            "num_given": self.num_given,
            "spent": self.spent,
        }


class BatchedAlgorithm(Generic[C]):
    """The books of such a search; C is what a step gives of a student.

    A method says which step its next students come from (`_current`), computes it (`_compute`), and proposes (`ask`).

    Args:
        space: where the students come from.
        seed: of everything random.

    Attributes:
        num_fallbacks: proposals that are random because the model failed.
    """

    def __init__(self, space: SearchSpace, seed: int) -> None:
        self.space = space
        self.num_fallbacks = 0
        self._seed = seed
        self._ledger = Ledger(space)
        self._rng = np.random.default_rng(seed)
        self._num_told = 0
        self._was_asked = False
        self._batch: Batch | None = None
        self._ahead: Ahead[list[C]] = Ahead()

    @property
    def busy(self) -> bool:
        """Whether `ask` would wait for a step; begins to compute it."""
        batch = self._current()
        if batch is None:
            return False
        self._ahead.start(batch.key, partial(self._run, batch))
        return not self._ahead.is_ready(batch.key)

    @property
    def background_s(self) -> float:
        """Seconds of proposing that no call of `ask` took."""
        return self._ahead.unnoticed_s

    def tell(self, observation: Observation) -> None:
        """See `searchers.algorithm`; begins the next step where the search goes on."""
        self._ledger.record(observation)
        self._num_told += 1
        if self._was_asked:  # else it is a line of a log, told before the search goes on
            self._was_asked = False
            _ = self.busy

    # What a method supplies

    def _current(self) -> Batch | None:
        """The step whose students come next, begun where there is none; None: there is nothing to begin it with."""
        raise NotImplementedError

    def _compute(self, batch: Batch, cancelled: Cancelled) -> list[C]:
        """The students of a step, the most wanted first; called in a thread, one at a time in the process."""
        raise NotImplementedError

    # Steps

    def _choices(self, batch: Batch) -> list[C]:
        """What `_compute` gives or raises, waited for."""
        self._was_asked = True
        return self._ahead.result(batch.key, partial(self._run, batch))

    def _run(self, batch: Batch, cancelled: Cancelled) -> list[C]:
        with ONE_AT_A_TIME:
            return self._compute(batch, cancelled)

    def _unspent(self, *, lasts: bool) -> Batch | None:
        """The batch that was begun last while it has students: those of a batch that lasts, others until a result comes."""
        batch = self._batch
        if batch is None or batch.spent:
            return None
        return batch if lasts or batch.key[0] == self._num_told else None

    def _begin(self) -> Batch:
        """A batch of everything that is known now."""
        batch, num_outcomes = self._batch, len(self._ledger.told)
        again = batch is not None and batch.key[0] == self._num_told
        key = (self._num_told, batch.key[1] + 1 if again and batch is not None else 0)
        snapshot = self._snapshot(key, num_outcomes, list(self._ledger.pending.values()))
        self._batch = Batch(key, num_outcomes, snapshot)
        return self._batch

    def _snapshot(
        self, key: tuple[int, int], num_outcomes: int, pending: Sequence[str]
    ) -> Snapshot:
        outcomes = list(self._ledger.told.values())[:num_outcomes]
        return Snapshot(
            full=tuple(one for one in outcomes if one.status == "full"),
            pending=tuple(pending),
            known=frozenset([*pending, *(one.architecture for one in outcomes)]),
            seed=(self._seed, *key),
            stopped=tuple(one for one in outcomes if one.status == "stopped"),
        )

    def _newest(self) -> Snapshot | None:
        """Of all outcomes; None while there are too few to learn from."""
        if len(self._ledger.full) < MIN_FULL:
            return None
        return self._snapshot((self._num_told, 0), len(self._ledger.told), ())

    def _look(
        self, look: Callable[[Snapshot], Insight], errors: tuple[type[Exception], ...]
    ) -> Insight | None:
        """What `look` makes of all outcomes; None while there are too few.

        Raises:
            InsightFailed: it raised one of the errors.
        """
        snapshot = self._newest()
        if snapshot is None:
            return None
        try:
            with ONE_AT_A_TIME:
                return look(snapshot)
        except errors as error:
            raise InsightFailed(str(error)) from error

    # Random students

    def _fresh_draws(self) -> tuple[Callable[[int], EditsBatch], ...]:
        """For `Ledger.draw_new`: random students, inside a budget first variations of the scaled one."""
        fresh = fresh_draws(self.space, self._rng)
        if not self.space.limits:
            return fresh
        return (partial(scaled_variations, self.space, rng=self._rng), *fresh)

    # Saving

    def _books(self) -> dict[str, Any]:
        """The state that all such methods have; `_open_books` inverts it."""
        return {
            "ledger": self._ledger.state_dict(),
            "rng": self._rng.bit_generator.state,
            "num_fallbacks": self.num_fallbacks,
            "num_told": self._num_told,
            "batch": None if self._batch is None else self._batch.state_dict(),
        }

    def _open_books(self, state: Mapping[str, Any]) -> None:
        self._ahead.stop()
        self._ledger.load_state_dict(state["ledger"])
        self._rng.bit_generator.state = state["rng"]
        self.num_fallbacks = state["num_fallbacks"]
        self._num_told = state["num_told"]
        self._batch = None
        if state["batch"] is not None:
            batch = dict(state["batch"])
            key = (batch["key"][0], batch["key"][1])
            snapshot = self._snapshot(key, batch["num_outcomes"], batch.pop("pending"))
            self._batch = Batch(**{**batch, "key": key, "snapshot": snapshot})
