"""How a student is trained: one immutable record, and its learning rate at every step."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from raysearch.errors import ConfigError

LossName = Literal["kd", "logits_mse", "ce_logits", "ce"]
OptimizerName = Literal["adam", "adam_l2", "sgd"]
ScheduleName = Literal["one_cycle", "cosine", "constant", "step"]

_WARM_UP = (
    0.3  # the share of one_cycle's steps that climb, as in torch.optim.lr_scheduler.OneCycleLR
)
_WARM_UP_START = 1 / 25  # the same


@dataclass(frozen=True)
class Recipe:
    """A training recipe; JSON-native through `to_dict` and `from_dict`.

    The defaults are the best of those measured for 4 and 20 epochs on students of 5 % of resnet14 (digits, and Fashion-MNIST at
    14x14): many updates matter on small sets, and a limited gradient lets students with few BatchNorms use a high rate too.

    Attributes:
        loss: see trainables/losses.py.
        epochs: the schedule's full length; stopping earlier leaves it un-annealed.
        optimizer: adam (decoupled weight decay, torch's AdamW), adam_l2 (the decay is a part of the gradient, torch's Adam), or sgd.
        lr: the peak learning rate.
        schedule: one_cycle and cosine end near zero; step multiplies by `gamma` at each milestone.
        milestones: epochs, ascending; `step` only.
        momentum, nesterov: of sgd; without momentum there is no Nesterov.
        clip_norm: the longest gradient, over all parameters together; 0: no limit. Students that lost many of their BatchNorms
            diverge without it.
        alpha: kd: the weight of the labels' cross-entropy against the softened teacher.
        temperature: kd: T.
        beta: ce_logits: the weight of the squared logits.
        mean_over_classes: logits_mse: divided by the number of classes, as torch's MSELoss is. It decides how much a weight decay that
            is a part of the gradient weighs beside the loss.
        views: fixed augmented views an image, with cached teacher logits.
        recalibrate: replace BatchNorm's running statistics before each validation (`training.recalibrate`); False judges students
            by the statistics that training left, as the papers do.
    """

    loss: LossName = "kd"
    epochs: int = 4
    optimizer: OptimizerName = "sgd"
    lr: float = 0.2
    momentum: float = 0.9
    weight_decay: float = 5e-4
    clip_norm: float = 1.0
    batch_size: int = 32
    schedule: ScheduleName = "one_cycle"
    milestones: tuple[int, ...] = ()
    gamma: float = 0.1
    temperature: float = 4.0
    alpha: float = 0.5
    beta: float = 0.1
    views: int = 10
    nesterov: bool = True
    mean_over_classes: bool = False
    recalibrate: bool = True

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise _wrong(name, getattr(self, name), f"one of {', '.join(choices)}")
        for name in ("epochs", "batch_size", "views"):
            if getattr(self, name) < 1:
                raise _wrong(name, getattr(self, name), "at least 1")
        for name in ("lr", "temperature", "gamma"):
            if not 0 < getattr(self, name) < math.inf:
                raise _wrong(name, getattr(self, name), "a finite number above 0")
        for name in ("momentum", "alpha"):
            if not 0 <= getattr(self, name) <= 1:
                raise _wrong(name, getattr(self, name), "between 0 and 1")
        for name in ("weight_decay", "beta", "clip_norm"):
            if not 0 <= getattr(self, name) < math.inf:
                raise _wrong(name, getattr(self, name), "a finite number of at least 0")

    @property
    def needs_teacher(self) -> bool:
        return self.loss != "ce"

    def learning_rate(self, step: int, num_steps: int, steps_per_epoch: int) -> float:
        """The learning rate of one step.

        Args:
            step: 0 <= step < num_steps.
            num_steps: of the whole training.
        """
        done = step / num_steps
        if self.schedule == "one_cycle":
            return self.lr * _one_cycle(step, num_steps)
        if self.schedule == "cosine":
            return self.lr * 0.5 * (1 + math.cos(math.pi * done))
        if self.schedule == "step":
            epoch = step // steps_per_epoch
            return self.lr * self.gamma ** sum(epoch >= milestone for milestone in self.milestones)
        return self.lr

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "milestones": list(self.milestones)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Recipe:
        """The inverse of `to_dict`; absent keys take their defaults, unknown ones raise ConfigError."""
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise ConfigError(
                f"a recipe has no key {unknown[0]!r}; its keys are {', '.join(sorted(known))}"
            )
        return cls(**{**values, "milestones": tuple(values.get("milestones") or ())})


_CHOICES: Mapping[str, tuple[str, ...]] = {
    "loss": get_args(LossName),
    "optimizer": get_args(OptimizerName),
    "schedule": get_args(ScheduleName),
}


def _one_cycle(step: int, num_steps: int) -> float:
    """Half a cosine up from 1/25 over 30 % of the steps, half a cosine down to 0 over the rest."""
    peak = _WARM_UP * num_steps
    if step < peak:
        return _WARM_UP_START + (1 - _WARM_UP_START) * 0.5 * (1 - math.cos(math.pi * step / peak))
    return 0.5 * (1 + math.cos(math.pi * (step - peak) / (num_steps - peak)))


def _wrong(name: str, value: Any, wanted: str) -> ConfigError:
    return ConfigError(f"the recipe's {name} is {value!r}, but it must be {wanted}")
