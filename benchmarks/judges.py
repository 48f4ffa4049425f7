"""Who tells a search what its students are worth, and what they are worth without luck: real trainings, or a table of them."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Protocol

import numpy as np
from ray.tune.schedulers import TrialScheduler
from ray.tune.schedulers.async_hyperband import _Bracket

from benchmarks.make_tables import Bench, make_bench, train_row
from benchmarks.problems import problem_config
from benchmarks.tabular import observe
from raysearch import prepare
from raysearch.architecture import SearchSpace
from raysearch.objective import REWARDS, Measurement, ObjectiveName
from raysearch.schedules import asha_rungs
from raysearch.tables import Judge as Rewards
from raysearch.tables import Table
from raysearch.teaching import teach
from searchers.algorithm import Observation

NEW_SEEDS = (1001, 1002, 1003)
"""Of trainings that no search has seen."""
MANY_SEEDS = tuple(range(1001, 1017))
"""The same of a table, where they cost nothing."""


class Judge(Protocol):
    """What a search needs.

    Attributes:
        space: where the students come from.
    """

    @property
    def space(self) -> SearchSpace: ...

    def observe(self, edits: str, seed: int) -> Observation:
        """What a trial with this seed would have told."""
        ...

    def mean(self, edits: str) -> float:
        """The mean value over new seeds."""
        ...


class TrainingJudge:
    """Trains students.

    Args:
        bench: what trains.
        space: where the students come from.
        objective: what is searched for.
        teacher_accuracy: on the validation part.
    """

    def __init__(
        self, bench: Bench, space: SearchSpace, objective: ObjectiveName, teacher_accuracy: float
    ) -> None:
        self.bench, self.space = bench, space
        self.objective: ObjectiveName = objective
        self.teacher_accuracy = teacher_accuracy
        self._values: dict[str, float] = {}

    @classmethod
    def of(cls, problem: str, data: Path | None, budget: float | None) -> TrainingJudge:
        """The judge of a problem, its teacher trained or from the cache."""
        overrides = {"budget": _limits(budget), "objective": "auto"}
        prepared = prepare(problem_config(problem, data, overrides))
        card = teach(prepared)
        bench = make_bench(prepared, card)
        return cls(bench, prepared.space, prepared.objective, card["accuracy"])

    def observe(self, edits: str, seed: int) -> Observation:
        """One training."""
        row = train_row(self.bench, edits, seed=seed)
        accuracy, loss = row["accuracy"][-1], row["loss"][-1]
        if not math.isfinite(loss):
            return Observation(edits, None, 1.0, "failed")
        total = self.space.teacher.num_params
        measured = Measurement(accuracy, loss, row["num_params"], self.teacher_accuracy, total)
        value = REWARDS[self.objective](measured)
        metrics = {
            "accuracy": accuracy,
            "loss": loss,
            "teacher_accuracy": self.teacher_accuracy,
            "num_params": row["num_params"],
            "compression": 1 - row["num_params"] / total,
        }
        return Observation(edits, value, 1.0, "full", (value,), metrics)

    def mean(self, edits: str) -> float:
        """The mean value of new trainings; a diverged one counts as 0."""
        key = self.space.architecture_id(edits)
        if key not in self._values:
            values = [self.observe(edits, seed).value or 0.0 for seed in NEW_SEEDS]
            self._values[key] = float(np.mean(values))
        return self._values[key]


class TableJudge:
    """Asks a table of trained students, whose surrogate answers for all that it does not hold.

    Args:
        table: the trained students.
        budget: share of the teacher's parameters; None: none.
    """

    def __init__(self, table: Table, budget: float | None) -> None:
        self.table = table
        self.space = table.space(_limits(budget))
        self._rewards = Rewards.of(table, _limits(budget))

    def observe(self, edits: str, seed: int) -> Observation:
        """What the table says of a training with this seed."""
        return observe(self.table, self._rewards, edits, seed)[0]

    def mean(self, edits: str) -> float:
        """The mean value over seeds that no search has used; a diverged training counts as 0."""
        return float(np.mean([self.observe(edits, seed).value or 0.0 for seed in MANY_SEEDS]))


def _limits(budget: float | None) -> dict[str, float] | None:
    return None if budget is None else {"params": budget}


class StoppingJudge:
    """A judge whose weak students are stopped early, by the successive halving of a default run; one for each search.

    Args:
        judge: knows whole trainings, with curves.
    """

    def __init__(self, judge: Judge) -> None:
        self.judge, self.space = judge, judge.space
        self._bracket: _Bracket | None = None

    def observe(self, edits: str, seed: int) -> Observation:
        """The whole training, or what there is of it where it is stopped."""
        whole = self.judge.observe(edits, seed)
        if whole.status != "full":
            return whole
        count = len(whole.curve)
        if self._bracket is None:
            rungs = asha_rungs(count)
            self._bracket = _Bracket(rungs["grace_period"], count, rungs["reduction_factor"], 0)
        trial = SimpleNamespace(trial_id=f"{seed}-{edits}")
        for epoch, value in enumerate(whole.curve[:-1], start=1):
            if self._bracket.on_result(trial, epoch, value) != TrialScheduler.CONTINUE:
                curve = whole.curve[:epoch]
                return Observation(edits, value, epoch / count, "stopped", curve, whole.metrics)
        return whole

    def mean(self, edits: str) -> float:
        """As of whole trainings."""
        return self.judge.mean(edits)
