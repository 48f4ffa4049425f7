"""One student's training state, in plain torch: epochs that can be stopped, saved, and continued exactly."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from raysearch.data.batches import DeviceBatches, num_batches
from raysearch.data.dataset import Preprocessing
from raysearch.data.logits import DeviceData
from raysearch.models.calibration import recalibrate as recalibrate_statistics
from trainables.flat import FlatParameters
from trainables.losses import loss_function
from trainables.recipe import Recipe

_CALIBRATION_BATCHES = 20
_CALIBRATION_IMAGES = 128  # in a batch, fewer of large images
_AHEAD_BYTES = (
    4 << 20
)  # of float32 inputs that are made in one go: as few operations as an epoch's, in little memory

Batch = tuple[torch.Tensor, torch.Tensor | None, torch.Tensor]
"""(images [B, C, H, W], the teacher's logits [B, K] or None, labels [B])"""


class Training:
    """Trains one module on resident data; everything follows from the module, the data, the recipe and the seed.

    The order of the images, their views and dropout are drawn anew each epoch from (seed, epoch), never from the global generator,
    so a saved and loaded training continues bit for bit on the CPU.

    Attributes:
        module: on the data's device.
        epochs_done: whole epochs trained so far.
        diverged: a loss or a weight is no longer finite; further training is pointless.
    """

    def __init__(
        self,
        module: nn.Module,
        data: DeviceData,
        recipe: Recipe,
        *,
        seed: int = 0,
        channels_last: bool = True,
    ) -> None:
        """Take over `module`: it is moved to the data's device and trained in place.

        Args:
            data: shared by all trainings of a process; never written to.
            recipe: at most its `views` of the data's are drawn; those need cached logits where its loss does.
            channels_last: store weights and activations with the channels last on a CPU, where convolutions are then up to 40 %
                faster; False for a module that calls `view` on feature maps.
        """
        if recipe.needs_teacher:
            assert data.logits is not None, "this loss needs cached logits"
            num_views = min(data.train.num_views, recipe.views)
            assert num_views <= len(data.logits), "some views have no logits"
        self.module = module.to(data.train.device)
        if channels_last and data.train.device.type == "cpu":
            _store_channels_last(self.module)
        self.data = data
        self.recipe = recipe
        self.seed = seed
        self.epochs_done = 0
        self.diverged = False
        self._loss = loss_function(recipe)
        self._weights = FlatParameters(self.module)
        self._optimizer = _optimizer(self._weights.parameters, recipe)

    @property
    def device(self) -> torch.device:
        return self.data.train.device

    def train_epoch(self) -> dict[str, float]:
        """One pass over the training images, one random view of each; returns the mean loss."""
        generator = torch.Generator().manual_seed(_mix(self.seed, self.epochs_done))
        batches = self.data.train.order(self.recipe.batch_size, generator)
        views = self._draw_views(generator)
        total = torch.zeros((), device=self.device)
        first_step = self.epochs_done * len(batches)
        self.module.train()
        with _own_randomness(generator, self.device):
            for step, batch in enumerate(self._inputs(batches, views)):
                self._set_learning_rate(first_step + step, len(batches))
                total += self._step(batch) * len(batch[0])
        self.epochs_done += 1
        loss = float(total) / len(self.data.train)
        self.diverged = self.diverged or not math.isfinite(loss) or not self._weights.is_finite()
        return {"train_loss": loss}

    def validate(self, num_classes: int | None = None) -> dict[str, Any]:
        """Accuracy and cross-entropy on the validation part, BatchNorm re-calibrated before where the recipe says so.

        The weights do not change; BatchNorm's running statistics then do. A diverged student has accuracy 0 and infinite loss.

        Args:
            num_classes: K, for the accuracy of each class too (`evaluate_batches`); None: without.
        """
        if self.diverged:
            return {"accuracy": 0.0, "loss": math.inf}
        if self.recipe.recalibrate:
            recalibrate(self.module, self.data.train, seed=self.seed)
        metrics = evaluate_batches(self.module, self.data.validation, num_classes=num_classes)
        if not math.isfinite(metrics["loss"]):
            self.diverged = True
            return {"accuracy": 0.0, "loss": math.inf}
        return metrics

    def state_dict(self) -> dict[str, Any]:
        """All that continuing needs, detached from this object; loads with `torch.load(weights_only=True)`."""
        return {
            "module": {key: _plain(value) for key, value in self.module.state_dict().items()},
            "optimizer": copy.deepcopy(self._optimizer.state_dict()),
            "epochs_done": self.epochs_done,
            "diverged": self.diverged,
            "seed": self.seed,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where `state_dict` was taken; same architecture, data and recipe."""
        self.module.load_state_dict(state["module"])
        self._optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))
        self.epochs_done = state["epochs_done"]
        self.diverged = state["diverged"]
        self.seed = state["seed"]

    def release(self) -> nn.Module:
        """The module with memory of its own, in evaluation mode; this object cannot train it any further."""
        self._weights.release()
        return self.module.eval()

    def _inputs(self, batches: list[torch.Tensor], views: torch.Tensor | None) -> Iterator[Batch]:
        """What the steps of an epoch see, made for many batches at once: each operation costs more than its work on one batch.

        Args:
            batches: indices of images.
            views: [N] or None.
        """
        train = self.data.train
        logits = self.data.logits if self.recipe.needs_teacher else None
        image_bytes = 4 * train.images[0].numel()
        ahead = max(1, _AHEAD_BYTES // (image_bytes * len(batches[0])))
        for start in range(0, len(batches), ahead):
            group = batches[start : start + ahead]
            indices, sizes = torch.cat(group), [len(batch) for batch in group]
            view = 0 if views is None else views[indices]
            images = train.take(indices, view).split(sizes)
            labels = train.labels[indices].split(sizes)
            if logits is None:
                yield from (
                    (image, None, label) for image, label in zip(images, labels, strict=True)
                )
            else:
                teacher = logits[view, indices].float().split(sizes)
                yield from zip(images, teacher, labels, strict=True)

    def _step(self, batch: Batch) -> torch.Tensor:
        """One optimiser step; returns the loss, detached."""
        images, teacher, labels = batch
        loss = self._loss(self.module(images), teacher, labels)
        self._weights.zero_grad()
        loss.backward()
        if self.recipe.clip_norm:
            self._weights.clip_grad(self.recipe.clip_norm)
        self._optimizer.step()
        return loss.detach()

    def _draw_views(self, generator: torch.Generator) -> torch.Tensor | None:
        """[N] one view an image, or None where there is one only."""
        num_views = min(self.data.train.num_views, self.recipe.views)
        if num_views == 1:
            return None
        return torch.randint(num_views, (len(self.data.train),), generator=generator).to(
            self.device
        )

    def _set_learning_rate(self, step: int, steps_per_epoch: int) -> None:
        num_steps = self.recipe.epochs * steps_per_epoch
        lr = self.recipe.learning_rate(min(step, num_steps - 1), num_steps, steps_per_epoch)
        for group in self._optimizer.param_groups:
            group["lr"] = lr


def _store_channels_last(module: nn.Module) -> None:
    """`Module.to(memory_format=torch.channels_last)`, which refuses the five axes of a 3-d convolution's weight."""
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.dim() == 4:
            tensor.data = tensor.data.to(memory_format=torch.channels_last)


def evaluate(
    module: nn.Module,
    images: np.ndarray | torch.Tensor,
    labels: np.ndarray | torch.Tensor,
    preprocessing: Preprocessing,
    *,
    device: torch.device | str = "cpu",
    batch_size: int | None = None,
) -> dict[str, float]:
    """Accuracy in [0, 1] and mean cross-entropy of `module` in evaluation mode.

    Args:
        images: [N, C, H, W] in the source's own pixel values.
        labels: [N] int64.
    """
    batches = DeviceBatches(images, labels, preprocessing, device=device)
    return evaluate_batches(module.to(device), batches, batch_size=batch_size)


@torch.no_grad()
def evaluate_batches(
    module: nn.Module,
    batches: DeviceBatches,
    *,
    batch_size: int | None = None,
    num_classes: int | None = None,
) -> dict[str, Any]:
    """As `evaluate`, of images that are on the module's device; the loss is summed in float64.

    Args:
        num_classes: K, for `class_accuracy` too: a list of K shares in [0, 1], None of a class without images; None: without.
    """
    was_training = module.training
    module.eval()
    correct = torch.zeros((), dtype=torch.int64, device=batches.device)
    loss = torch.zeros((), dtype=torch.float64, device=batches.device)
    right: list[torch.Tensor] = []  # labels of the images that are classified rightly
    for indices in batches.in_order(batch_size):
        logits, labels = module(batches.take(indices)), batches.labels[indices]
        hits = logits.argmax(dim=1) == labels
        correct += hits.sum()
        if num_classes is not None:
            right.append(labels[hits])
        loss += cross_entropy(logits.double(), labels, reduction="sum")
    module.train(was_training)
    found: dict[str, Any] = {
        "accuracy": int(correct) / len(batches),
        "loss": float(loss) / len(batches),
    }
    if num_classes is not None:
        hit = torch.cat(right).bincount(minlength=num_classes).tolist()
        of = batches.labels.bincount(minlength=num_classes).tolist()
        found["class_accuracy"] = [h / n if n else None for h, n in zip(hit, of, strict=True)]
    return found


def recalibrate(module: nn.Module, batches: DeviceBatches, *, seed: int = 0) -> None:
    """Replace BatchNorm's running statistics by their average over about 20 training batches.

    Early epochs leave statistics that lag behind the weights, which costs several points of accuracy on students that a
    scheduler is about to judge.
    """
    size = min(_CALIBRATION_IMAGES, batches.forward_batch_size)
    order = torch.randperm(len(batches), generator=torch.Generator().manual_seed(seed))
    order = order[: size * _CALIBRATION_BATCHES].to(batches.device)
    parts = torch.tensor_split(order, num_batches(len(order), size))
    recalibrate_statistics(module, (batches.take(indices) for indices in parts))


def _optimizer(parameters: list[nn.Parameter], recipe: Recipe) -> torch.optim.Optimizer:
    """Fused kernels: one call for all parameters, on the CPU too."""
    common: dict[str, Any] = {"lr": recipe.lr, "weight_decay": recipe.weight_decay, "fused": True}
    if recipe.optimizer == "adam":
        return torch.optim.AdamW(parameters, **common)
    if recipe.optimizer == "adam_l2":
        return torch.optim.Adam(parameters, **common)
    nesterov = recipe.nesterov and recipe.momentum > 0
    return torch.optim.SGD(parameters, momentum=recipe.momentum, nesterov=nesterov, **common)


def _plain(tensor: torch.Tensor) -> torch.Tensor:
    """A contiguous copy on the CPU."""
    return tensor.detach().cpu().clone(memory_format=torch.contiguous_format)


def _mix(seed: int, epoch: int) -> int:
    """A 63-bit seed of one epoch of one training; neighbours are unrelated."""
    words = np.random.SeedSequence([seed, epoch]).generate_state(2, np.uint32)
    return int(words[0]) << 31 | int(words[1]) >> 1


@contextmanager
def _own_randomness(generator: torch.Generator, device: torch.device) -> Iterator[None]:
    """Dropout draws from torch's global generators only: lend them a state of ours and give theirs back."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))
        yield
