"""Settings of the one-shot search (Yang 2019, chapters 3 to 5): a super-network whose switches are learned. They hold no lambda."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from raysearch.bayesnas.checks import (
    FIELD,
    check_choice,
    check_flag,
    check_integer,
    check_number,
    make_settings,
    wrong,
)

Kind = Literal["cells", "proxyless"]
Hessian = Literal["ggn", "exact", "recursive"]
Schedule = Literal["cosine", "constant"]


@dataclass(frozen=True)
class SuperNetSettings:
    """How a super-network is made, trained, pruned, and turned into students; JSON-native through `to_dict` and `from_dict`.

    The defaults run in minutes on small images on a CPU. The thesis's scale on CIFAR-10 is `channels=16, num_cells=8, batch_size=18,
    faithful=True` (cells), or `blocks=18, alpha=84, batch_size=32` (proxyless).

    Attributes:
        kind: "cells" (a normal and a reduction cell, shared by all cells of a kind, 5-1) or "proxyless" (a PyramidNet whose 3x3
            convolutions are trees of paths, each with switches of its own, 5-3).
        faithful: the public code's protocol: one epoch of weights on a tenth of the images, one of weights and switches on the rest, and
            one update from the last batch. It decides `epochs`, `warm_up`, `updates` and `hessian_batches`.
        epochs: of the run, warm-up included.
        warm_up: of them, how many train the weights alone.
        updates: of gamma, in each epoch after the warm-up, evenly spaced, the last one at the epoch's end.
        channels: cells: C of the super-network's first cells.
        num_cells: cells: N of the super-network; the cells at N/3 and 2N/3 halve the image. Fewer than 3 would have no normal cell.
        student_channels, student_cells: of the derived network without a budget. With one, the channels are the most that fit, and
            the cells are fewer where even `min_channels` are too many.
        min_channels: the least C of a derived network.
        max_paths: the most paths into a node of a derived cell, those with the largest gamma; None: all that are not pruned. A person
            who picks a cell from gamma, as in the thesis, takes few; the super-network itself keeps what is not pruned.
        blocks: proxyless: bottleneck blocks in each of the three stages.
        alpha: proxyless: how many channels the widths grow by over all blocks.
        width: proxyless: channels of the stem.
        groups: proxyless: of the trees' 3x3 convolutions.
        batch_size, lr, momentum, weight_decay: SGD of the weights and, without decay, of the switches.
        clip_norm: the longest gradient of the weights, and of the switches; 0: no limit. Without one the switches of a small network run
            away.
        schedule: of the weights' learning rate over the run: "cosine" to zero or "constant"; faithful runs keep it constant. That
            of the switches is constant. A network that is pruned late in a cosine does not recover.
        hessian: "ggn" (unbiased: `probes` random signs a sample), "exact" (the same matrix's exact diagonal, one backward pass a
            class), or "recursive" (the thesis's diagonal recursion: it leaves out what couples the numbers of an image, so that it
            is far below the other two).
        probes: backward passes of "ggn".
        hessian_batches: over how many batches the curvature is averaged.
    """

    kind: Kind = "cells"
    faithful: bool = False
    epochs: int = 8
    warm_up: int = 2
    updates: int = 1
    channels: int = 8
    num_cells: int = 3
    student_channels: int = 16
    student_cells: int = 5
    min_channels: int = 4
    max_paths: int | None = 4
    blocks: int = 2
    alpha: int = 24
    width: int = 16
    groups: int = 2
    batch_size: int = 32
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 1e-4
    clip_norm: float = 1.0
    schedule: Schedule = "constant"
    hessian: Hessian = "ggn"
    probes: int = 2
    hessian_batches: int = 4

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            check_choice(name, getattr(self, name), choices)
        check_flag("faithful", self.faithful)
        for name, least in _INTEGERS.items():
            check_integer(name, getattr(self, name), least)
        if self.max_paths is not None:
            check_integer("max_paths", self.max_paths, 1)
        check_number("lr", self.lr, above_zero=True)
        check_number("momentum", self.momentum, below=1)
        for name in ("weight_decay", "clip_norm"):
            check_number(name, getattr(self, name))
        self._check_together()

    def _check_together(self) -> None:
        if not self.faithful and self.warm_up >= self.epochs:
            raise wrong("warm_up", self.warm_up, f"less than {FIELD}epochs={self.epochs}")
        if self.kind == "proxyless" and self.width % self.groups:
            raise wrong("width", self.width, f"a multiple of {FIELD}groups={self.groups}")

    @property
    def epochs_target(self) -> int:
        """How many epochs the run has."""
        return 2 if self.faithful else self.epochs

    @property
    def weight_epochs(self) -> int:
        """How many of them train the weights alone."""
        return 1 if self.faithful else self.warm_up

    @property
    def updates_an_epoch(self) -> int:
        return 1 if self.faithful else self.updates

    @property
    def curvature_batches(self) -> int:
        return 1 if self.faithful else self.hessian_batches

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> SuperNetSettings:
        """The inverse of `to_dict`; absent keys take their defaults.

        Raises:
            ConfigError: an unknown key, or a value that is none.
        """
        return make_settings(cls, values, method="bayes_nas")


_CHOICES: Mapping[str, tuple[str, ...]] = {
    "kind": get_args(Kind),
    "hessian": get_args(Hessian),
    "schedule": get_args(Schedule),
}
_INTEGERS: Mapping[str, int] = {
    "epochs": 1,
    "warm_up": 0,
    "updates": 1,
    "channels": 2,
    "num_cells": 3,
    "student_channels": 2,
    "student_cells": 1,
    "min_channels": 2,
    "blocks": 1,
    "alpha": 0,
    "width": 2,
    "groups": 1,
    "batch_size": 2,
    "probes": 1,
    "hessian_batches": 1,
}
