"""The settings of a structured Bayesian compression (Yang 2019, appendix A, algorithm 2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from raysearch.bayesnas.checks import (
    check_choice,
    check_flag,
    check_integer,
    check_number,
    make_settings,
    wrong,
)

HessianName = Literal["ggn", "exact", "recursive"]
PruneName = Literal["fixed_point", "entropy"]
StartName = Literal["teacher", "fresh"]
LossName = Literal["ce", "kd"]
ScheduleName = Literal["one_cycle", "cosine", "constant"]

CONV_GROUPS = ("filter", "channel", "shape")
LINEAR_GROUPS = ("row", "column")


@dataclass(frozen=True)
class CompressionSettings:
    """How a teacher is compressed; JSON-native through `to_dict` and `from_dict`.

    A run trains for `interval` epochs, updates (prior variances, pruning), and so on: `updates` times, and then for `recovery` intervals without the
    penalty, in which what the last update left recovers.

    Attributes:
        updates: T_max of algorithm 2 (10).
        interval: epochs between updates (the thesis: 10).
        recovery: intervals after the last update.
        conv_groups: which weights of a convolution live and die together; several at once add up their precisions. "filter": W[n] (where
            BatchNorm follows: its factor, since the filter's own length then means nothing), "channel": W[:, c], "shape": W[:, c, h, w].
            Filters that create, and slices that read, one channel of the network are one group in all layers (residual sums).
        linear_groups: "row": W[n], "column": W[:, c].
        hessian: "ggn": the diagonal of the generalised Gauss-Newton matrix, unbiased by one drawn label an image; "exact": the same from one pass
            a class; "recursive": the thesis's recursion (networks of convolutions, linear layers, BatchNorm, pooling and element-wise functions).
        images: how many training images the Hessian is averaged over.
        scale_hessian: divide it by lambda, as the public code does; False: the thesis's text.
        inner: iterations of gamma and omega at each update; 1 is the algorithm as printed, more of them come near its fixed point at once.
        prune: "fixed_point": groups whose mean H w^2 is below 4 lambda, where the iteration would end at zero (for E = h (w - m)^2 / 2 its fixed point
            solves w^2 - m w + lambda / h = 0), channels by all the weights that go with them; lambda rises from a hundredth, by
            equal factors. "entropy": groups whose gamma is at most 1 / (2 pi e), as in the thesis; lambda is what it is from the first update on.
        start: "teacher": its weights; "fresh": an initialisation of its own.
        loss: "ce": the labels' cross-entropy; "kd": distillation, as trials of the search do by default.
        lr, momentum, weight_decay, batch_size, schedule: of stochastic gradient descent, over the whole run.
    """

    updates: int = 10
    interval: int = 2
    recovery: int = 3
    conv_groups: tuple[str, ...] = ("filter", "channel")
    linear_groups: tuple[str, ...] = ("row", "column")
    hessian: HessianName = "ggn"
    images: int = 2048
    scale_hessian: bool = True
    inner: int = 10
    prune: PruneName = "fixed_point"
    start: StartName = "teacher"
    loss: LossName = "kd"
    lr: float = 0.05
    momentum: float = 0.9
    weight_decay: float = 1e-4
    batch_size: int = 64
    schedule: ScheduleName = "cosine"

    def __post_init__(self) -> None:
        for name in ("updates", "interval", "recovery", "images", "inner", "batch_size"):
            check_integer(name, getattr(self, name), 1)
        for name, known in (("conv_groups", CONV_GROUPS), ("linear_groups", LINEAR_GROUPS)):
            object.__setattr__(self, name, _names(name, getattr(self, name), known))
        if not self.conv_groups and not self.linear_groups:
            raise wrong("conv_groups", [], f"some of {', '.join(CONV_GROUPS)}")
        for name, kind in (
            ("hessian", HessianName),
            ("prune", PruneName),
            ("start", StartName),
            ("loss", LossName),
            ("schedule", ScheduleName),
        ):
            check_choice(name, getattr(self, name), get_args(kind))
        check_flag("scale_hessian", self.scale_hessian)
        check_number("lr", self.lr, above_zero=True)
        check_number("momentum", self.momentum, below=1)
        check_number("weight_decay", self.weight_decay)

    @property
    def epochs(self) -> int:
        """Of the whole run."""
        return (self.updates + self.recovery) * self.interval

    def to_dict(self) -> dict[str, Any]:
        return {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in asdict(self).items()
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> CompressionSettings:
        """The inverse of `to_dict`; absent keys take their defaults.

        Raises:
            ConfigError: an unknown key or a bad value.
        """
        return make_settings(cls, values, method="bayes_compression")


def _names(field: str, value: object, known: Sequence[str]) -> tuple[str, ...]:
    names = tuple(value) if isinstance(value, list | tuple) else None
    if (
        names is None
        or len(set(map(str, names))) < len(names)
        or any(n not in known for n in names)
    ):
        raise wrong(field, value, f"a list of some of {', '.join(known)}, each once")
    return names
