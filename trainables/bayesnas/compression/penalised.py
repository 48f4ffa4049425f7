"""Training whose steps somebody completes: a penalty in its proximal form, weights that must stay zero."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from raysearch.data import DeviceData
from trainables.recipe import Recipe
from trainables.training import Batch, Training


class PenalisedTraining(Training):
    """As `Training`; `after_step(step, learning_rate)` is called after each step, which is counted from the epoch's first."""

    def __init__(
        self,
        module: nn.Module,
        data: DeviceData,
        recipe: Recipe,
        *,
        after_step: Callable[[int, float], None],
        seed: int = 0,
    ) -> None:
        super().__init__(module, data, recipe, seed=seed)
        self._after_step = after_step
        self._step_of_epoch = 0

    def train_epoch(self) -> dict[str, float]:
        self._step_of_epoch = 0
        return super().train_epoch()

    def _step(self, batch: Batch) -> torch.Tensor:
        loss = super()._step(batch)
        self._after_step(self._step_of_epoch, self._optimizer.param_groups[0]["lr"])
        self._step_of_epoch += 1
        return loss
