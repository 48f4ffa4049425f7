"""The composition root: teacher, space, searcher, scheduler, Tuner, finish, report.

    problem -> run folder -> teacher -> one Tune experiment (search, finish, baselines) -> test -> report

Everything that has been computed is in the run's folder the moment it is known, so a killed run continues where it was.
"""

from __future__ import annotations

import resource
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict
from functools import partial
from importlib import metadata
from typing import Any

from raysearch.cluster import plan_resources, ray_session
from raysearch.config import Config
from raysearch.errors import RunError
from raysearch.files import RunFiles, write_json, write_text
from raysearch.finish import Outcome, conclude
from raysearch.models import export_student
from raysearch.models.latency import LatencyMeter
from raysearch.monitoring import ProgressCallback
from raysearch.pipeline import Pipeline
from raysearch.plan import Plan, make_plan
from raysearch.problem import Problem
from raysearch.progress import Progress
from raysearch.pruned import PrunedStudents
from raysearch.recovery import read_card, read_session
from raysearch.report import (
    budget_use,
    keep_knowledge,
    training_sentence,
    verdict,
    write_report,
    write_results_table,
)
from raysearch.resuming import fewer_trials
from raysearch.schedules import stage_scheduler
from raysearch.stages import SearchStage
from raysearch.teaching import (
    evaluate_part,
    labelled_batches,
    make_context,
    suitable_threads,
    teach,
)
from raysearch.trials import make_tuner, trainable_of
from raysearch.version import __version__
from searchers.algorithm import Proposal
from searchers.tune import TuneSearcher
from trainables.distillation import START, start_file

PACKAGES = [
    "ray",
    "torch",
    "torchvision",
    "botorch",
    "gpytorch",
    "optuna",
    "numpy",
    "pandas",
]

SPARE_WEIGHTS = 4
"""Weights are kept of so many more students than are finished: a search that is extended may choose others."""


class Experiment:
    """One run of a checked problem, from its folder to its report.

    Args:
        problem: from `raysearch.problem`.
        files: the run's folder, new or to be continued.
        progress: the display.
        command: what reproduces the run, for the report.
        prepare_s: the seconds that loading and checking the problem took.
    """

    def __init__(
        self,
        problem: Problem,
        files: RunFiles,
        *,
        progress: Progress,
        command: str,
        prepare_s: float = 0.0,
    ) -> None:
        self.problem = problem
        self.config: Config = problem.config
        self.files = files
        self._progress = progress
        self._command = command
        self._notes = list(problem.data.notes)
        session, self._pending = read_session(files)
        self._pruned = PrunedStudents(problem, files.teacher, partial(labelled_batches, problem))
        self._seconds: dict[str, float] = session.get("seconds", {})
        self._seconds.pop("total", None)
        self._seconds["prepare"] = self._seconds.get("prepare", 0.0) + prepare_s
        self._trained_s: float = session.get("training_s", 0.0)
        self._running: tuple[str, float] | None = None
        self._teacher_epochs = 0
        self._watcher = ProgressCallback(progress)

    def run(self) -> None:
        """Brings the run to its end; whatever the folder already holds is not computed again.

        Raises:
            InputError: the cluster lacks what a trial needs, or the teacher knows nothing.
            RunError: no student could be trained.
            KeyboardInterrupt: passed on; the folder can be resumed.
        """
        with suitable_threads(self.problem):
            self._run()

    def _run(self) -> None:
        if not self.files.config.exists():
            write_text(self.files.config, self.config.to_yaml())
        write_json(self.files.data, self.problem.data.describe())
        meter = self.problem.space.meter
        if isinstance(meter, LatencyMeter):
            meter.keep_in(self.files.latency)
        teacher = self._teacher()
        self._note_session(self._pending)
        plan = self._make_plan()
        # what changes on resume is kept only once the search has taken it: a refused option must not stay in the folder
        write_text(self.files.config, self.config.to_yaml())
        if note := fewer_trials(self.config.search.trials, plan.search.num_finished):
            self._notes.append(note)
        if not plan.pipeline.done:
            self._train(plan, teacher)
        self._look_inside(plan)
        with self._phase("test_and_export"):
            self._progress.phase("finish", text="test, export, report")
            evaluate = partial(evaluate_part, self.problem)
            floor = self._floor(teacher)
            outcome = conclude(self.problem, self.files, plan, evaluate, floor=floor)
        self._report(plan, teacher, outcome)

    @contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        """Adds the block's wall time to `summary.json: seconds`."""
        self._running = (name, time.perf_counter())
        try:
            yield
        finally:
            self._seconds, self._running = self._spent(), None

    def _spent(self) -> dict[str, float]:
        """Seconds by phase until now."""
        if self._running is None:
            return dict(self._seconds)
        name, start = self._running
        earlier = self._seconds.get(name, 0.0)
        return {**self._seconds, name: earlier + time.perf_counter() - start}

    # The teacher

    def _teacher(self) -> dict[str, Any]:
        """The teacher's card; trains it where it came without weights."""
        if self.files.teacher_card.exists():
            card = read_card(self.files)
        else:
            with self._phase("teacher"):
                self._progress.phase("teacher", total=self.config.teacher.epochs)
                card = teach(self.problem, self._teacher_progress)
                if card["weights"] == "trained":
                    self._trained_s += self._spent()["teacher"]
                if card["weights"] == "cache":
                    self._progress.note("the teacher was trained before and comes from the cache")
                export_student(
                    self.files.teacher,
                    self.problem.architecture,
                    self.problem.teacher,
                    preprocessing=self.problem.data.preprocessing.to_dict(),
                )
                write_json(self.files.teacher_card, card)
        self._notes += card["notes"]
        return card

    def _teacher_progress(self, event: Mapping[str, Any]) -> None:
        epochs = event["epoch"] - self._teacher_epochs
        self._teacher_epochs = event["epoch"]
        self._progress.advance(epochs, accuracy=event["accuracy"])

    # The trials

    def _make_plan(self) -> Plan:
        with self._phase("plan"):
            plan = make_plan(
                self.problem,
                self.files,
                on_change=lambda: self._remember(plan),
                pending=self._pending,
                pruned=self._pruned,
            )
        return plan

    def _train(self, plan: Plan, teacher: Mapping[str, Any]) -> None:
        """Runs what is left of the plan as one Tune experiment."""
        warm_up = getattr(plan.search.algorithm, "warm_up", None)
        if warm_up is not None:  # the method's imports, while Ray starts and the teacher answers
            threading.Thread(target=warm_up, daemon=True).start()
        searcher = TuneSearcher(
            plan.pipeline, space=self.problem.space, metric="reward", mode="max"
        )
        cluster = ExitStack()
        with self._phase("ray_start"):
            dashboard = cluster.enter_context(ray_session(self.config))
        with cluster:
            if dashboard:
                self._progress.note(
                    f"Ray dashboard: http://{dashboard} (its token: ray get-auth-token)"
                )
            resources = plan_resources(self.config)
            self._watcher.slots = resources.concurrency
            with self._phase("teacher_logits"):
                context = make_context(
                    self.problem,
                    teacher,
                    resources,
                    weights_folder=self.files.weights,
                    scores_folder=self.files.teacher,
                    history_folder=self.files.histories,
                    rankings=self._pruned.rankings,
                )
            with self._phase("trials"):
                self._show_totals(plan.pipeline)
                self.files.weights.mkdir(exist_ok=True)
                make_tuner(
                    self.config,
                    self.files.tune,
                    searcher,
                    trainable_of(plan.search.algorithm).bound(context),
                    scheduler=stage_scheduler(self.config, plan.runs and plan.runs.epochs),
                    resources=resources,
                    callback=self._watcher,
                ).fit()
                self._watcher.count()  # what the last answers told
            with self._phase("ray_stop"):
                cluster.close()
        if searcher.error is not None or not plan.pipeline.done:
            cause = searcher.error or f"see {self.files.tune}"
            raise RunError(
                f"the search ended early ({cause}); continue with: python -m raysearch resume {self.files.folder}"
            ) from searcher.error

    def _show_totals(self, pipeline: Pipeline) -> None:
        self._progress.phase(
            "search",
            total=pipeline.num_total,
            text="search, baselines and full trainings",
            done=pipeline.num_finished,
        )
        self._watcher.counts = lambda: (
            pipeline.num_finished,
            pipeline.num_total,
            pipeline.epochs_left,
        )

    def _remember(self, plan: Plan) -> None:
        """After each proposal and each result: notes what a killed run needs, and forgets weights that nothing can ask for."""
        self._note_session(plan.unfinished)
        count = self.config.finish.students + SPARE_WEIGHTS
        candidates = {candidate.architecture_id for _, candidate in plan.finalists}
        for stage in filter(None, (plan.search, plan.random, plan.prune)):
            kept = candidates | {record["architecture_id"] for record in stage.best(count)}
            for key in stage.known - kept:
                (self.files.weights / f"{stage.name}-{key}.safetensors").unlink(missing_ok=True)
            if stage is plan.search and plan.runs:
                self._forget_starts(stage, kept)
        for number in plan.runs.finished if plan.runs else ():
            (self.files.weights / f"run-{number:03d}.partial").unlink(missing_ok=True)

    def _forget_starts(self, search: SearchStage, kept: set[str]) -> None:
        """Forgets what runs found students with: of a known student all but the weights that it began with, and these unless it is kept."""
        begun = {
            record["architecture_id"]: start_file(record["architecture_id"], record.get("from_run"))
            for record in search.log.records
        }
        needed = {begun[key] for key in kept & search.known}
        for path in self.files.weights.glob(f"{START}-*.safetensors"):
            identity = path.stem.split("-")[1]
            if identity in search.known and path.name not in needed:
                path.unlink(missing_ok=True)

    def _note_session(self, pending: Sequence[Proposal]) -> None:
        noted = [asdict(proposal) for proposal in pending]
        write_json(
            self.files.session,
            {"pending": noted, "seconds": self._spent(), "training_s": self._training_s()},
        )

    # The end

    def _look_inside(self, plan: Plan) -> None:
        """Writes surrogate.parquet, where the method has a model, and the folder of one that keeps more than that."""
        search = plan.search
        with self._phase("report"):
            if write_knowledge := getattr(search.algorithm, "write_knowledge", None):
                folder = getattr(search.algorithm, "knowledge_folder", self.files.policy.name)
                write_knowledge(self.files.folder / folder)
            note = keep_knowledge(
                search.algorithm,
                self.files.surrogate,
                self.problem.space.architecture_id,
                search.num_finished,
            )
        if note is not None:
            self._notes.append(note)

    def _report(self, plan: Plan, teacher: Mapping[str, Any], outcome: Outcome) -> None:
        """Writes summary.json, results.csv and report.html."""
        test = evaluate_part(self.problem, self.problem.teacher, "test")
        keys = ("accuracy", "num_params", "macs")
        budget: dict[str, float] = dict(self.problem.space.limits)
        if (floor := self._floor(teacher)) is not None:
            budget["accuracy"] = floor
        self._notes += outcome.notes
        summary = {
            "teacher": {
                **{key: teacher[key] for key in keys},
                "test_accuracy": test["accuracy"],
                "weights": teacher["weights"],
            },
            "best": outcome.best,
            "baselines": outcome.baselines,
            "verdict": verdict(outcome.best, outcome.baselines, len(self.problem.data.test)),
            "budget": budget,
            "budget_use": budget_use(budget, outcome.best),
            "trials": plan.counts(),
            **({"runs": plan.runs.counts()} if plan.runs else {}),
            "method": self.config.search.method,
            "objective": self.problem.objective,
            "seed": self.config.run.seed,
            "actor_starts": len(self._watcher.workers),
            "memory": {
                "driver_peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
                "worker_peak_bytes": self._watcher.peak_worker_bytes,
            },
            "command": self._command,
            "notes": self._notes,
            "versions": {"raysearch": __version__, **_versions()},
        }
        with self._phase("report"):
            write_json(self.files.summary, {**summary, **self._times()})
            write_results_table(self.files.folder)
            write_report(self.files.folder)
        times = self._times()
        write_json(self.files.summary, {**summary, **times})
        if sentence := training_sentence(times["training_s"], times["seconds"]["total"]):
            self._progress.note(sentence)
        self.files.session.unlink(missing_ok=True)

    def _floor(self, teacher: Mapping[str, Any]) -> float | None:
        """The accuracy that a student must reach, where one is asked for."""
        floor = self.problem.floor
        return None if floor is None else floor.accuracy(teacher["accuracy"])

    def _training_s(self) -> float:
        """Wall time of training until now: the teacher's, and that of the trials' steps divided by the slots."""
        return self._trained_s + self._watcher.training_s

    def _times(self) -> dict[str, Any]:
        """For summary.json: wall time by phase and that of training, over all sessions of the run."""
        seconds = {name: round(value, 2) for name, value in self._seconds.items()}
        total, training_s = sum(seconds.values()), self._training_s()
        return {
            "seconds": {**seconds, "total": round(total, 2)},
            "training_s": round(training_s, 2),
            "training_share": round(training_s / total, 3) if total else 0.0,
        }


def _versions() -> dict[str, str]:
    """The installed versions of what results may depend on."""
    found = {}
    for name in PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found
