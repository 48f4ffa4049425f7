"""Which students a run trains, and in which order: the stages of a problem, continued from the logs of its folder."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from raysearch.architecture import SearchSpace
from raysearch.config import Config
from raysearch.effort import Effort
from raysearch.errors import BudgetError
from raysearch.files import RunFiles
from raysearch.objective import Floor
from raysearch.observations import EVALUATION, ObservationLog
from raysearch.pipeline import Pipeline
from raysearch.problem import Problem
from raysearch.recovery import forget_lost
from raysearch.runs_stage import RunsStage
from raysearch.search_state import SearchState
from raysearch.stages import (
    Admits,
    Candidate,
    FinishStage,
    SearchStage,
    Stage,
)
from raysearch.subject import space_arguments
from searchers.algorithm import Proposal
from searchers.prune import DEFAULT_FORMS
from searchers.registry import Pruner, make_algorithm
from searchers.runs import MakesRuns
from searchers.tracking import RUN

RANDOM_SEED_OFFSET = 7919
"""Keeps the random baseline's stream apart from a search that samples with the run's own seed."""
LADDER = (0.4, 0.15, 0.05)
"""Sizes of the uniformly scaled students that a search with an accuracy floor begins with, as shares of the teacher's."""
TRIALS_PER_RUNG = 4
"""A quarter of the trials at most goes to them."""


@dataclass(frozen=True, eq=False)
class Plan:
    """The stages by their names (see `raysearch.stages`), the pipeline that runs them, and what `raysearch.stages.SearchStage` calls `admits`."""

    search: SearchStage
    finish: FinishStage
    uniform: FinishStage
    random: SearchStage | None
    random_finish: FinishStage | None
    prune: SearchStage | None
    prune_finish: FinishStage | None
    pipeline: Pipeline
    admits: Admits | None = None
    runs: RunsStage | None = None

    @property
    def unfinished(self) -> list[Proposal]:
        """What the search must train if the process dies now."""
        return [*(self.runs.unfinished if self.runs else []), *self.search.unfinished]

    @property
    def finalists(self) -> Iterator[tuple[FinishStage, Candidate]]:
        """Those among whom the best student is chosen: the search's best, and the uniform one."""
        for stage in (self.finish, self.uniform):
            for candidate in stage.candidates:
                yield stage, candidate

    def counts(self) -> dict[str, int]:
        """The search's evaluations by status."""
        return dict(Counter(record["status"] for record in self.search.log.records))


def make_plan(
    problem: Problem,
    files: RunFiles,
    *,
    on_change: Callable[[], None],
    pending: Sequence[Proposal],
    pruned: Pruner,
) -> Plan:
    """The stages of a run.

    Args:
        problem: the checked run.
        files: its folder; what its logs hold is not trained again.
        on_change: called after each proposal and each result.
        pending: students that were in training when the run was cut.
        pruned: gives pruned students of the trained teacher.

    Raises:
        InputError: the teacher cannot be pruned as it is asked for.
    """
    config, space = problem.config, problem.space
    finished, asked = ObservationLog(files.finished, holds=(*EVALUATION, "stage")), set()
    forget_lost(finished, files)
    # with an accuracy floor, as without a budget, the uniform student gets the size of the best one
    has_budget = bool(space.limits) and problem.floor is None
    scaled = str(space.uniform()) if has_budget else None

    first = first_candidates(config, space, floor=problem.floor, size=problem.size, pruned=pruned)
    method = make_algorithm(
        config.search.method,
        space,
        config.run.seed,
        config.search.options,
        pruned=pruned,
        warm_start=config.search.warm_start,
        num_trials=config.search.trials,
    )
    runs = _runs_stage(method, problem, files, pending)
    # what a method was asked for beside the reward holds for the baselines too
    admits: Admits | None = getattr(method, "admits", None)
    search = SearchStage(
        "search",
        method,
        num_trials=config.search.trials,
        log=ObservationLog(files.observations, holds=EVALUATION),
        identify=space.architecture_id,
        first=first,
        costs=partial(latency_of, problem),
        effort=effort_of(config),
        beside=runs.log.records if runs else (),
        admits=admits,
        state=SearchState(files.search_state, problem.architecture.id),
    )
    search.requeue(one for one in pending if one.extra.get("stage") != RunsStage.name)

    def finishing(
        name: str,
        choose: Callable[[], list[Candidate]],
        ready: Callable[[], bool],
        expected: int,
    ) -> FinishStage:
        return FinishStage(
            name,
            choose=choose,
            ready=ready,
            log=finished,
            asked=asked,
            expected=expected,
            epochs=config.finish.epochs,
            extra={"epochs_per_step": _epochs_per_step(config), "timeout_s": None},
        )

    def uniform_candidates() -> list[Candidate]:
        if not wants_uniform(config):
            return []
        edits = scaled or _uniform_of_size(problem, search)
        return [] if edits is None else [_candidate(space, edits, "uniform", search)]

    def uniform_ready() -> bool:
        if not has_budget:
            return search.done
        if scaled is None or all(proposal.architecture != scaled for proposal in first):
            return True
        return search.done or space.architecture_id(scaled) in search.known

    students = config.finish.students
    uniform = finishing("uniform", uniform_candidates, uniform_ready, int(wants_uniform(config)))
    finish = finishing(
        "finish",
        lambda: _best(problem, search, "search", {c.architecture_id for c in uniform.candidates}),
        lambda: search.done and uniform_ready(),
        students,
    )
    stages: list[Stage] = [runs, search] if runs else [search]
    random = random_finish = None
    if "random" in config.baselines:
        random = SearchStage(
            "random",
            make_algorithm("random", space, config.run.seed + RANDOM_SEED_OFFSET, {}),
            num_trials=config.search.trials,
            log=ObservationLog(files.random_observations, holds=EVALUATION),
            identify=space.architecture_id,
            cache=search.record,
            busy=search.trains,
            costs=partial(latency_of, problem),
            effort=effort_of(config),
            admits=admits,
        )
        random_finish = finishing(
            "random_finish",
            lambda: _best(problem, random, "random", set()),
            lambda: random.done,
            students,
        )
        stages.append(random)
    prune = prune_finish = None
    if "prune" in config.baselines:
        forms = prune_forms(config)
        prune = SearchStage(
            "prune",
            make_algorithm("prune", space, config.run.seed, {"forms": forms}, pruned=pruned),
            num_trials=len(forms),
            log=ObservationLog(files.prune_observations, holds=EVALUATION),
            identify=space.architecture_id,
            cache=search.record,
            busy=search.trains,
            costs=partial(latency_of, problem),
            effort=replace(effort_of(config), epochs=None, seconds=None),
            admits=admits,
        )
        prune_finish = finishing(
            "prune_finish",
            lambda: _best(problem, prune, "prune", set(), count=len(forms)),
            lambda: prune.done,
            len(forms),
        )
        stages.append(prune)
    # the long trainings fill the slots while the last random trials run; their own finish can then begin without a pause
    stages += [uniform, finish]
    stages += filter(None, (random_finish, prune_finish))
    return Plan(
        search,
        finish,
        uniform,
        random,
        random_finish,
        prune,
        prune_finish,
        Pipeline(stages, on_change),
        admits,
        runs,
    )


def _runs_stage(
    method: Any, problem: Problem, files: RunFiles, pending: Sequence[Proposal]
) -> RunsStage | None:
    """The runs that a method's students come out of; None where it makes none."""
    if not isinstance(method, MakesRuns):
        return None
    identity = problem.architecture.id
    stage = RunsStage(
        method, log=ObservationLog(files.runs, holds=(*EVALUATION, RUN)), architecture_id=identity
    )
    stage.requeue(one for one in pending if one.extra.get("stage") == RunsStage.name)
    return stage


def wants_uniform(config: Config) -> bool:
    """Whether the uniformly scaled student is trained fully: unless both `baselines` and a list `search.first` leave it out, as papers do."""
    return config.search.first == "auto" or "uniform" in (
        *config.search.first,
        *config.baselines,
    )


def prune_forms(config: Config) -> tuple[str, ...]:
    """The forms of the pruned baseline: the method's own, where pruning is the method."""
    if config.search.method == "prune":
        return tuple(config.search.options.get("forms", DEFAULT_FORMS))
    return DEFAULT_FORMS


def first_candidates(
    config: Config,
    space: SearchSpace,
    *,
    floor: Floor | None,
    size: str,
    pruned: Pruner | None = None,
) -> list[Proposal]:
    """The students that a search evaluates before its method is asked: those of `search.first`.

    Args:
        floor: the accuracy that is asked for, if one is.
        size: what is made small then: "params", "macs" or "memory".
        pruned: gives pruned students of the trained teacher; None: there is none, and its forms are left out.
    """
    found: list[Proposal] = []
    if config.search.method == "random":
        return found  # a baseline of the literature: it gets no help
    for name in _first_names(config, space, floor):
        if name != "uniform":
            found += pruned([name]) if pruned else []
        elif floor is not None:
            found += [Proposal(one, {"origin": "uniform"}) for one in _ladder(config, space, size)]
        elif space.limits:
            found.append(Proposal(str(space.uniform()), {"origin": "uniform"}))
    return found


def _first_names(config: Config, space: SearchSpace, floor: Floor | None) -> Sequence[str]:
    """The entries of `search.first`, `auto` resolved.

    Pruning costs less than a trial, and within a budget of parameters it finds what is hard to find by chance: wide early layers.
    """
    if config.search.first != "auto":
        return config.search.first
    prunable = bool(space.limits) and floor is None and "shrink" in space.operations
    proposes = config.search.method not in ("uniform", "prune")
    return ("uniform", "ours-l1", "ours-taylor") if prunable and proposes else ("uniform",)


def effort_of(config: Config) -> Effort:
    """What ends the search besides its number of trials."""
    epochs_of_trial = config.distill.epochs * config.distill.repeats
    return Effort(config.search.epochs, config.search.seconds, epochs_of_trial)


def _epochs_per_step(config: Config) -> int:
    """Finalists report about ten times: every report costs Tune's loop some milliseconds."""
    return max(1, config.finish.epochs // 10)


def _candidate(space: SearchSpace, edits: str, origin: str, source: SearchStage) -> Candidate:
    key = space.architecture_id(edits)
    record = source.record(key)
    return Candidate(edits, key, origin) if record is None else Candidate.of_record(record, origin)


def _best(
    problem: Problem,
    source: SearchStage,
    origin: str,
    without: set[str],
    count: int | None = None,
) -> list[Candidate]:
    """The best of a search, `finish.students` unless another number is given."""
    count = count or problem.config.finish.students
    best = source.best(count, without=without)
    if problem.objective == "smallest":
        best = with_near_misses(best, source.best(sys.maxsize, without=without), problem.size)
    return [Candidate.of_record(record, origin) for record in best[:count]]


def with_near_misses(
    best: Sequence[Mapping[str, Any]], full: Sequence[Mapping[str, Any]], size: str
) -> list[Mapping[str, Any]]:
    """With an accuracy floor a third of the finalists are smaller ones that missed it after the short training: the full one gives more.

    Args:
        best: the finalists by their rewards, the best first.
        full: all students that were evaluated fully, in the same order.
        size: "params", "macs" or "memory".
    """
    key = {"params": "num_params", "macs": "macs", "memory": "memory_bytes"}[size]
    near = [one for one in full if one["value"] < 1 and one[key] < best[0][key]]
    chosen = near[: len(best) // 3] if best and best[0]["value"] >= 1 else []
    kept = [one for one in best if one not in chosen]
    return [*kept[: len(best) - len(chosen)], *chosen]


def latency_of(problem: Problem, architecture: str) -> dict[str, float]:
    """The measured latency of a student, where it is limited or asked for."""
    space = problem.space
    if "latency_ms" not in (*space.limits, *problem.config.distill.report):
        return {}
    return {"latency_ms": float(space.latency_ms([architecture])[0])}


def _ladder(config: Config, space: SearchSpace, size: str) -> list[str]:
    """With an accuracy floor: uniformly scaled students of some sizes, which show a search where the floor lies."""
    found = []
    for share in LADDER[: config.search.trials // TRIALS_PER_RUNG]:
        try:
            scaled = _scaled(config, space, {size: share})
        except BudgetError:  # smaller than the smallest
            break
        found.append(str(space.repair(space.batch([scaled]))[0]))
    return list(dict.fromkeys(found))


def _scaled(config: Config, space: SearchSpace, budget: dict[str, float]) -> str:
    scaled = SearchSpace(space.teacher, **space_arguments(config), budget=budget)
    return str(scaled.uniform())


def _uniform_of_size(problem: Problem, search: SearchStage) -> str | None:
    """Without a budget, or with a floor: the teacher scaled to the size of the best student, an equal opponent."""
    best = search.best(1)
    if not best:
        return None
    try:
        scaled = _scaled(problem.config, problem.space, {"params": int(best[0]["num_params"])})
    except BudgetError:  # networks of their own may be smaller than any edit of the teacher
        scaled = str(problem.space.smallest())
    # it stays within limits that there may be beside the floor
    return str(problem.space.repair(problem.space.batch([scaled]))[0])
