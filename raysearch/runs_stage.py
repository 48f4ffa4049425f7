"""The stage of the runs that a method's students come out of (`searchers.runs`), continued from its log.

`runs.jsonl` has one line a finished run: its lambda, settings and status, its curve, and the students that it found. A run of our own is never
made twice: those of the log are told to the method, and those that were going when the process died come back with their numbers and
lambdas, under which their trainings are kept (`trainables.bayesnas.trainable`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

from raysearch.observations import ObservationLog, from_record, to_record
from searchers.algorithm import Exhausted, Observation, Proposal
from searchers.runs import MakesRuns, with_students
from searchers.tracking import RUN, RUNS


class RunsStage:
    """The runs of a method, as a stage (`raysearch.stages.Stage`).

    Args:
        method: who proposes them.
        log: finished runs; those that it already holds are told to the method.
        architecture_id: of the teacher.
    """

    name = RUNS

    def __init__(self, method: MakesRuns, *, log: ObservationLog, architecture_id: str) -> None:
        self.log = log
        self._method = method
        self._architecture_id = architecture_id
        self._in_flight: dict[int, Proposal] = {}
        for record in log.records:
            method.tell_run(from_record(record))

    def ask(self, *, wait: bool = True) -> Proposal | None:
        del wait  # a lambda does not take long
        try:
            proposal = self._method.ask_run()
        except Exhausted:
            return None
        if proposal is None:
            return None
        extra = {
            **proposal.extra,
            "stage": self.name,
            "architecture_id": self._architecture_id,
        }
        proposal = Proposal(proposal.architecture, extra)
        self._in_flight[extra[RUN]] = proposal
        return proposal

    def tell(self, observation: Observation) -> None:
        """Logs the outcome and passes it on; a run that was told already is left as it was."""
        number = observation.extra[RUN]
        self._in_flight.pop(number, None)
        if number in self.finished:
            return
        extra = {**observation.extra, "architecture_id": self._architecture_id}
        observation = with_students(replace(observation, extra=extra))
        self.log.append(to_record(observation))
        self._method.tell_run(observation)

    def requeue(self, proposals: Iterable[Proposal]) -> None:
        """Puts runs first that were going when the process died."""
        for proposal in proposals:
            self._method.repeat_run(proposal)

    @property
    def finished(self) -> set[int]:
        """The numbers of the finished runs."""
        return {record[RUN] for record in self.log.records}

    @property
    def unfinished(self) -> list[Proposal]:
        """The runs that are going: what must be made if the process dies now."""
        return list(self._in_flight.values())

    @property
    def epochs(self) -> int:
        """Of a whole run."""
        return self._method.run_epochs

    def counts(self) -> dict[str, int]:
        """The runs by status."""
        return dict(Counter(record["status"] for record in self.log.records))

    @property
    def num_finished(self) -> int:
        return len(self.log.records)

    @property
    def num_total(self) -> int:
        return max(self._method.num_runs, self.num_finished)

    @property
    def epochs_left(self) -> float:
        return (self.num_total - self.num_finished) * self.epochs

    @property
    def done(self) -> bool:
        return not self._in_flight and self.num_finished >= self._method.num_runs
