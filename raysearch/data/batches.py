"""Images that live on the device in their source's type, taken by index and normalised on the fly."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator

import numpy as np
import torch

from raysearch.data.augment import Views, apply_views
from raysearch.data.dataset import Preprocessing

_MIN_FORWARD_BATCH, _MAX_FORWARD_BATCH = 16, 512
_FORWARD_PIXELS = 512 * 32 * 32


def to_device(array: np.ndarray | torch.Tensor, device: torch.device | str) -> torch.Tensor:
    """Array -> tensor, sharing memory on the CPU (also with a read-only array, which nobody may write to)."""
    if isinstance(array, torch.Tensor):
        return array.to(device)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(np.asarray(array, order="C")).to(device)


class DeviceBatches:
    """One part of a data set on a device.

    Attributes:
        images: [N, C, H, W] uint8 or float32; on the CPU the caller's own memory.
        labels: [N] int64.
        shifts: [V, N, 3 or 5] int8, the fixed views (`Views`), or None.
    """

    def __init__(
        self,
        images: np.ndarray | torch.Tensor,
        labels: np.ndarray | torch.Tensor,
        preprocessing: Preprocessing,
        *,
        views: Views | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.device = torch.device(device)
        self.images = to_device(images, self.device)
        self.labels = to_device(labels, self.device)
        self.preprocessing = preprocessing
        self.shifts = None if views is None else to_device(views.shifts, self.device)
        self.pad = 0 if views is None else views.pad

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def num_views(self) -> int:
        return 1 if self.shifts is None else len(self.shifts)

    def take(self, indices: torch.Tensor, view: torch.Tensor | int = 0) -> torch.Tensor:
        """The network's input for some images.

        Args:
            indices: [B] int64, on the device.
            view: [B] int64, one view an image, or one view for all; view 0 is the image itself.

        Returns:
            [B, C, H, W] float32.
        """
        images = self.images.index_select(0, indices)
        if (
            self.shifts is not None
            and len(self.shifts) > 1
            and not (isinstance(view, int) and view == 0)
        ):
            images = apply_views(images, self.shifts[view, indices], self.pad)
        return self.preprocessing(images)

    def order(self, batch_size: int, generator: torch.Generator) -> list[torch.Tensor]:
        """One epoch's batches of indices, shuffled; sizes differ by at most one, so no last tiny batch upsets BatchNorm."""
        order = torch.randperm(len(self), generator=generator).to(self.device)
        return list(torch.tensor_split(order, num_batches(len(self), batch_size)))

    def in_order(self, batch_size: int | None = None) -> Iterator[torch.Tensor]:
        """All indices once, ascending, in chunks of at most `batch_size` (None: as many as passes without gradients take well)."""
        size = batch_size or self.forward_batch_size
        yield from torch.arange(len(self), device=self.device).split(size)

    @property
    def forward_batch_size(self) -> int:
        """512 images up to 32x32, fewer of larger ones, so that activations stay within a few hundred megabytes."""
        places = math.prod(self.images.shape[2:])
        return max(_MIN_FORWARD_BATCH, min(_MAX_FORWARD_BATCH, _FORWARD_PIXELS // places))


def num_batches(num_images: int, batch_size: int) -> int:
    """Batches of an epoch: the images divided by the batch size, rounded, so sizes are near the wanted one."""
    return max(1, round(num_images / batch_size))
