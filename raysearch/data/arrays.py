"""Arrays and tensors from outside, checked and brought to [N, C, H, W] and [N]."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from raysearch.errors import DataError

_CHANNELS = (1, 3, 4)


def as_images(values: Any, part: str) -> tuple[np.ndarray, str | None]:
    """Check images.

    Args:
        values: [N, C, H, W], [N, H, W] or [N, H, W, C] (C in 1, 3, 4), array, tensor or nested lists.
        part: the part's name, for messages.

    Returns:
        ([N, C, H, W] uint8 or float32, a note when the last axis was taken for the channels).
    """
    images = _numpy(values, f"the images of the {part} part")
    if images.ndim not in (3, 4) or 0 in images.shape[1:]:
        raise DataError(
            f"the images of the {part} part have shape {list(images.shape)}, "
            "but [N, C, H, W], [N, H, W] or [N, H, W, C] is needed"
        )
    if len(images) == 0:
        raise DataError(f"the {part} part of the data is empty: give at least one image")
    note = None
    if images.ndim == 3:
        images = images[:, None]
    elif images.shape[-1] in _CHANNELS and images.shape[1] not in _CHANNELS:
        images = np.moveaxis(images, -1, 1)
        note = f"images of shape {list(images.shape[1:])} were stored with the channels last"
    return np.ascontiguousarray(_pixels(images, part)), note  # [N, C, H, W]


def as_labels(values: Any, num_images: int, part: str) -> np.ndarray:
    """Check labels: integers, one an image, none negative; [N] or [N, 1] becomes [N] int64."""
    labels = _numpy(values, f"the labels of the {part} part")
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise DataError(
            f"the labels of the {part} part are {labels.dtype} of shape {list(labels.shape)}, "
            "but class numbers (integers, shape [N]) are needed"
        )
    if len(labels) != num_images:
        raise DataError(
            f"the {part} part has {num_images} images but {len(labels)} labels: give one an image"
        )
    return labels.astype(np.int64)


def check_labels(labels: np.ndarray, num_classes: int, part: str) -> None:
    """Raise DataError naming the first label outside 0..num_classes-1 and its row."""
    wrong = np.flatnonzero((labels < 0) | (labels >= num_classes))
    if len(wrong):
        raise DataError(
            f"label {labels[wrong[0]]} in row {wrong[0]} of the {part} part is outside "
            f"0..{num_classes - 1}: number the classes from 0 to {num_classes - 1}"
        )


def is_array(value: Any) -> bool:
    """Whether `value` is one array and not a pair of arrays."""
    return isinstance(value, (np.ndarray, torch.Tensor)) or hasattr(value, "__array__")


def as_parts(data: Any) -> Sequence[tuple[Any, Any]]:
    """((x, y), (x_test, y_test)) or (x, y) as a list of one or two pairs."""
    if isinstance(data, (tuple, list)) and len(data) == 2:
        if all(isinstance(part, (tuple, list)) and len(part) == 2 for part in data):
            return [(part[0], part[1]) for part in data]
        if is_array(data[0]):
            return [(data[0], data[1])]
    raise DataError(
        f"data is a {type(data).__name__}, but (images, labels) or "
        "((images, labels), (test images, test labels)) is needed"
    )


def _numpy(values: Any, what: str) -> np.ndarray:
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
        values = values.float() if values.dtype == torch.bfloat16 else values
        return values.numpy()
    try:
        array = np.asarray(values)
    except (ValueError, TypeError) as error:
        raise DataError(f"{what} are not one array: {error}") from error
    if array.dtype.kind not in "biuf":
        raise DataError(f"{what} are of type {array.dtype}, but numbers are needed")
    return array


def _pixels(images: np.ndarray, part: str) -> np.ndarray:
    """uint8 where the values are whole numbers 0..255, float32 otherwise; refuses NaN and infinity."""
    if images.dtype == np.uint8:
        return images
    if images.dtype.kind in "biu" and images.min() >= 0 and images.max() <= 255:
        return images.astype(np.uint8)
    with np.errstate(over="ignore"):
        images = images.astype(np.float32)
    if not np.isfinite(images).all():
        row = np.flatnonzero(~np.isfinite(images).reshape(len(images), -1).all(axis=1))[0]
        raise DataError(
            f"the image in row {row} of the {part} part holds NaN or infinite pixels: clean the data"
        )
    return images
