"""A real, tiny run for the tests of whatever drives runs: plain SGD on the teacher, which gets sparse by an l1 penalty of lambda, and offers after
every second epoch the student that keeps a share of the channels which falls with lambda.

Imported by its dotted path, also in the processes of Ray.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from raysearch.architecture import Edits, SearchSpace
from raysearch.errors import ConfigError
from raysearch.models import build
from raysearch.models.states import state_of
from searchers.runs import RunsAlgorithm
from trainables.bayesnas.run import FoundStudent
from trainables.bayesnas.trainable import RunTrainable
from trainables.context import DistillationContext
from trainables.training import evaluate_batches

HERE = "tests.trainables.bayesnas.tiny"


@dataclass(frozen=True)
class TinySettings:
    """epochs: of a run; lr: of SGD; breaks_at: the epoch after which the loss is no number."""

    epochs: int = 4
    lr: float = 0.02
    breaks_at: int | None = None

    def __post_init__(self) -> None:
        if not 0 < self.lr < 1:
            raise ConfigError(
                f"search.options.lr is {self.lr!r}: give a number between 0 and 1, such as 0.02"
            )

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TinySettings:
        names = {field.name for field in fields(cls)}
        return cls(**{key: value for key, value in values.items() if key in names})


class TinyRun:
    """See the module."""

    def __init__(
        self,
        context: DistillationContext,
        settings: TinySettings,
        *,
        lam: float,
        budget: Mapping[str, int] | None,
        seed: int,
    ) -> None:
        self.settings, self.lam, self.seed = settings, lam, seed
        self.data = context.device_data
        space = context.search_space
        self.space = SearchSpace(space.teacher, **context.space, budget=budget)
        self.module = build(space.teacher, inherit_from=context.teacher_state)
        self.students: list[FoundStudent] = []
        self.diverged = False
        self.epochs_done = 0
        self._epochs: list[dict[str, float]] = []

    @property
    def complete(self) -> bool:
        return self.epochs_done >= self.settings.epochs

    @property
    def epochs_target(self) -> int:
        return self.settings.epochs

    @property
    def history(self) -> dict[str, Any]:
        return {"kind": "compression", "lam": self.lam, "epochs": copy.deepcopy(self._epochs)}

    def train_epoch(self) -> dict[str, float]:
        generator = torch.Generator().manual_seed(1000 * self.seed + self.epochs_done)
        parameters = list(self.module.parameters())
        self.module.train()
        for indices in self.data.train.order(32, generator)[:4]:
            images, labels = self.data.train.take(indices), self.data.train.labels[indices]
            penalty = torch.stack([one.abs().sum() for one in parameters]).sum()
            loss = cross_entropy(self.module(images), labels) + self.lam * 1e-2 * penalty
            for one, slope in zip(
                parameters, torch.autograd.grad(loss, parameters, allow_unused=True), strict=True
            ):
                if slope is not None:
                    one.data -= self.settings.lr * slope.clamp(-1, 1)
        self.epochs_done += 1
        self.diverged = self.settings.breaks_at == self.epochs_done
        metrics = evaluate_batches(self.module, self.data.validation)
        student = self.space.apply(self._edits())
        found = {
            "accuracy": float(metrics["accuracy"]),
            "loss": float(metrics["loss"]),
            "num_params": student.num_params,
            "macs": student.macs,
            "active_groups": float(sum(self._kept())),
            "entropy": math.log1p(self.lam),
        }
        self._epochs.append({"epoch": self.epochs_done, **found})
        if self.epochs_done % 2 == 0:
            module = build(student, inherit_from=state_of(self.module))
            measured = evaluate_batches(module, self.data.validation)
            self.students.append(
                FoundStudent(
                    str(self._edits()),
                    student,
                    module.state_dict(),
                    self.epochs_done,
                    {"accuracy": measured["accuracy"], "loss": measured["loss"]},
                )
            )
        return found

    def _kept(self) -> list[int]:
        """Channels of each group that stay: the more, the smaller lambda; fewer from epoch to epoch."""
        share = 0.5 ** (math.log1p(100 * self.lam) * (1 + self.epochs_done) / 8)
        return [max(1, math.ceil(share * group.size)) for group in self.space.groups]

    def _edits(self) -> Edits:
        text = str(Edits((), tuple(self._kept()), ()))
        return self.space.repair(self.space.batch([text]))[0]

    def state_dict(self) -> dict[str, Any]:
        return {
            "module": {key: value.clone() for key, value in self.module.state_dict().items()},
            "epochs_done": self.epochs_done,
            "epochs": copy.deepcopy(self._epochs),
            "students": [
                (one.text, dict(one.weights or {}), one.epoch, dict(one.metrics))
                for one in self.students
            ],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.module.load_state_dict(state["module"])
        self.epochs_done = state["epochs_done"]
        self._epochs = copy.deepcopy(state["epochs"])
        self.students = [
            FoundStudent(text, self.space.apply(text), weights, epoch, metrics)
            for text, weights, epoch, metrics in state["students"]
        ]


class TinyTrainable(RunTrainable):
    engine = f"{HERE}:TinyRun"
    settings_class = f"{HERE}:TinySettings"


class SavingTrainable(TinyTrainable):
    """Saves its unfinished runs after every epoch, not every minute."""

    def _keep_unfinished(self) -> None:
        self._saved_at = -math.inf
        super()._keep_unfinished()


class TinyAlgorithm(RunsAlgorithm):
    method = f"{HERE}:TinyAlgorithm"
    settings_class = f"{HERE}:TinySettings"
    trainable = f"{HERE}:TinyTrainable"
    default_range = (1e-3, 1e-1)
    default_num_runs = 3


class SavingAlgorithm(TinyAlgorithm):
    trainable = f"{HERE}:SavingTrainable"
