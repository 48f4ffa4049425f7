"""The teacher's answers to the fixed views, computed once and shared by all trials, and what else a trial needs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from raysearch.data.augment import Views, make_views
from raysearch.data.batches import DeviceBatches, to_device
from raysearch.data.dataset import DataSet, Preprocessing, Split


@dataclass(frozen=True, eq=False)
class DistillationData:
    """All that a trial sees: no test part. Plain arrays, so one object in Ray's store serves every worker without a copy.

    Attributes:
        train, validation: the two parts.
        preprocessing: as in DataSet.
        views: the fixed views of the training images.
        logits: [V', N, K] float16, the teacher's raw outputs for the first V' of those views; None: train by labels only.
    """

    train: Split
    validation: Split
    preprocessing: Preprocessing
    views: Views
    logits: np.ndarray | None = None

    def to(self, device: torch.device | str) -> DeviceData:
        """Put it on a device; do it once a process, not once a trial."""
        return DeviceData(
            train=DeviceBatches(
                self.train.images,
                self.train.labels,
                self.preprocessing,
                views=self.views,
                device=device,
            ),
            validation=DeviceBatches(
                self.validation.images, self.validation.labels, self.preprocessing, device=device
            ),
            logits=None if self.logits is None else to_device(self.logits, device),
        )


@dataclass(frozen=True, eq=False)
class DeviceData:
    """DistillationData on a device.

    Attributes:
        logits: [V', N, K] float16 or None.
    """

    train: DeviceBatches
    validation: DeviceBatches
    logits: torch.Tensor | None


def distillation_data(
    data: DataSet,
    teacher: nn.Module | None = None,
    *,
    num_views: int = 10,
    num_answered: int | None = None,
    seed: int = 0,
    device: torch.device | str = "cpu",
    batch_size: int | None = None,
) -> DistillationData:
    """Draw the views and let the teacher answer them.

    Args:
        teacher: None trains by labels only.
        num_views: 10 fixed views cost a third less than fresh ones and lose nothing that was measured.
        num_answered: so many of them the teacher answers, the rest are for training by labels; None: all.
    """
    views = make_views(
        len(data.train), num_views=num_views, augment=data.augment, shape=data.shape, seed=seed
    )
    logits = None
    if teacher is not None and num_answered != 0:
        logits = teacher_logits(
            teacher,
            data.train.images,
            Views(views.shifts[:num_answered], views.pad),
            data.preprocessing,
            device=device,
            batch_size=batch_size,
        )
    return DistillationData(data.train, data.validation, data.preprocessing, views, logits)


@torch.no_grad()
def teacher_logits(
    module: nn.Module,
    images: np.ndarray,
    views: Views,
    preprocessing: Preprocessing,
    *,
    device: torch.device | str = "cpu",
    batch_size: int | None = None,
) -> np.ndarray:
    """Raw outputs of `module` in evaluation mode for every view of every image.

    Args:
        images: [N, C, H, W].

    Returns:
        [V, N, K] float16; values beyond float16's range become its largest number.
    """
    batches = DeviceBatches(
        images, np.zeros(len(images), np.int64), preprocessing, views=views, device=device
    )
    was_training = module.training
    module.to(device).eval()
    rows = [
        torch.cat(
            [_half(module(batches.take(indices, view))) for indices in batches.in_order(batch_size)]
        )
        for view in range(len(views))
    ]
    module.train(was_training)
    return torch.stack(rows).cpu().numpy()  # [V, N, K]


def _half(logits: torch.Tensor) -> torch.Tensor:
    limit = torch.finfo(torch.float16).max
    return logits.clamp(-limit, limit).half()
