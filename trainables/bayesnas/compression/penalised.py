"""Training whose steps somebody completes: a penalty in its proximal form, weights that must stay zero."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from raysearch.bayesnas.compression import CompressionSettings
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


def recipe_of(settings: CompressionSettings) -> Recipe:
    """How a compression trains."""
    return Recipe(
        loss=settings.loss,
        epochs=settings.epochs,
        optimizer="sgd",
        lr=settings.lr,
        momentum=settings.momentum,
        nesterov=False,
        weight_decay=settings.weight_decay,
        batch_size=settings.batch_size,
        schedule=settings.schedule,
    )


def temperatures(recipe: Recipe) -> dict[float, float]:
    """The temperatures at which a recipe's loss looks at the logits, and their shares."""
    if recipe.loss != "kd":
        return {1.0: 1.0}
    return {1.0: recipe.alpha, recipe.temperature: 1 - recipe.alpha}
