"""The stages of a run: what is trained, and in which order.

A run is one Tune experiment. Its searcher is a `raysearch.pipeline.Pipeline`: an ask/tell algorithm made of stages, each of which hands out students to
train as soon as what it depends on is known. There is no barrier between stages: while the last trials of the search are still
running, the free slots already work on the next stage, and Tune never lets an actor go.

    (runs --> where the method finds its students in trainings of its own, `raysearch.runs_stage`)
    search --> finish (the best few, trained fully)
    uniform (the teacher scaled to the budget, trained fully)
    random --> random_finish (the baseline: the same effort, spent by random search)
    prune --> prune_finish (the baseline: the teacher, pruned)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from raysearch.effort import NO_LIMIT, Effort, epochs_of
from raysearch.observations import ObservationLog, from_record, to_record
from raysearch.search_state import SearchState, keeps_state
from searchers.algorithm import Algorithm, Exhausted, Observation, Proposal, is_busy

MAX_DUPLICATES = 100
"""So many known students in a row, and a search counts as exhausted."""


STARTS = ("channels", "start", "from_run")
"""Keys of a trial's config that say what its student begins with: trainings that differ in one are different trainings."""

Admits = Callable[[Observation], bool]
"""Whether a fully evaluated student keeps what was asked for beside its value."""


@dataclass(frozen=True)
class Candidate:
    """A student that a finishing stage trains fully.

    Attributes:
        architecture: the string of its edits.
        architecture_id: its content hash.
        origin: "search", "uniform", "random" or "prune".
        short: the log record of its short training, where it had one.
        begins: those of `STARTS` that its short training had.
    """

    architecture: str
    architecture_id: str
    origin: str
    short: Mapping[str, Any] | None = None
    begins: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of_record(cls, record: Mapping[str, Any], origin: str) -> Candidate:
        """A student that a search evaluated."""
        begins = {key: record[key] for key in STARTS if record.get(key) is not None}
        return cls(record["architecture"], record["architecture_id"], origin, record, begins)


class Stage(Protocol):
    """One source of students to train.

    `ask` is called from Tune's loop whenever a slot is free and returns None while there is nothing to do, and, unless it may `wait`,
    while a proposal is being computed in the background; `tell` once for every student that was asked for; `done` says that nothing
    will ever come again.
    """

    name: str

    def ask(self, *, wait: bool = True) -> Proposal | None: ...
    def tell(self, observation: Observation) -> None: ...
    @property
    def done(self) -> bool: ...
    @property
    def num_finished(self) -> int: ...
    @property
    def num_total(self) -> int:
        """How many there are going to be in all, as far as that is known by now."""
        ...

    @property
    def epochs_left(self) -> float:
        """What those that are not finished are going to be trained, the ones in training counted whole."""
        ...


class SearchStage:
    """An algorithm with a budget of trials, a log, and the run's cache of results.

    Args:
        name: "search", "random" or "prune".
        algorithm: who proposes.
        num_trials: evaluations in all, those in the log included.
        log: finished evaluations; those that it already holds are told to the algorithm, in their order.
        identify: edits string -> architecture_id.
        first: students that are evaluated before the algorithm is asked.
        cache: architecture_id -> record of a student that another stage evaluated with the same recipe: answered without a trial, where
            it kept the same channels.
        busy: whether another stage is evaluating an architecture_id now; its result is waited for.
        costs: edits string -> what is known of a student's costs before its training, for the log.
        effort: what else ends the search.
        beside: records of what was trained for this search beside its students, and counts as its effort (a log's own list, which grows).
        admits: whether a student keeps what the method was asked for beside its value (constraints); None: nothing was.
        state: where a method that learns on the way keeps what it has learned (`raysearch.search_state`); None: nowhere.
    """

    def __init__(
        self,
        name: str,
        algorithm: Algorithm,
        *,
        num_trials: int,
        log: ObservationLog,
        identify: Callable[[str], str],
        first: Sequence[Proposal] = (),
        cache: Callable[[str], Mapping[str, Any] | None] = lambda architecture_id: None,
        busy: Callable[[str], bool] = lambda architecture_id: False,
        costs: Callable[[str], Mapping[str, float]] = lambda architecture: {},
        effort: Effort = NO_LIMIT,
        beside: Sequence[Mapping[str, Any]] = (),
        admits: Admits | None = None,
        state: SearchState | None = None,
    ) -> None:
        self.name = name
        self.algorithm = algorithm
        self.num_trials = num_trials
        self.log = log
        self.exhausted = False
        self._identify = identify
        self._cache = cache
        self._busy = busy
        self._costs = costs
        self._effort = effort
        self._beside = beside
        self._admits = admits
        self._misses: dict[
            str, bool
        ] = {}  # asked once for each student: `best` is called at every event
        self._propose_s: dict[str, float] = {}
        self._unbooked_s = 0.0
        self._seen_background_s = 0.0
        self._first = list(first)
        self._again: list[Proposal] = []
        self._in_flight: dict[str, Proposal] = {}
        self._known = {record["architecture_id"] for record in log.records}
        self._state = state if keeps_state(algorithm) else None
        self._is_saved = True
        told = 0
        if self._state is not None:
            told, cut = self._state.load(algorithm, log.records)
            self.requeue(cut)
        for record in log.records[told:]:
            algorithm.tell(from_record(record))

    def ask(self, *, wait: bool = True) -> Proposal | None:
        """The next student that must be trained; raises nothing, marks itself exhausted."""
        duplicates = 0
        while not self.done and self._affords_another:
            proposal = self._propose(wait)
            if proposal is None:
                self._save(only_after_tell=True)
                return None
            architecture_id = self._identify(proposal.architecture)
            if architecture_id in self._known or architecture_id in self._in_flight:
                duplicates += 1
                self.exhausted = duplicates > MAX_DUPLICATES
                continue
            if self._busy(architecture_id):
                self.requeue([proposal])
                return None
            extra = {
                **proposal.extra,
                **self._costs(proposal.architecture),
                "stage": self.name,
                "architecture_id": architecture_id,
            }
            proposal = Proposal(proposal.architecture, extra)
            self._in_flight[architecture_id] = proposal
            self._propose_s[architecture_id], self._unbooked_s = self._unbooked_s, 0.0
            self._save()
            record = self._cache(architecture_id)
            if record is None or any(record.get(key) != extra.get(key) for key in STARTS):
                return proposal
            served = from_record(record)
            self.tell(replace(served, extra={**served.extra, **extra, "cached": True}))
        return None

    def _propose(self, wait: bool) -> Proposal | None:
        for waiting in (self._again, self._first):
            if waiting:
                return waiting.pop(0)
        start = time.perf_counter()
        try:
            if not wait and is_busy(self.algorithm):
                return None
            return self.algorithm.ask()
        except Exhausted:
            self.exhausted = True
            return None
        finally:
            self._unbooked_s += time.perf_counter() - start + self._background_s()

    def _background_s(self) -> float:
        """Seconds that the algorithm has worked in the background since the last look."""
        now = float(getattr(self.algorithm, "background_s", 0.0))
        since, self._seen_background_s = now - self._seen_background_s, now
        return since

    @property
    def _affords_another(self) -> bool:
        num_in_flight = len(self._in_flight)
        if num_in_flight + self.num_finished >= self.num_trials:
            return False
        spent = [*self._beside, *self.log.records] if self._beside else self.log.records
        return self._effort.allows_another(spent, num_in_flight)

    @property
    def known(self) -> set[str]:
        """The ids of all students that were evaluated."""
        return self._known

    def record(self, architecture_id: str) -> Mapping[str, Any] | None:
        """The log's record of a student."""
        for record in self.log.records:
            if record["architecture_id"] == architecture_id:
                return record
        return None

    def requeue(self, proposals: Iterable[Proposal]) -> None:
        """Puts students first that were in training when the run was cut; those that are known by now, or queued, are left out."""
        queued = {self._identify(one.architecture) for one in self._again}
        named = {self._identify(one.architecture): one for one in proposals}
        new = [one for key, one in named.items() if key not in self._known | queued]
        self._again = [*new, *self._again]

    def _save(self, *, only_after_tell: bool = False) -> None:
        """Keeps what the method has learned, before what it proposed is handed out."""
        if self._state is None or (only_after_tell and self._is_saved):
            return
        start = time.perf_counter()
        self._state.save(self.algorithm, self.log.records, self.unfinished)
        self._is_saved = True
        self._unbooked_s += time.perf_counter() - start

    def tell(self, observation: Observation) -> None:
        """Logs the result and passes it on."""
        architecture_id = self._identify(observation.architecture)
        self._in_flight.pop(architecture_id, None)
        if architecture_id in self._known:
            return
        self._known.add(architecture_id)
        propose_s = self._propose_s.pop(architecture_id, 0.0)
        extra = {**observation.extra, "architecture_id": architecture_id}
        observation = replace(observation, extra=extra)
        self.log.append({**to_record(observation), "propose_s": round(propose_s, 6)})
        self._is_saved = False
        start = time.perf_counter()
        self.algorithm.tell(observation)
        self._unbooked_s += time.perf_counter() - start  # goes to the next proposal

    def trains(self, architecture_id: str) -> bool:
        """Whether a student is in training."""
        return architecture_id in self._in_flight

    @property
    def in_flight(self) -> list[Proposal]:
        """The students in training."""
        return list(self._in_flight.values())

    @property
    def unfinished(self) -> list[Proposal]:
        """The students in training, and those that wait since the run was cut: what must be trained if it is cut now."""
        return [*self.in_flight, *self._again]

    @property
    def num_finished(self) -> int:
        return len(self.log.records)

    @property
    def num_total(self) -> int:
        begun = self.num_finished + len(self._in_flight)
        if self.exhausted or not self._affords_another:
            return begun
        expected = min(self.num_trials, self._effort.num_trials)
        return max(int(expected), begun)

    @property
    def epochs_left(self) -> float:
        """As many for each as those before were trained: many are stopped early."""
        trained = [epochs_of(record) for record in self.log.records if not record.get("cached")]
        each = sum(trained) / len(trained) if trained else self._effort.epochs_of_trial
        return (self.num_total - self.num_finished) * each

    @property
    def done(self) -> bool:
        if self._in_flight:
            return self.num_finished >= self.num_trials
        return self.exhausted or not self._affords_another

    def best(self, count: int, *, without: Iterable[str] = ()) -> Sequence[Mapping[str, Any]]:
        """The records of the `count` best fully evaluated students, the best first; those that are not admitted come last."""
        excluded = set(without)
        full = [
            record
            for record in self.log.records
            if record["status"] == "full" and record["architecture_id"] not in excluded
        ]
        return sorted(full, key=self._order)[:count]

    def _order(self, record: Mapping[str, Any]) -> tuple[bool, float, str]:
        key = record["architecture_id"]
        if key not in self._misses:
            self._misses[key] = self._admits is not None and not self._admits(from_record(record))
        return self._misses[key], -record["value"], key


class FinishStage:
    """Trains given students fully, as soon as they are known.

    Args:
        name: "finish", "uniform", "random_finish" or "prune_finish".
        choose: names the students once `ready`.
        ready: whether what `choose` needs is there.
        log: finished trainings of all finishing stages with the run's final recipe; a student in it is not trained again.
        asked: ids of students that any finishing stage has handed out (one set, shared by all of them).
        expected: how many students `choose` will name, for the display.
        epochs: of a full training, for the display.
        extra: goes into the config of every trial of this stage.
    """

    def __init__(
        self,
        name: str,
        *,
        choose: Callable[[], list[Candidate]],
        ready: Callable[[], bool],
        log: ObservationLog,
        asked: set[str],
        expected: int,
        epochs: int,
        extra: Mapping[str, Any],
    ) -> None:
        self.name = name
        self.log = log
        self._choose = choose
        self._ready = ready
        self._expected = expected
        self._epochs = epochs
        self._extra = dict(extra)
        self._candidates: list[Candidate] | None = None
        self._asked = asked

    @property
    def candidates(self) -> list[Candidate]:
        """The students of this stage; empty before they are known."""
        if self._candidates is None and self._ready():
            self._candidates = self._choose()
        return self._candidates or []

    def record(self, candidate: Candidate) -> Mapping[str, Any] | None:
        """The log's record of a candidate's full training."""
        for record in reversed(self.log.records):
            if record["architecture_id"] == candidate.architecture_id:
                return record
        return None

    def ask(self, *, wait: bool = True) -> Proposal | None:
        del wait  # nothing here takes long
        for candidate in self.candidates:
            key = candidate.architecture_id
            if key not in self._asked and self.record(candidate) is None:
                self._asked.add(key)
                named = {"architecture_id": key, "origin": candidate.origin}
                return Proposal(
                    candidate.architecture, {**self._extra, **named, **candidate.begins}
                )
        return None

    def tell(self, observation: Observation) -> None:
        self.log.append(to_record(observation))

    @property
    def num_finished(self) -> int:
        return sum(self.record(candidate) is not None for candidate in self.candidates)

    @property
    def num_total(self) -> int:
        return len(self._candidates) if self._candidates is not None else self._expected

    @property
    def epochs_left(self) -> float:
        return (self.num_total - self.num_finished) * self._epochs

    @property
    def done(self) -> bool:
        return self._ready() and self.num_finished == len(self.candidates)
