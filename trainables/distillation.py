"""A student as a Tune trial: built lazily, distilled from the teacher, judged on the validation part after each epoch.

Works in our own runs and in anybody's Tune script: `DistillationTrainable.bound(context)` is a trainable class for a `Tuner`, and a
trial's config needs no more than `architecture` (the text of the edits).
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from ray import tune
from safetensors.torch import load_file, save_file
from torch import nn

from raysearch.architecture import Architecture
from raysearch.architecture.budget import cost
from raysearch.errors import InvalidArchitecture, RunError
from raysearch.models import build
from raysearch.models.inherit import descends
from raysearch.objective import REWARDS, Measurement, floor_reward
from trainables.context import DistillationContext
from trainables.recipe import Recipe
from trainables.repeats import RepeatedTraining
from trainables.reports import CLASS_ACCURACY, by_class, own_metrics, peak_memory_bytes

PARTIAL_EVERY_S = 60.0
"""How often a long training is saved, so that a killed run loses a minute and not a day."""

START = "start"
"""Weights that a run found a student with are kept under this name (`start_file`)."""

# what PyTorch raises for a network that cannot be made from its description
BUILD_ERRORS = (InvalidArchitecture, RuntimeError, ValueError, MemoryError)


def start_file(architecture_id: str, run: int | None) -> str:
    """The name of the weights that a run found a student with: runs that found the same one keep theirs apart.

    Args:
        architecture_id: the student's.
        run: the run's number; None: it has none.
    """
    number = "" if run is None else f"-{run:03d}"
    return f"{START}-{architecture_id}{number}.safetensors"


class DistillationTrainable(tune.Trainable):
    """One student's distillation; a step is one epoch (`epochs_per_step` in the config makes it several).

    Config keys: `architecture` (text of the edits, or of a whole network, see `SearchSpace.apply`), and optionally `stage` (which recipe), `architecture_id`, `epochs_per_step`,
    `timeout_s` (in place of the context's), `channels` (which of the context's `rankings` says what the student keeps of the teacher),
    `start` ("run": the student begins with the weights that a run found it with, where these are kept, see `trainables.bayesnas`) and
    `from_run` (that run's number).
    Each result holds `reward, accuracy, loss, teacher_accuracy, num_params, macs, compression, epochs_done, epochs_target, status`, and
    what the context's `report` and `metrics` ask for.
    A network that is not the teacher's layers, resized or left out, has nothing to inherit and starts afresh.
    Where the best epoch counts (`DistillationContext.value_epochs`), `reward` never falls from one result to the next, `accuracy` and
    `loss` are those of that epoch, the result's `value_epoch`, and so are all that schedulers and searchers see; the weights that are
    kept are the last epoch's all the same, because the final training continues from them.
    Where a stage repeats its trainings (`DistillationContext.repeats`), an epoch is one of each of them: `accuracy` and `loss` are means
    over the initialisations and `reward` is the objective of these means, `accuracy_repeats` and `loss_repeats` hold the single values
    and `epochs_trained` counts all. The weights that are kept are those of the training with the highest reward at its end. With
    inherited weights the repeats differ in the order of images and views, with fresh ones in the weights too.
    A student that cannot be built, runs out of memory or diverges ends with the objective's lowest reward and the status
    `invalid` or `diverged`; nothing is raised for it.
    """

    @classmethod
    def bound(cls, context: DistillationContext) -> type[DistillationTrainable]:
        """This trainable with its context in Ray's object store (Ray must be running)."""
        return tune.with_parameters(cls, context=context)

    # tune.with_parameters adds the context
    def setup(self, config: dict[str, Any], context: DistillationContext) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Keeps the heavy things; the student is built in the first step."""
        self._context = context
        torch.set_num_threads(context.threads)
        self._forget()

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Lets a reused actor take the next student; building could fail, so it waits for `step`."""
        self._forget()
        return True

    def _forget(self) -> None:
        self._training: RepeatedTraining | None = None
        self._architecture: Architecture | None = None
        self._seconds = self._cpu_seconds = 0.0
        self._start_clocks()
        self._saved_at = time.monotonic()

    def __repr__(self) -> str:
        # Ray labels an actor once: a text that depends on the config would show the first trial for ever
        return "DistillationTrainable"

    @property
    def _stage(self) -> str:
        return self.config.get("stage", "search")

    @property
    def _recipe(self) -> Recipe:
        return self._context.recipe(self._stage)

    def step(self) -> dict[str, Any]:
        """Trains on, then validates (BatchNorm re-calibrated)."""
        self._start_clocks()
        if self._training is None:
            try:
                self._begin()
            except BUILD_ERRORS as error:
                return self._rejected("invalid", error)
        training = self._training
        assert training is not None
        try:
            for _ in range(self.config.get("epochs_per_step", 1)):
                if not training.complete:
                    training.train_epoch(self._keep_unfinished)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            return self._rejected("invalid", error)
        if training.diverged:
            return self._rejected("diverged", None)
        self._book()
        timeout_s = self.config.get("timeout_s", self._context.timeout_s)
        if training.complete:
            self._keep_finished()
        else:
            self._keep_unfinished()
        done = training.complete or (timeout_s is not None and self._seconds > timeout_s)
        result = self._result("ok", done)
        try:
            return {**result, **(self._measured(result) if done else {})}
        except RunError as error:
            return self._rejected("invalid", error)

    def _start_clocks(self) -> None:
        self._clock_s, self._cpu_clock_s = time.perf_counter(), time.process_time()

    def _book(self) -> None:
        """Counts the time since the clocks were started, and starts them again."""
        earlier, cpu_earlier = self._clock_s, self._cpu_clock_s
        self._start_clocks()
        self._seconds += self._clock_s - earlier
        self._cpu_seconds += self._cpu_clock_s - cpu_earlier

    def _begin(self, state: Mapping[str, Any] | None = None) -> None:
        """Builds the student, and continues a training that an earlier run had to leave.

        Args:
            state: of a checkpoint, which wins over a partial file.
        """
        context = self._context
        student = context.search_space.apply(self.config["architecture"])
        self._architecture = student

        def make(seed: int) -> nn.Module:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                return self._build(student)

        self._training = RepeatedTraining(
            make,
            context.device_data,
            self._recipe,
            seed=context.seed,
            count=context.repeats.get(self._stage, 1),
            num_classes=context.reported_classes,
        )
        partial = self._file(".partial")
        if state is None and partial is not None and partial.exists():
            state = torch.load(partial, weights_only=True)
        if state:
            self._training.load_state_dict(state["training"])
            self._seconds, self._cpu_seconds = state["seconds"], state["cpu_seconds"]

    def _build(self, student: Architecture) -> nn.Module:
        """The student with the weights that its stage starts from."""
        init = self._context.init.get(self._stage, "inherit")
        if init == "search":
            for stage in ("search", "random", "prune"):
                found = self._file(".safetensors", stage)
                if found is not None and found.exists():
                    return build(student, inherit_from=load_file(found))
            init = self._context.init.get("search", "inherit")
        if init == "fresh":
            return build(student)
        if self.config.get("start") == "run":
            found = self._start_file()
            if found is not None and found.exists():
                return build(student, inherit_from=load_file(found))
        if not descends(student, self._context.search_space.teacher):
            return build(student)
        keep = self._context.ranking_of(self.config.get("channels")).keep(student)
        return build(student, inherit_from=self._context.teacher_state, keep=keep)

    def _file(self, suffix: str, stage: str | None = None) -> Path | None:
        folder, key = self._context.weights_folder, self.config.get("architecture_id")
        if folder is None or key is None:
            return None
        return Path(folder) / f"{stage or self._stage}-{key}{suffix}"

    def _start_file(self) -> Path | None:
        folder, key = self._context.weights_folder, self.config.get("architecture_id")
        if folder is None or key is None:
            return None
        return Path(folder) / start_file(key, self.config.get("from_run"))

    def _keep_finished(self) -> None:
        """Leaves the weights of a finished student in the run's folder."""
        partial, weights = self._file(".partial"), self._file(".safetensors")
        if partial is None or weights is None or self._training is None:
            return
        # copies: the weights share their memory
        state = self._training.best(self._reward).state_dict()["module"]
        save_weights(state, weights)
        partial.unlink(missing_ok=True)

    def _partial_file(self) -> Path | None:
        return self._file(".partial")

    def _keep_unfinished(self) -> None:
        """Leaves the whole training there, now and then."""
        partial = self._partial_file()
        if partial is None or time.monotonic() - self._saved_at < PARTIAL_EVERY_S:
            return
        self._book()
        temporary = partial.with_suffix(f".{os.getpid()}.tmp")
        torch.save(self._state(), temporary)
        os.replace(temporary, partial)
        self._saved_at = time.monotonic()

    def _result(self, status: str, done: bool) -> dict[str, Any]:
        assert self._training is not None
        points = self._training.curve
        curve = [self._reward(point) for point in points]
        counted, which = points[-1], {}
        if self._context.value_epochs.get(self._stage) == "best":
            counted = points[curve.index(max(curve))]
            curve = list(accumulate(curve, max))
            which = {"value_epoch": int(counted["epoch"])}
        return {
            "reward": curve[-1],
            **{name: value for name, value in counted.items() if name != "epoch"},
            **self._sizes(),
            **self._trained(),
            "epochs_done": self._training.epochs_done,
            **which,
            **self._classes(counted),
            "status": status,
            "reward_curve": curve,
            "accuracy_curve": [point["accuracy"] for point in points],
            "loss_curve": [point["loss"] for point in points],
            "done": done,
        }

    def _trained(self) -> dict[str, int]:
        """What is spent where a student is trained several times."""
        training = self._training
        if training is None or len(training.trainings) == 1:
            return {}
        return {"epochs_trained": training.epochs_trained}

    def _measured(self, result: Mapping[str, Any]) -> dict[str, float]:
        """What the user's own function says of the student, once it is trained."""
        assert self._training is not None
        assert self._architecture is not None
        path = self._context.metrics
        if path is None:
            return {}
        return own_metrics(
            path, self._training.best(self._reward).module, self._architecture, result
        )

    def _classes(self, point: Mapping[str, Any]) -> dict[str, Any]:
        asked = CLASS_ACCURACY in self._context.report
        return {CLASS_ACCURACY: by_class(point[CLASS_ACCURACY])} if asked else {}

    def _rejected(self, status: str, error: BaseException | None) -> dict[str, Any]:
        """The last result of a student that gave none."""
        trained, epochs_done = self._trained(), 0
        if self._training is not None:  # the epoch that it did not survive counts
            epochs_done = max(one.epochs_done for one in self._training.trainings)
        self._training = None
        return {
            "reward": floor_reward(self._context.objective),
            "accuracy": 0.0,
            "loss": float("inf"),
            **self._sizes(),
            **trained,
            "epochs_done": epochs_done,
            "status": status,
            "reason": f"{type(error).__name__}: {error}"[:300] if error else "not finite",
            "done": True,
        }

    def _sizes(self) -> dict[str, Any]:
        student, teacher = self._architecture, self._context.search_space.teacher
        num_params = student.num_params if student else 0
        return {
            "teacher_accuracy": self._context.teacher_accuracy,
            "num_params": num_params,
            "macs": student.macs if student else 0,
            "memory_bytes": student.memory_bytes if student else 0,
            "compression": 1 - num_params / teacher.num_params if student else 0.0,
            "epochs_target": self._recipe.epochs,
            "seconds": self._seconds,
            "cpu_seconds": self._cpu_seconds,
            "device": self._context.device,
            "peak_memory_bytes": peak_memory_bytes(),
        }

    def _reward(self, point: Mapping[str, float]) -> float:
        """The objective of what was measured after an epoch."""
        assert self._architecture is not None
        # without a floor C is that of the papers, of parameters
        size = "params" if self._context.floor is None else self._context.size
        return self._objective(point, cost(self._architecture, size), size)

    def _objective(self, point: Mapping[str, float], amount: int, size: str = "params") -> float:
        """The objective of a network's `accuracy` and `loss`, and of how much it has of `size`."""
        context = self._context
        measured = Measurement(
            accuracy=point["accuracy"],
            loss=point["loss"],
            num_params=amount,
            teacher_accuracy=context.teacher_accuracy,
            teacher_num_params=cost(context.search_space.teacher, size),
            floor=context.floor,
        )
        return REWARDS[context.objective](measured)

    def _state(self) -> dict[str, Any]:
        assert self._training is not None
        return {
            "training": self._training.state_dict(),
            "seconds": self._seconds,
            "cpu_seconds": self._cpu_seconds,
        }

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Writes the whole training: weights, optimiser, schedule, generators, curve."""
        state = self._state() if self._training is not None else {}
        torch.save(state, Path(checkpoint_dir) / "training.pt")

    # Tune gives a path where save_checkpoint returned nothing
    def load_checkpoint(self, checkpoint: str) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Continues a training exactly where `save_checkpoint` left it."""
        state = torch.load(Path(checkpoint) / "training.pt", weights_only=True)
        self._forget()
        if state:
            self._begin(state)

    def cleanup(self) -> None:
        """Frees the device's memory."""
        self._forget()
        if self._context.device == "cuda":
            torch.cuda.empty_cache()


def save_weights(state: Mapping[str, torch.Tensor], path: Path) -> None:
    """Replaces a file of weights at once."""
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    save_file(dict(state), temporary)
    os.replace(temporary, path)


def is_out_of_memory(error: RuntimeError | MemoryError) -> bool:
    """On the CPU PyTorch raises a plain RuntimeError for it."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return "can't allocate memory" in str(error)
