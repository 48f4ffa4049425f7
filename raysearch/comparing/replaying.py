"""A search over a table of trained students (`raysearch.tables`): the stages of a run without its training, without Ray.

The searcher sees what it would see in a run with one worker: the same first candidates, the same treatment of what it proposes twice,
the same rewards. Nothing is stopped early, whatever the schedule says, because a table holds whole trainings.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from raysearch.architecture.budget import cost
from raysearch.comparing.records import cell_row, evaluation_rows
from raysearch.config import Config
from raysearch.errors import ConfigError, InputError, RunError
from raysearch.objective import compression, final_order, parse_floor
from raysearch.observations import ObservationLog
from raysearch.stages import SearchStage
from searchers.algorithm import Observation, Proposal
from searchers.registry import make_algorithm, resolve

if TYPE_CHECKING:
    from raysearch.architecture import Architecture, SearchSpace
    from raysearch.tables import Judge, Table

FIXED = {
    "teacher": ("model", "weights", "epochs", "input_shape", "output_index"),
    "data": ("name", "mode", "resize", "validation", "augment"),
    "space": ("operations", "grouping", "divisor", "min_channels"),
    "distill": None,
    "finish": None,
}
"""What a table was made with and cannot be changed in a replay (None: every key of the section)."""
FREE = {"finish": ("students",)}


class MemoryLog(ObservationLog):
    """A search's log that is not written."""

    def __init__(self) -> None:
        self.records: list[dict[str, Any]] = []

    def append(self, record: Mapping[str, Any]) -> None:
        self.records.append(dict(record))


@dataclass(frozen=True, eq=False)
class Replay:
    """A table with the configuration of the searches over it."""

    table: Table
    config: Config

    @cached_property
    def space(self) -> SearchSpace:
        """The students within the budget; raises BudgetError where there are none."""
        return self.table.space(self.config.limits or None)

    @cached_property
    def judge(self) -> Judge:
        """How students are rewarded."""
        from raysearch.tables import Judge

        return Judge.of(self.table, self.config.limits, self.config.objective)

    def check(self, methods: Sequence[str]) -> None:
        """Raises InputError where the configuration is not the table's, the budget cannot be met or a method does not fit."""
        check_table(self.table, self.config)
        for method in methods:
            if "pruned" in inspect.signature(resolve(method)).parameters:
                raise ConfigError(
                    f"methods: {method!r} prunes the teacher's weights, which a table does not hold; leave it out, or compare without --table"
                )
            if hasattr(resolve(method), "ask_run"):
                raise ConfigError(
                    f"methods: {method!r} finds its students in trainings of its own, which a table does not hold; leave it out, or compare without --table"
                )
            search, is_own = self.config.search, method == self.config.search.method
            options, warm_start = (search.options, search.warm_start) if is_own else ({}, None)
            make_algorithm(method, self.space, 0, options, warm_start=warm_start)

    def run(self, problem: str, config: Config) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """One cell: the search and the full trainings of its best.

        Args:
            problem: its name in the rows.
            config: the cell's.

        Returns:
            Its row and those of its evaluations (`raysearch.comparing.records`).

        Raises:
            RunError: the method proposes nothing, or no student could be trained.
        """
        stage = self.search(config)
        records = stage.log.records
        method, seed = config.search.method, config.run.seed
        row = cell_row(problem, method, seed, records)
        row |= self._finish(stage, config)
        row |= {"replayed": True, "exact": float(np.mean([one["exact"] for one in records]))}
        return row, evaluation_rows(problem, method, seed, records)

    def search(self, config: Config) -> SearchStage:
        """A search, brought to its end; its `log` holds the evaluations."""
        from raysearch.plan import effort_of, first_candidates

        space, search = self.space, config.search
        limits = config.limits
        floor = parse_floor(limits["accuracy"]) if "accuracy" in limits else None
        stage = SearchStage(
            "search",
            make_algorithm(
                search.method,
                space,
                config.run.seed,
                search.options,
                warm_start=search.warm_start,
                num_trials=search.trials,
            ),
            num_trials=search.trials,
            log=MemoryLog(),
            identify=self.table.identify,
            first=first_candidates(config, space, floor=floor, size=self.judge.size),
            effort=effort_of(config),
        )
        while not stage.done:
            proposal = stage.ask()
            if proposal is not None:
                stage.tell(self.evaluate(proposal, config.run.seed))
            elif not stage.done:
                raise RunError(f"{search.method} proposes nothing while nothing is running")
        return stage

    def evaluate(self, proposal: Proposal, seed: int) -> Observation:
        """What a trial of the student would have reported."""
        curve = self.table.evaluate(proposal.architecture, seed=seed)
        student = self.table.apply(proposal.architecture)
        points = list(zip(curve.accuracy, curve.loss, strict=True))
        ok = bool(np.isfinite(curve.loss).all())
        rewards = [self.judge.reward(student, *point) for point in points] if ok else []
        return Observation(
            architecture=proposal.architecture,
            value=rewards[-1] if ok else None,
            fidelity=1.0,
            status="full" if ok else "failed",
            curve=tuple(rewards),
            metrics={
                "accuracy": curve.accuracy[-1],
                "loss": curve.loss[-1],
                "teacher_accuracy": self.judge.teacher_accuracy,
                **self._sizes(student),
                "epochs_done": len(points),
                "epochs_target": len(points),
                "seconds": curve.cpu_seconds,
                "cpu_seconds": curve.cpu_seconds,
            },
            extra=proposal.extra,
            details={"status": "ok" if ok else "diverged", "exact": curve.exact},
        )

    def _sizes(self, student: Architecture) -> dict[str, float]:
        return {
            "num_params": student.num_params,
            "macs": student.macs,
            "memory_bytes": student.memory_bytes,
            "compression": compression(student.num_params, self.table.architecture.num_params),
        }

    def _finish(self, stage: SearchStage, config: Config) -> dict[str, Any]:
        """The final student's columns: the best, by the validation part, of the search's best few after their full training."""
        from raysearch.plan import with_near_misses

        best = stage.best(config.finish.students)
        if self.judge.objective == "smallest":
            best = with_near_misses(best, stage.best(stage.num_finished), self.judge.size)
        if not best:
            raise RunError("no student could be trained")
        trained = [self._train_fully(record, config.run.seed) for record in best]
        _, final, _ = min(trained, key=lambda one: one[0])
        return {**final, "finish_cpu_seconds": round(sum(one[2] for one in trained), 6)}

    def _train_fully(
        self, record: Mapping[str, Any], seed: int
    ) -> tuple[tuple[float, ...], dict[str, Any], float]:
        """What the student is sorted by, its columns, and its training's CPU seconds."""
        edits, judge = record["architecture"], self.judge
        result, student = self.table.finish(edits, seed=seed), self.table.apply(edits)
        reward = judge.reward(student, result.accuracy, result.loss)
        order = final_order(
            judge.objective,
            accuracy=result.accuracy,
            loss=result.loss,
            reward=reward,
            size=cost(student, judge.size),
            floor=judge.floor,
        )
        columns = {
            "accuracy": result.accuracy,
            "loss": result.loss,
            "test_accuracy": result.test_accuracy,
            "test_loss": result.test_loss,
            "reward": reward,
            **{key: self._sizes(student)[key] for key in ("num_params", "macs", "compression")},
            "architecture_id": record["architecture_id"],
            "architecture": edits,
        }
        return order, columns, result.cpu_seconds


def check_table(table: Table, config: Config) -> None:
    """Raises ConfigError where a configuration names another teacher, other data or another training than the table's."""
    made, asked = table.config.model_dump(), config.model_dump()
    for section, keys in FIXED.items():
        for key in keys or made[section]:
            if key in FREE.get(section, ()):
                continue
            if made[section][key] != asked[section][key]:
                raise ConfigError(
                    f"{section}.{key}: {asked[section][key]!r}, but the table {table.problem!r} was made with {made[section][key]!r}; "
                    "leave it out, or make a table of your own (benchmarks/make_tables.py)"
                )


def describe_table(table: Table) -> dict[str, Any]:
    """What the page says of a table: `problem, trainings, students, error_text`; the errors are cross-validated."""
    about = {
        "problem": table.problem,
        "trainings": len(table),
        "students": len(set(table.rows["architecture_id"])),
    }
    try:
        errors = table.describe()["surrogate_errors"]
    except InputError as error:
        return {**about, "error_text": f"It has no surrogate: {error}."}
    parts = [
        f"{one['target'].replace('_', ' ')} {one['rmse']:.3g} (rank correlation {one['spearman']:.2f})"
        for one in errors
        if str(one["budget"]) == "all" and one["spearman"] is not None
    ]
    return {**about, "error_text": f"The surrogate's cross-validated errors: {', '.join(parts)}."}
