"""The end of a run: the best student is chosen on the validation part, the test part is looked at once, students are exported."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import nn

from raysearch.architecture.budget import cost
from raysearch.errors import RunError
from raysearch.files import RunFiles, write_json
from raysearch.models import build, export_student
from raysearch.objective import compression, final_order
from raysearch.observations import from_record
from raysearch.plan import Plan, latency_of
from raysearch.problem import Problem
from raysearch.stages import Admits, Candidate, FinishStage

Evaluate = Callable[[nn.Module, str], Mapping[str, float]]


@dataclass(frozen=True)
class Finalist:
    """A fully trained student: who it is and the log's record of its training."""

    candidate: Candidate
    record: Mapping[str, Any]


@dataclass(frozen=True)
class Outcome:
    """What `summary.json` says of students: `accuracy, test_accuracy, num_params, macs, memory_bytes`, and where they come from.

    Attributes:
        floor_met: whether the best student reaches the accuracy floor on the validation part; None: none was asked for.
        is_admitted: whether it keeps the method's constraints.
    """

    best: dict[str, Any]
    baselines: dict[str, dict[str, Any]]
    floor_met: bool | None = None
    is_admitted: bool = True

    @property
    def notes(self) -> list[str]:
        """What was asked for, and is not reached."""
        notes = []
        if self.floor_met is False:
            notes.append(
                "no fully trained student reaches the accuracy that was asked for; the most accurate one is the best"
            )
        if not self.is_admitted:
            notes.append("no fully trained student keeps all constraints; the best one breaks some")
        return notes


def conclude(
    problem: Problem,
    files: RunFiles,
    plan: Plan,
    evaluate: Evaluate,
    *,
    floor: float | None = None,
) -> Outcome:
    """Ranks the finalists on the validation part, evaluates them on test, and exports them.

    Args:
        evaluate: (module, "test") -> {"accuracy", "loss"}.
        floor: the accuracy that a student must reach on the validation part.

    Raises:
        RunError: no finalist could be trained.
    """
    finalists = [
        found for stage, candidate in plan.finalists if (found := _finalist(stage, candidate))
    ]
    if not finalists:
        logs = [stage.log for stage in (plan.runs, plan.search, plan.finish) if stage]
        reasons = {one["reason"] for log in logs for one in log.records if "reason" in one}
        raise RunError(
            f"no student could be trained ({'; '.join(sorted(reasons)) or 'no trial was completed'})"
        )
    keeps = partial(keeps_all, problem, plan.admits)

    def by_rank(finalist: Finalist) -> tuple[float, ...]:
        return not keeps(finalist), *rank(problem, floor, finalist)

    finalists.sort(key=by_rank)
    shutil.rmtree(files.students, ignore_errors=True)
    exported = [
        _export(problem, files, finalist, files.students / f"{number:03d}", evaluate)
        for number, finalist in enumerate(finalists, start=1)
    ]
    _link(files.best, Path("students") / "001")
    baselines = {
        "uniform": next((m for m in exported if m["origin"] == "uniform"), None),
        "random": _searched("random", plan.random_finish, problem, files, evaluate, by_rank),
        "prune": _searched("prune", plan.prune_finish, problem, files, evaluate, by_rank),
    }
    asked = problem.config.baselines
    return Outcome(
        best=exported[0],
        baselines={name: found for name, found in baselines.items() if found and name in asked},
        floor_met=None if floor is None else exported[0]["accuracy"] >= floor,
        is_admitted=keeps(finalists[0]),
    )


def _finalist(stage: FinishStage, candidate: Candidate) -> Finalist | None:
    record = stage.record(candidate)
    return Finalist(candidate, record) if record and record["status"] == "full" else None


def keeps_all(problem: Problem, admits: Admits | None, finalist: Finalist) -> bool:
    """Whether a finalist keeps the method's constraints, by its full training; what that does not report is taken from the short one."""
    if admits is None:
        return True
    candidate = finalist.candidate
    costs = latency_of(problem, candidate.architecture)
    return admits(from_record({**(candidate.short or {}), **costs, **finalist.record}))


def rank(problem: Problem, floor: float | None, finalist: Finalist) -> tuple[float, ...]:
    """What finalists are sorted by (`raysearch.objective.final_order`)."""
    record = finalist.record
    return final_order(
        problem.objective,
        accuracy=record["accuracy"],
        loss=record["loss"],
        reward=record["value"],
        size=cost(problem.space.apply(finalist.candidate.architecture), problem.size),
        floor=floor,
    )


def _searched(
    name: str,
    stage: FinishStage | None,
    problem: Problem,
    files: RunFiles,
    evaluate: Evaluate,
    by_rank: Callable[[Finalist], tuple[float, ...]],
) -> dict[str, Any] | None:
    """The best student of a baseline that has several; None where it was not asked for, or has none."""
    if stage is None:
        return None
    found = [f for candidate in stage.candidates if (f := _finalist(stage, candidate))]
    if not found:
        return None
    best = min(found, key=by_rank)
    return _export(problem, files, best, files.baselines / name / "001", evaluate)


def _export(
    problem: Problem, files: RunFiles, finalist: Finalist, folder: Path, evaluate: Evaluate
) -> dict[str, Any]:
    """Writes architecture.json, weights.safetensors, model.py and metrics.json; returns the metrics."""
    candidate, record = finalist.candidate, finalist.record
    architecture = problem.space.apply(candidate.architecture)
    weights = files.weights / f"{record['stage']}-{candidate.architecture_id}.safetensors"
    module = build(architecture, inherit_from=load_file(weights)).eval()
    export_student(folder, architecture, module, preprocessing=problem.data.preprocessing.to_dict())
    test = evaluate(module, "test")
    metrics = {
        "architecture": candidate.architecture,
        "architecture_id": candidate.architecture_id,
        "origin": candidate.origin,
        **candidate.begins,
        "accuracy": record["accuracy"],
        "loss": record["loss"],
        "test_accuracy": test["accuracy"],
        "test_loss": test["loss"],
        "num_params": architecture.num_params,
        "macs": architecture.macs,
        "memory_bytes": architecture.memory_bytes,
        **latency_of(problem, candidate.architecture),
        "compression": compression(architecture.num_params, problem.architecture.num_params),
        "reward": record["value"],
        "epochs": record["epochs_done"],
        "curve": [
            {"epoch": epoch, "accuracy": accuracy, "loss": loss}
            for epoch, (accuracy, loss) in enumerate(
                zip(record["accuracy_curve"], record["loss_curve"], strict=True), start=1
            )
        ],
        "trial_id": record.get("trial_id"),
        "search": _short(candidate.short),
        "path": str(folder.relative_to(files.folder)),
    }
    write_json(folder / "metrics.json", metrics)
    return metrics


def _short(record: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if record is None:
        return None
    return {"accuracy": record["accuracy"], "loss": record["loss"], "reward": record["value"]}


def _link(link: Path, target: Path) -> None:
    """Points a relative link somewhere else, at once."""
    temporary = link.with_name(f".{link.name}.{os.getpid()}.tmp")
    temporary.symlink_to(target, target_is_directory=True)
    os.replace(temporary, link)
