"""The contract between a training that students come out of and whatever drives it. Ray is unknown here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from raysearch.architecture import Architecture


@dataclass(frozen=True, eq=False)
class FoundStudent:
    """A student that a run has found.

    Attributes:
        text: what `SearchSpace.apply` takes: the edits' text, or a whole network's (`Architecture.to_compact`).
        architecture: the network.
        weights: where its training may start: the state of the module that `build(architecture)` makes; None: fresh.
        epoch: after how many epochs it was found.
        metrics: what was measured of it then (`accuracy`, `loss`, ...), JSON-native.
    """

    text: str
    architecture: Architecture
    weights: Mapping[str, torch.Tensor] | None
    epoch: int
    metrics: Mapping[str, float] = field(default_factory=dict)


class Run(Protocol):
    """One training (a compression, a super-network's) that students come out of; made of a `DistillationContext` and settings.

    Who calls: the Tune trainable in its own process, one epoch after the other. Everything follows from the context, the settings and the
    context's seed, never from a global generator; a saved and loaded run continues exactly.

    Attributes:
        students: found so far, each once, in the order of their epochs; one that is found again is the later one alone.
        history: for the report, JSON-native.
        complete: the last epoch is done.
        diverged: a loss or a weight is no longer finite.
    """

    students: Sequence[FoundStudent]
    complete: bool
    diverged: bool

    @property
    def epochs_done(self) -> int: ...
    @property
    def epochs_target(self) -> int: ...
    @property
    def history(self) -> dict[str, Any]: ...

    def train_epoch(self) -> dict[str, float]:
        """One epoch, then validation: `accuracy`, `loss`, `num_params`, `macs` (of the student as it stands), and the method's own."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` needs; `torch.load(weights_only=True)` reads it back."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...
