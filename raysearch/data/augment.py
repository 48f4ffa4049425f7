"""Augmentation as data: a view of an image is a shift, a flip and perhaps a hole, stored in three or five int8 numbers.

The teacher's logits are cached for a fixed set of views, and the students train on the same views. Storing a view's parameters, not
its pixels, keeps every image once; teacher and students see bit-identical pixels because both go through `apply_views`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.functional import pad as pad_images

from raysearch.errors import ConfigError

AUGMENTATIONS = ("none", "crop", "flip", "flip_crop", "crop_cutout", "flip_crop_cutout")
HOLE_UNITS = 128
"""An image's side in the units of a hole's centre."""
_MIN_CROP_SIDE = 16  # the user's own small images may be anything: they are left alone


@dataclass(frozen=True, eq=False)
class Views:
    """A fixed set of views of N images.

    Attributes:
        shifts: [V, N, 3] int8: (rows down, columns right, flip 0 or 1), or [V, N, 5] with the centre of a hole, in 1/128 of the image's
            height and width, or (-1, -1) for none; view 0 is the image itself.
        pad: the largest shift; what moves in from outside is zero.
    """

    shifts: np.ndarray
    pad: int

    def __len__(self) -> int:
        return len(self.shifts)


def resolve_augment(augment: str, usual: str | None, shape: tuple[int, ...]) -> str:
    """What `data.augment` means for a data set.

    Args:
        augment: "auto" or one of AUGMENTATIONS.
        usual: what is usual for this set, or None for a user's own.
        shape: (C, H, W); samples of another rank are never augmented.
    """
    if len(shape) != 3 and augment == "auto":
        return "none"
    if len(shape) != 3 and augment in AUGMENTATIONS[1:]:
        raise ConfigError(
            f"data.augment is {augment!r}, but it is for images [channels, height, width] and the samples have shape "
            f"{list(shape)}: set none"
        )
    if augment == "auto":
        return usual or ("crop" if min(shape[1:]) >= _MIN_CROP_SIDE else "none")
    if augment not in AUGMENTATIONS:
        raise ConfigError(
            f"data.augment is {augment!r}, but it must be auto, {', '.join(AUGMENTATIONS[:-1])} "
            f"or {AUGMENTATIONS[-1]}"
        )
    return augment


def crop_pad(shape: tuple[int, ...]) -> int:
    """The largest shift of a random crop: an eighth of the shorter side (1 of 8 pixels, 4 of 32 as usual)."""
    return min(127, max(1, min(shape[1:]) // 8))


def make_views(
    num_images: int, *, num_views: int, augment: str, shape: tuple[int, ...], seed: int
) -> Views:
    """Draw a fixed set of views.

    Args:
        num_images: N.
        num_views: V >= 1; without augmentation one view is all there is.
        augment: one of AUGMENTATIONS.
        shape: (C, H, W).
    """
    crop, flip, cutout = "crop" in augment, "flip" in augment, "cutout" in augment
    num_views = num_views if crop or flip else 1
    pad = crop_pad(shape) if crop else 0
    rng = np.random.default_rng(seed)
    shifts = np.zeros((num_views, num_images, 3), np.int8)
    shifts[1:, :, :2] = rng.integers(-pad, pad + 1, (num_views - 1, num_images, 2), dtype=np.int8)
    if flip:
        shifts[1:, :, 2] = rng.integers(0, 2, (num_views - 1, num_images), dtype=np.int8)
    if cutout:
        holes = np.full((num_views, num_images, 2), -1, np.int8)
        holes[1:] = rng.integers(0, HOLE_UNITS, (num_views - 1, num_images, 2), dtype=np.int8)
        shifts = np.concatenate([shifts, holes], axis=2)  # [V, N, 5]
    return Views(shifts, pad)


def apply_views(images: torch.Tensor, shifts: torch.Tensor, pad: int) -> torch.Tensor:
    """Shift and flip each image by its own parameters; the content moves down and right by positive shifts.

    Args:
        images: [B, C, H, W], any type.
        shifts: [B, 3] or, with holes, [B, 5], int8 or wider, |shift| <= pad.
    """
    if pad:
        height, width = images.shape[2:]
        padded = pad_images(images, (pad, pad, pad, pad))
        windows = padded.unfold(2, height, 1).unfold(
            3, width, 1
        )  # [B, C, 2 pad + 1, 2 pad + 1, H, W]
        rows = torch.arange(len(images), device=images.device)
        starts = pad - shifts[:, :2].long()
        images = windows[rows, :, starts[:, 0], starts[:, 1]]  # [B, C, H, W]
    flips = shifts[:, 2].bool()[:, None, None, None]
    images = torch.where(flips, images.flip(3), images)
    return _cut_out(images, shifts[:, 3:].long()) if shifts.shape[1] > 3 else images


def _cut_out(images: torch.Tensor, centres: torch.Tensor) -> torch.Tensor:
    """Puts zeros into a square of half the shorter side around each centre, cut off at the borders (DeVries and Taylor, 2017).

    The zeros are of the pixels, as those that a crop moves in, not of the normalised image.

    Args:
        images: [B, C, H, W].
        centres: [B, 2] rows and columns in 1/HOLE_UNITS of H and W; negative: no hole.
    """
    side = max(1, min(images.shape[2:]) // 2)
    inside = []
    for axis in (2, 3):
        length = images.shape[axis]
        start = centres[:, axis - 2] * length // HOLE_UNITS - side // 2  # [B]
        offset = torch.arange(length, device=images.device) - start[:, None]  # [B, length]
        inside.append((offset >= 0) & (offset < side) & (centres[:, axis - 2, None] >= 0))
    hole = inside[0][:, None, :, None] & inside[1][:, None, None, :]  # [B, 1, H, W]
    return images.masked_fill(hole, 0)
