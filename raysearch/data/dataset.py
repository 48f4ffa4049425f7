"""A data set in memory: three disjoint parts, what the pixels mean, and how the network sees them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch


_CHUNK = 1 << 20  # pixels; numpy counts a copy in int64


@dataclass(frozen=True)
class Preprocessing:
    """The network's input is `(pixel * scale - mean) / std`, in float32.

    Attributes:
        scale: brings the source's pixels to about unit range (1/255 for uint8 images, 1/16 for digits).
        mean, std: one value a channel, of the scaled pixels of the training part; 0 and 1 where the source's values are floating-point.
            Such values are the network's input as they are: whoever gives them has normalised them as the teacher wants.
    """

    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        """Normalise.

        Args:
            pixels: [B, C, H, W] (or [B, C, L], [B, C, D, H, W]) in the source's own values.
        """
        values = (
            pixels.float().mul_(self.scale) if pixels.dtype.itemsize < 4 else pixels * self.scale
        )
        ones = [1] * (pixels.ndim - 2)
        mean = values.new_tensor(self.mean).view(-1, *ones)
        std = values.new_tensor(self.std).view(-1, *ones)
        return values.sub_(mean).div_(std)  # [B, C, ...]

    def to_dict(self) -> dict[str, Any]:
        return {"scale": self.scale, "mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Preprocessing:
        return cls(float(values["scale"]), tuple(values["mean"]), tuple(values["std"]))


@dataclass(frozen=True, eq=False)
class Split:
    """One part of a data set.

    Attributes:
        images: [N, C, H, W] (or [N, C, L], [N, C, D, H, W]) uint8 or float32, the source's own pixel values.
        labels: [N] int64, 0 <= label < number of classes.
        indices: [N] int64, the rows of the source that these are, in the source's own order.
        source: the source's part that `indices` counts in: "all", "train", "validation" or "test".
    """

    images: np.ndarray
    labels: np.ndarray
    indices: np.ndarray
    source: str

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, eq=False)
class DataSet:
    """Everything that a run knows of its data.

    Attributes:
        name: the built-in set's name, "parquet", "image_folder", "arrays", or `package.module:callable`.
        classes: the names of the classes, in the order of their labels.
        preprocessing: computed on the training part only.
        train, validation, test: disjoint; whatever selects looks at validation, test is touched once.
        augment: one of `augment.AUGMENTATIONS`.
        notes: sentences that a report should repeat (a test part that we split off, a class without images).
        hash: content hash of pixels, labels, parts and settings.
    """

    name: str
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    train: Split
    validation: Split
    test: Split
    augment: str
    notes: tuple[str, ...]
    hash: str

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, H, W) of one image; (C, L) or (C, D, H, W) of a sample that is none."""
        return self.train.images.shape[1:]

    def describe(self) -> dict[str, Any]:
        """The content of a run's `data.json`: JSON-native."""
        parts = {"train": self.train, "validation": self.validation, "test": self.test}
        return {
            "name": self.name,
            "hash": self.hash,
            "shape": list(self.shape),
            "classes": list(self.classes),
            "preprocessing": self.preprocessing.to_dict(),
            "sizes": {part: len(split) for part, split in parts.items()},
            "rows_of": {part: split.source for part, split in parts.items()},
            "validation": self.validation.indices.tolist(),
            "test": self.test.indices.tolist(),
            "augment": self.augment,
            "notes": list(self.notes),
        }


def content_hash(splits: Mapping[str, Split], settings: Mapping[str, Any]) -> str:
    """A short hash of all pixels, labels, rows and settings; equal content gives an equal hash."""
    digest = hashlib.blake2b(digest_size=16)
    digest.update(json.dumps(settings, sort_keys=True).encode())
    for part, split in splits.items():
        for array in (split.images, split.labels, split.indices):
            digest.update(f"{part}{array.dtype}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def channel_statistics(images: np.ndarray, scale: float) -> Preprocessing:
    """Mean and standard deviation of each channel of the scaled pixels.

    A constant channel gets std 1, so that it becomes zero and not infinite.

    Args:
        images: [N, C, H, W] uint8 or float32.
    """
    means, stds = [], []
    for channel in range(images.shape[1]):
        mean, variance = _moments(images[:, channel])
        std = scale * variance**0.5
        means.append(scale * mean)
        stds.append(std if std > 1e-8 * max(1.0, abs(scale * mean)) else 1.0)
    return Preprocessing(scale, tuple(means), tuple(stds))


def _moments(values: np.ndarray) -> tuple[float, float]:
    """Mean and population variance in float64; exact for uint8, where counting is also fastest."""
    if values.dtype == np.uint8:
        counts = np.zeros(256, np.int64)
        for rows in np.array_split(values, values.size // _CHUNK + 1):
            counts += np.bincount(rows.ravel(), minlength=256)
        levels = np.arange(256)
        mean = float(counts @ levels / values.size)
        return mean, float(counts @ (levels - mean) ** 2 / values.size)
    return float(values.mean(dtype=np.float64)), float(values.var(dtype=np.float64))
