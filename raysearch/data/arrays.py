"""Arrays and tensors from outside, checked and brought to [N, C, H, W] (or [N, C, L], [N, C, D, H, W]) and [N]."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from raysearch.errors import DataError

_CHANNELS = (1, 3, 4)


def as_images(
    values: Any, part: str, sample: Sequence[int | None] | None = None
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Check images, or samples of another rank.

    Args:
        values: [N, C, H, W], [N, H, W] or [N, H, W, C] (C in 1, 3, 4), array, tensor or nested lists; also [N, C, D, H, W], and
            [N, C, L] or [N, L] where `sample` says so.
        part: the part's name, for messages.
        sample: the shape of one sample, channels first, where it is known, with None for an unknown size; it tells the axes apart.

    Returns:
        ([N, C, ...] uint8 or float32, notes on what was assumed of the axes or the values).
    """
    images = _numpy(values, f"the images of the {part} part")
    ranks = (
        (2, 3, 4) if sample is None else (len(sample) - 1, len(sample))
    )  # without the images' axis
    if images.ndim - 1 not in ranks or 0 in images.shape[1:]:
        needed = (
            "[N, C, H, W], [N, H, W], [N, H, W, C] or [N, C, D, H, W] is needed ([N, C, L] with teacher.input_shape [C, L])"
            if sample is None
            else f"{len(sample) + 1} axes, images and channels first, are needed by the teacher or teacher.input_shape"
        )
        raise DataError(
            f"the images of the {part} part have shape {list(images.shape)}, but {needed}"
        )
    if len(images) == 0:
        raise DataError(f"the {part} part of the data is empty: give at least one image")
    if images.ndim - 1 == ranks[0]:
        images = images[:, None]
    last, notes = _channels_last(images.shape[1:], sample)
    if last:
        images = np.moveaxis(images, -1, 1)
    pixels, unscaled = _pixels(images, part)
    return np.ascontiguousarray(pixels), (*notes, *unscaled)  # [N, C, ...]


def _channels_last(
    shape: tuple[int, ...], sample: Sequence[int | None] | None
) -> tuple[bool, list[str]]:
    """Whether the last axis of a sample holds the channels, and a note where that was assumed or could be doubted.

    What is known of the sample decides. Else a last axis of 1, 3 or 4 is taken for the channels only where the two axes before it are
    of comparable size, as the sides of a picture are, and the first one is no usual number of channels.
    """
    if sample is not None:
        first, last = _fits(shape, sample), _fits((shape[-1], *shape[:-1]), sample)
        if first == last and sample[0] is not None:  # data.resize or data.mode come in between
            first, last = shape[0] == sample[0], shape[-1] == sample[0]
        if first != last:
            return last, [
                f"images of shape {list(shape)} were stored with the channels last"
            ] * last
    if len(shape) != 3 or shape[-1] not in _CHANNELS or shape[0] in _CHANNELS:
        return False, []
    if max(shape[:2]) < 2 * min(shape[:2]):
        return True, [
            f"images of shape {list(shape)} were taken to have their channels last; teacher.input_shape can say otherwise"
        ]
    return False, [
        f"images of shape {list(shape)} were taken to have their channels first; teacher.input_shape can say otherwise"
    ]


def _fits(shape: tuple[int, ...], sample: Sequence[int | None]) -> bool:
    return all(size in (None, own) for own, size in zip(shape, sample, strict=True))


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


def check_labels(labels: np.ndarray, num_classes: int, part: str, *, counted: bool = False) -> None:
    """Raise DataError naming the first label outside 0..num_classes-1 and its row.

    Args:
        counted: the classes were counted in the train part, not named, so this part may have one that is missing there.
    """
    wrong = np.flatnonzero((labels < 0) | (labels >= num_classes))
    if len(wrong):
        label = labels[wrong[0]]
        remedy = (
            "the train part has no image of that class: give some there, or leave the class out here"
            if counted and part != "train" and label >= 0
            else f"number the classes from 0 to {num_classes - 1}"
        )
        raise DataError(
            f"label {label} in row {wrong[0]} of the {part} part is outside 0..{num_classes - 1}: {remedy}"
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


def _pixels(images: np.ndarray, part: str) -> tuple[np.ndarray, list[str]]:
    """uint8 where the values are whole numbers 0..255, float32 otherwise, and a note on others; refuses NaN and infinity."""
    if images.dtype == np.uint8:
        return images, []
    notes = []
    if images.dtype.kind in "biu":
        low, high = int(images.min()), int(images.max())
        if low >= 0 and high <= 255:
            return images.astype(np.uint8), []
        notes.append(
            f"the pixels of the {part} part are whole numbers from {low} to {high}, beyond 0..255, "
            "so they are the network's input as they are, neither scaled nor normalised"
        )
    with np.errstate(over="ignore"):
        images = images.astype(np.float32)
    if not np.isfinite(images).all():
        row = np.flatnonzero(~np.isfinite(images).reshape(len(images), -1).all(axis=1))[0]
        raise DataError(
            f"the image in row {row} of the {part} part holds NaN or infinite pixels: clean the data"
        )
    return images, notes
