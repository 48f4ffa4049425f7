"""A student as a Tune trial: built lazily, distilled from the teacher, judged on the validation part after each epoch.

Works in our own runs and in anybody's Tune script: `DistillationTrainable.bound(context)` is a trainable class for a `Tuner`, and a
trial's config needs no more than `architecture` (the text of the edits).
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ray import tune
from safetensors.torch import load_file, save_file
from torch import nn

from raysearch.architecture import Architecture, SearchSpace
from raysearch.architecture.budget import cost
from raysearch.data import DeviceData, DistillationData
from raysearch.data.batches import to_device
from raysearch.errors import InvalidArchitecture, RunError
from raysearch.models import build
from raysearch.models.inherit import descends
from raysearch.models.keep import ChannelRanking
from raysearch.objective import REWARDS, Measurement, ObjectiveName, floor_reward
from trainables.recipe import Recipe
from trainables.reports import CLASS_ACCURACY, by_class, own_metrics, peak_memory_bytes
from trainables.training import Training

PARTIAL_EVERY_S = 60.0
"""How often a long training is saved, so that a killed run loses a minute and not a day."""

# what PyTorch raises for a network that cannot be made from its description
_BUILD_ERRORS = (InvalidArchitecture, RuntimeError, ValueError, MemoryError)


@dataclass(frozen=True, eq=False)
class DistillationContext:
    """Everything that all trials share; lives once a machine in Ray's object store, arrays are read without a copy.

    Attributes:
        teacher: the teacher's architecture as JSON.
        teacher_weights: its state, name -> array.
        space: keyword arguments of `SearchSpace` that decide what an edit string means.
        data: training and validation part, and the teacher's cached logits.
        recipes: by stage, as `Recipe.to_dict` gives them; "search" is the default.
        value_epochs: by stage: which epoch's accuracy, loss and reward are a student's: its "last" (the default), or its "best" so far.
        init: by stage: "inherit" (slices of the teacher's weights, the default), "fresh", or "search" (the weights that the short
            training left in `weights_folder`, else as the stage "search").
        channel_scores: how important the teacher's channels are (`raysearch.models.scores`), which decides what "inherit" keeps; None:
            the first channels.
        rankings: other scores by name, which a trial's config may ask for in its key `channels`.
        objective, teacher_accuracy: how a student is rewarded; the accuracy is the teacher's on the validation part.
        floor: the accuracy that is wanted at least, for the objective "smallest"; `size` ("params", "macs" or "memory") is what is made
            small.
        report: what results hold on request: "class_accuracy".
        metrics: `package.module:callable` that measures a trained student (see `trainables.reports`); None: nothing.
        device: "cpu" or "cuda".
        threads: intra-op threads of a trial on the CPU.
        weights_folder: where finished students' weights and unfinished trainings are kept; None: nowhere.
        timeout_s: a trial that has trained longer ends with what it has; None: no limit.
        seed: of initialisation and batches.
    """

    teacher: str
    teacher_weights: Mapping[str, np.ndarray]
    space: Mapping[str, Any]
    data: DistillationData
    recipes: Mapping[str, Mapping[str, Any]]
    value_epochs: Mapping[str, str] = field(default_factory=dict)
    init: Mapping[str, str] = field(default_factory=dict)
    channel_scores: Sequence[np.ndarray] | None = None
    rankings: Mapping[str, Sequence[np.ndarray]] = field(default_factory=dict)
    objective: ObjectiveName = "f"
    teacher_accuracy: float = 1.0
    floor: float | None = None
    size: str = "params"
    report: Sequence[str] = ()
    metrics: str | None = None
    device: str = "cpu"
    threads: int = 1
    weights_folder: str | None = None
    timeout_s: float | None = None
    seed: int = 0

    @cached_property
    def search_space(self) -> SearchSpace:
        """The space that reads edit strings; without a budget, which only proposers need."""
        return SearchSpace(Architecture.from_json(self.teacher), **self.space)

    @property
    def reported_classes(self) -> int | None:
        """K where the accuracy of each class is to be reported."""
        teacher = self.search_space.teacher
        return teacher[teacher.output].shape[-1] if CLASS_ACCURACY in self.report else None

    @cached_property
    def teacher_state(self) -> dict[str, torch.Tensor]:
        """The teacher's weights as tensors that share the store's memory."""
        return {name: to_device(array, "cpu") for name, array in self.teacher_weights.items()}

    @cached_property
    def ranking(self) -> ChannelRanking:
        """Which of the teacher's channels students keep."""
        return ChannelRanking(self.search_space.teacher, self.channel_scores)

    def ranking_of(self, name: str | None) -> ChannelRanking:
        """Which channels a student keeps whose trial names one of `rankings`; None: as all do.

        Raises:
            InvalidArchitecture: the name is not known.
        """
        if name is None:
            return self.ranking
        if name not in self.rankings:
            known = ", ".join(sorted(self.rankings)) or "none"
            raise InvalidArchitecture(f"channels: {name!r} is not known; known are {known}")
        return ChannelRanking(self.search_space.teacher, self.rankings[name])

    @cached_property
    def device_data(self) -> DeviceData:
        """Images, labels and logits, resident on the device."""
        return self.data.to(self.device)

    def recipe(self, stage: str) -> Recipe:
        """The training recipe of a stage."""
        return Recipe.from_dict(self.recipes.get(stage, self.recipes["search"]))


class DistillationTrainable(tune.Trainable):
    """One student's distillation; a step is one epoch (`epochs_per_step` in the config makes it several).

    Config keys: `architecture` (text of the edits, or of a whole network, see `SearchSpace.apply`), and optionally `stage` (which recipe), `architecture_id`, `epochs_per_step`,
    `timeout_s` (in place of the context's), `channels` (which of the context's `rankings` says what the student keeps of the teacher).
    Each result holds `reward, accuracy, loss, teacher_accuracy, num_params, macs, compression, epochs_done, epochs_target, status`, and
    what the context's `report` and `metrics` ask for.
    A network that is not the teacher's layers, resized or left out, has nothing to inherit and starts afresh.
    Where the best epoch counts (`DistillationContext.value_epochs`), `reward` never falls from one result to the next, `accuracy` and
    `loss` are those of that epoch, the result's `value_epoch`, and so are all that schedulers and searchers see; the weights that are
    kept are the last epoch's all the same, because the final training continues from them.
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
        self._training: Training | None = None
        self._architecture: Architecture | None = None
        self._curve: list[dict[str, Any]] = []
        self._seconds = self._cpu_seconds = 0.0
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
        start, cpu_start = time.perf_counter(), time.process_time()
        if self._training is None:
            try:
                self._begin()
            except _BUILD_ERRORS as error:
                return self._rejected("invalid", error)
        training = self._training
        assert training is not None
        try:
            for _ in range(self.config.get("epochs_per_step", 1)):
                if training.epochs_done < self._recipe.epochs:
                    training.train_epoch()
                    found = training.validate(self._context.reported_classes)
                    self._curve.append({"epoch": training.epochs_done, **found})
        except (RuntimeError, MemoryError) as error:
            if not _is_out_of_memory(error):
                raise
            return self._rejected("invalid", error)
        if training.diverged:
            return self._rejected("diverged", None)
        self._seconds += time.perf_counter() - start
        self._cpu_seconds += time.process_time() - cpu_start
        complete = training.epochs_done >= self._recipe.epochs
        timeout_s = self.config.get("timeout_s", self._context.timeout_s)
        self._keep(complete)
        done = complete or (timeout_s is not None and self._seconds > timeout_s)
        result = self._result("ok", done)
        try:
            return {**result, **(self._measured(result) if done else {})}
        except RunError as error:
            return self._rejected("invalid", error)

    def _begin(self) -> None:
        """Builds the student, and continues a training that an earlier run had to leave."""
        context = self._context
        student = context.search_space.apply(self.config["architecture"])
        self._architecture = student
        recipe = self._recipe
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(context.seed)
            module = self._build(student)
        self._training = Training(module, context.device_data, recipe, seed=context.seed)
        if not self._curve and (partial := self._file(".partial")) and partial.exists():
            self._load(torch.load(partial, weights_only=True))

    def _build(self, student: Architecture) -> nn.Module:
        """The student with the weights that its stage starts from."""
        init = self._context.init.get(self._stage, "inherit")
        if init == "search":
            for stage in ("search", "random", "prune"):
                found = self._file(".safetensors", stage)
                if found is not None and found.exists():
                    return build(student, inherit_from=load_file(found))
            init = self._context.init.get("search", "inherit")
        if init == "fresh" or not descends(student, self._context.search_space.teacher):
            return build(student)
        keep = self._context.ranking_of(self.config.get("channels")).keep(student)
        return build(student, inherit_from=self._context.teacher_state, keep=keep)

    def _file(self, suffix: str, stage: str | None = None) -> Path | None:
        folder, key = self._context.weights_folder, self.config.get("architecture_id")
        if folder is None or key is None:
            return None
        return Path(folder) / f"{stage or self._stage}-{key}{suffix}"

    def _keep(self, done: bool) -> None:
        """Leaves the weights of a finished student, or now and then an unfinished training, in the run's folder."""
        partial, weights = self._file(".partial"), self._file(".safetensors")
        if partial is None or weights is None or self._training is None:
            return
        if done:
            state = self._training.state_dict()["module"]  # copies: the weights share their memory
            temporary = weights.with_suffix(f".{os.getpid()}.tmp")
            save_file(state, temporary)
            os.replace(temporary, weights)
            partial.unlink(missing_ok=True)
        elif time.monotonic() - self._saved_at >= PARTIAL_EVERY_S:
            temporary = partial.with_suffix(f".{os.getpid()}.tmp")
            torch.save(self._state(), temporary)
            os.replace(temporary, partial)
            self._saved_at = time.monotonic()

    def _result(self, status: str, done: bool) -> dict[str, Any]:
        reward = REWARDS[self._context.objective]
        curve = [reward(self._measurement(point)) for point in self._curve]
        counted, which = self._curve[-1], {}
        if self._context.value_epochs.get(self._stage) == "best":
            counted = self._curve[curve.index(max(curve))]
            curve = list(accumulate(curve, max))
            which = {"value_epoch": int(counted["epoch"])}
        return {
            "reward": curve[-1],
            "accuracy": counted["accuracy"],
            "loss": counted["loss"],
            **self._sizes(),
            "epochs_done": int(self._curve[-1]["epoch"]),
            **which,
            **self._classes(counted),
            "status": status,
            "reward_curve": curve,
            "accuracy_curve": [point["accuracy"] for point in self._curve],
            "loss_curve": [point["loss"] for point in self._curve],
            "done": done,
        }

    def _measured(self, result: Mapping[str, Any]) -> dict[str, float]:
        """What the user's own function says of the student, once it is trained."""
        assert self._training is not None
        assert self._architecture is not None
        path = self._context.metrics
        if path is None:
            return {}
        return own_metrics(path, self._training.module, self._architecture, result)

    def _classes(self, point: Mapping[str, Any]) -> dict[str, Any]:
        asked = CLASS_ACCURACY in self._context.report
        return {CLASS_ACCURACY: by_class(point[CLASS_ACCURACY])} if asked else {}

    def _rejected(self, status: str, error: BaseException | None) -> dict[str, Any]:
        """The last result of a student that gave none."""
        self._training = None
        return {
            "reward": floor_reward(self._context.objective),
            "accuracy": 0.0,
            "loss": float("inf"),
            **self._sizes(),
            "epochs_done": len(self._curve),
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

    def _measurement(self, point: Mapping[str, float]) -> Measurement:
        assert self._architecture is not None
        context = self._context
        # without a floor C is that of the papers, of parameters
        size = "params" if context.floor is None else context.size
        return Measurement(
            accuracy=point["accuracy"],
            loss=point["loss"],
            num_params=cost(self._architecture, size),
            teacher_accuracy=context.teacher_accuracy,
            teacher_num_params=cost(context.search_space.teacher, size),
            floor=context.floor,
        )

    def _state(self) -> dict[str, Any]:
        assert self._training is not None
        return {
            "training": self._training.state_dict(),
            "curve": self._curve,
            "seconds": self._seconds,
            "cpu_seconds": self._cpu_seconds,
        }

    def _load(self, state: Mapping[str, Any]) -> None:
        assert self._training is not None
        self._training.load_state_dict(state["training"])
        self._curve = list(state["curve"])
        self._seconds = state["seconds"]
        self._cpu_seconds = state.get("cpu_seconds", 0.0)

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
            self._curve = list(state["curve"])  # a checkpoint wins over a partial file
            self._begin()
            self._load(state)

    def cleanup(self) -> None:
        """Frees the device's memory."""
        self._forget()
        if self._context.device == "cuda":
            torch.cuda.empty_cache()


def _is_out_of_memory(error: RuntimeError | MemoryError) -> bool:
    """On the CPU PyTorch raises a plain RuntimeError for it."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return "can't allocate memory" in str(error)
