"""A run that students come out of, as a Tune trial: one epoch a step, its students and their weights kept as they are found.

One Tune experiment has one trainable class, and in ours the students of the runs are trained beside them: so a trial of any stage but "runs"
is what `DistillationTrainable` makes of it.
"""

from __future__ import annotations

import importlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, cast

import torch
from torch import fx

from raysearch.architecture import Architecture
from raysearch.errors import ConfigError
from raysearch.files import write_text
from raysearch.models import build
from raysearch.objective import floor_reward
from trainables.bayesnas.run import FoundStudent, Run
from trainables.distillation import (
    BUILD_ERRORS,
    DistillationTrainable,
    is_out_of_memory,
    save_weights,
    start_file,
)
from trainables.reports import peak_memory_bytes
from trainables.training import evaluate_batches, recalibrate

STAGE = "runs"
DEFAULT_LAMBDA = 0.01


class RunTrainable(DistillationTrainable):
    """One run of an engine (`trainables.bayesnas.run.Run`); a step is one epoch. Subclasses name engine and settings.

    Config keys of a run, all optional: `lam`, `settings` (the engine's, by their names; what is not named is the context's
    `run_settings`, else the engine's default), `run` (its number, which its files are named after; without one it leaves none but its students' weights),
    `stage` ("runs" or none), `architecture` (not looked at: a run is of the teacher), `timeout_s`.
    Each result holds what `DistillationTrainable` reports, of the student as it stands, `lam`, whatever else the engine measures
    (`active_groups`, `active_switches`, `entropy`, ...), `num_students` and `students`, JSON (a text, because Tune's
    TensorBoard logger warns of lists that are not of numbers; `searchers.runs.students_of` reads it): of each student found so far
    `architecture`, `architecture_id`, `epoch`, `num_params`, `macs`, and, where it comes with weights or was measured by the run, `accuracy`,
    `loss` and `reward`, the objective of these.
    A checkpoint that is loaded under another `lam` continues the same weights with the new one, so that PopulationBasedTraining can change it.
    """

    engine: ClassVar[str]
    """`package.module:Class` of the run: called as engine(context, settings, lam=, budget=, seed=)."""
    settings_class: ClassVar[str]
    """`package.module:Class` of its settings, with `from_dict`."""

    @classmethod
    def check_teacher(
        cls, settings: Mapping[str, Any], teacher: Architecture, shape: Sequence[int]
    ) -> None:
        """Looks, before any trial starts, for what the engine cannot do with a teacher; here nothing.

        Args:
            settings: the engine's, by their names.
            teacher: its graph.
            shape: of an image, [C, H, W].

        Raises:
            ConfigError: one sentence with the setting and the remedy.
        """

    def _forget(self) -> None:
        super()._forget()
        self._run: Run | None = None
        self._points: list[dict[str, float]] = []
        self._kept: list[dict[str, Any]] = []  # the entries of the run's students

    def __repr__(self) -> str:
        return type(self).__name__

    @property
    def _stage(self) -> str:
        return self.config.get("stage", STAGE)

    @property
    def _is_run(self) -> bool:
        return self._stage == STAGE

    @property
    def lam(self) -> float:
        """The trial's lambda."""
        return float(self.config.get("lam", DEFAULT_LAMBDA))

    @property
    def settings(self) -> dict[str, Any]:
        """What the engine is told, as far as it is said."""
        return {**self._context.run_settings, **self.config.get("settings", {})}

    def step(self) -> dict[str, Any]:
        """Trains the run for an epoch, then validates the student as it stands."""
        if not self._is_run:
            return super().step()
        self._start_clocks()
        try:
            run = self._run or self._begin_run()
        except BUILD_ERRORS as error:
            return self._rejected_run("invalid", error)
        try:
            for _ in range(self.config.get("epochs_per_step", 1)):
                if not run.complete:
                    self._points.append(dict(run.train_epoch()))
                if run.diverged:
                    self._keep_students(run)
                    return self._rejected_run("diverged", None)
        except ConfigError as error:  # the engine does not know something in this teacher
            return self._rejected_run("invalid", error)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            return self._rejected_run("invalid", error)
        self._keep_students(run)
        self._book()
        self._keep_history(run)
        timeout_s = self.config.get("timeout_s", self._context.timeout_s)
        timed_out = timeout_s is not None and self._seconds > timeout_s
        partial = self._run_file(".partial")
        if run.complete and partial is not None:
            partial.unlink(missing_ok=True)
        elif not run.complete:
            self._keep_unfinished()
        return self._run_result(run, done=run.complete or timed_out)

    def _begin_run(self, state: Mapping[str, Any] | None = None) -> Run:
        """Makes the run, and continues one that an earlier run had to leave.

        Args:
            state: of a checkpoint, which wins over a partial file.
        """
        context = self._context
        if not 0 < self.lam < math.inf:
            raise ConfigError(f"lam is {self.lam!r}: a run wants a finite number above 0")
        settings = load(self.settings_class).from_dict(self.settings)
        run: Run = load(self.engine)(
            context,
            settings,
            lam=self.lam,
            budget=dict(context.limits) or None,
            seed=context.seed,
        )
        partial = self._run_file(".partial")
        if state is None and partial is not None and partial.exists():
            left = torch.load(partial, weights_only=True)
            # a run of this number with another lambda is another run
            state = left if (left["lam"], left["settings"]) == (self.lam, self._told) else None
        if state:
            run.load_state_dict(state["run"])
            self._points = [dict(point) for point in state["points"]]
            self._kept = list(state["kept"])
            self._seconds, self._cpu_seconds = state["seconds"], state["cpu_seconds"]
        self._run = run
        return run

    @property
    def _told(self) -> str:
        """The settings, to be compared."""
        return json.dumps(self.settings, sort_keys=True)

    def _run_name(self) -> str | None:
        number = self.config.get("run")
        return None if number is None else f"run-{int(number):03d}"

    def _run_file(self, suffix: str) -> Path | None:
        folder, name = self._context.weights_folder, self._run_name()
        return None if folder is None or name is None else Path(folder) / f"{name}{suffix}"

    def _state(self) -> dict[str, Any]:
        if not self._is_run:
            return super()._state()
        assert self._run is not None
        return {
            "run": self._run.state_dict(),
            "points": self._points,
            "kept": self._kept,
            "lam": self.lam,
            "settings": self._told,
            "seconds": self._seconds,
            "cpu_seconds": self._cpu_seconds,
        }

    def _partial_file(self) -> Path | None:
        return self._run_file(".partial") if self._is_run else super()._partial_file()

    def _keep_students(self, run: Run) -> None:
        """Enters what the run has found since the last look, and leaves the weights in the run's folder."""
        folder = self._context.weights_folder
        known = {(entry["architecture"], entry["epoch"]): entry for entry in self._kept}
        self._kept = []
        for student in run.students:
            entry = known.get((student.text, student.epoch))
            if entry is None:
                entry = self._entry(student)
                if folder is not None and student.weights is not None:
                    path = Path(folder) / start_file(
                        entry["architecture_id"], self.config.get("run")
                    )
                    path.parent.mkdir(parents=True, exist_ok=True)
                    state = {name: _plain(value) for name, value in student.weights.items()}
                    save_weights(state, path)
            self._kept.append(entry)

    def _entry(self, student: FoundStudent) -> dict[str, Any]:
        """A found student, JSON-native."""
        architecture = student.architecture
        known = student.metrics if "loss" in student.metrics else self._validated(student)
        measured = {
            key: float(value)
            for key in ("accuracy", "loss")
            if (value := known.get(key)) is not None and math.isfinite(value)
        }
        if len(measured) == 2:
            measured["reward"] = self._objective(measured, architecture.num_params)
        return {
            "architecture": student.text,
            "architecture_id": architecture.id,
            "epoch": int(student.epoch),
            "num_params": architecture.num_params,
            "macs": architecture.macs,
            **measured,
        }

    def _validated(self, student: FoundStudent) -> dict[str, float]:
        """What a student with the weights of its run is worth untrained, BatchNorm re-calibrated; nothing where it has none."""
        if student.weights is None:
            return {}
        data = self._context.device_data
        with torch.random.fork_rng(devices=[]):
            module = build(student.architecture, inherit_from=student.weights)
        module = module.to(self._context.device)
        recalibrate(module, data.train, seed=self._context.seed)
        return evaluate_batches(module, data.validation)

    def _keep_history(self, run: Run) -> None:
        """Leaves the history for the report."""
        folder, name = self._context.history_folder, self._run_name()
        if folder is None or name is None:
            return
        found = list(self._kept)
        history = {**run.history, "lam": self.lam, "run": self.config["run"], "students": found}
        # not indented: thousands of numbers
        text = json.dumps(_finite(history), separators=(",", ":"), allow_nan=False)
        write_text(Path(folder) / f"{name}.json", text)

    def _run_result(self, run: Run, *, done: bool) -> dict[str, Any]:
        points = self._points
        rewards = [self._objective(one, int(one["num_params"])) for one in points]
        return {
            **points[-1],
            **self._run_facts(),
            "reward": rewards[-1],
            "compression": self._compression(points[-1]["num_params"]),
            "epochs_done": run.epochs_done,
            "epochs_target": run.epochs_target,
            "status": "ok",
            "reward_curve": rewards,
            "accuracy_curve": [point["accuracy"] for point in points],
            "loss_curve": [point["loss"] for point in points],
            "done": done,
        }

    def _rejected_run(self, status: str, error: BaseException | None) -> dict[str, Any]:
        """The last result of a run that came to nothing; what it found before counts."""
        run, self._run = self._run, None
        return {
            **self._run_facts(),
            "reward": floor_reward(self._context.objective),
            "accuracy": 0.0,
            "loss": math.inf,
            "num_params": 0,
            "macs": 0,
            "compression": 0.0,
            "epochs_done": run.epochs_done if run else 0,
            "epochs_target": run.epochs_target if run else 0,
            "status": status,
            "reason": f"{type(error).__name__}: {error}"[:300] if error else "not finite",
            "done": True,
        }

    def _run_facts(self) -> dict[str, Any]:
        """What every result of a run holds, whatever became of it."""
        return {
            "teacher_accuracy": self._context.teacher_accuracy,
            "lam": self.lam,
            "num_students": len(self._kept),
            "students": json.dumps(self._kept),
            "seconds": self._seconds,
            "cpu_seconds": self._cpu_seconds,
            "device": self._context.device,
            "peak_memory_bytes": peak_memory_bytes(),
        }

    def _compression(self, num_params: float) -> float:
        return 1 - num_params / self._context.search_space.teacher.num_params

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Writes the whole run; of a student, see `DistillationTrainable`."""
        if not self._is_run:
            super().save_checkpoint(checkpoint_dir)
            return
        state = self._state() if self._run is not None else {}
        torch.save(state, Path(checkpoint_dir) / "training.pt")

    def load_checkpoint(self, checkpoint: str) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Continues a run exactly where `save_checkpoint` left it, under the lambda of the config."""
        if not self._is_run:
            super().load_checkpoint(checkpoint)
            return
        state = torch.load(Path(checkpoint) / "training.pt", weights_only=True)
        self._forget()
        if state:
            self._begin_run(state)


class BayesCompressionTrainable(RunTrainable):
    """Structured Bayesian compression of the teacher (Yang 2019, appendix A); see `trainables.bayesnas.compression`."""

    engine = "trainables.bayesnas.compression.run:CompressionRun"
    settings_class = "raysearch.bayesnas.compression:CompressionSettings"

    @classmethod
    def check_teacher(
        cls, settings: Mapping[str, Any], teacher: Architecture, shape: Sequence[int]
    ) -> None:
        """Makes the groups, and sends one image through the recursion, which knows few operations.

        Raises:
            ConfigError: no group of weights could be pruned; or the recursion is asked for, and does not know something in the teacher.
        """
        from trainables.bayesnas.compression.curvature import measurable
        from trainables.bayesnas.compression.groups import make_groups
        from trainables.bayesnas.compression.places import find_places
        from trainables.bayesnas.recursion import recursive_diagonal

        with torch.random.fork_rng(devices=[]):
            module = build(teacher)
        kinds = settings["conv_groups"], settings["linear_groups"]
        measured = {f"{path}.weight" for path in measurable(module)}
        if not make_groups(find_places(teacher), *kinds, measured=measured).count:
            raise ConfigError(
                f"search.options.conv_groups is {kinds[0]!r} and linear_groups {kinds[1]!r}, which make no group of weights in this teacher: "
                "leave both at their defaults"
            )
        if settings["hessian"] != "recursive":
            return
        recursive_diagonal(
            cast(fx.GraphModule, module),
            [(torch.zeros(1, *shape), torch.zeros(1, dtype=torch.long))],
        )


class BayesNASTrainable(RunTrainable):
    """One-shot search with a super-network (BayesNAS, Zhou et al., ICML 2019); see `trainables.bayesnas.cells`."""

    engine = "trainables.bayesnas.cells.run:SuperNetRun"
    settings_class = "raysearch.bayesnas.cells:SuperNetSettings"

    @classmethod
    def check_teacher(
        cls, settings: Mapping[str, Any], teacher: Architecture, shape: Sequence[int]
    ) -> None:
        """Raises ConfigError where the inputs are no images: the cells' operations are of two dimensions."""
        if len(shape) != 3:
            raise ConfigError(
                "search.method is 'bayes_nas', whose networks take images [channels, height, width], but the samples have shape "
                f"{list(shape)}: choose another method"
            )


def load(path: str) -> Any:
    """What `package.module:Name` names; a class that cannot be written so may be nested, `package.module:Outer.Name`."""
    module, _, names = path.partition(":")
    found: Any = importlib.import_module(module)
    for name in names.split("."):
        found = getattr(found, name)
    return found


def _plain(tensor: torch.Tensor) -> torch.Tensor:
    """A contiguous copy on the CPU."""
    return tensor.detach().cpu().clone(memory_format=torch.contiguous_format)


def _finite(value: Any) -> Any:
    """JSON without NaN and infinities, which become null."""
    if isinstance(value, Mapping):
        return {str(key): _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
