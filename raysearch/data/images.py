"""Pictures: decoding by Pillow, and the two conversions of the configuration, `data.mode` and `data.resize`."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import interpolate

from raysearch.errors import ConfigError, DataError

_NATIVE_MODES = ("L", "RGB", "RGBA")  # uint8, kept as they are stored
_PLAIN_MODES = {"1": "L", "P": "RGB", "PA": "RGBA", "LA": "L", "CMYK": "RGB", "YCbCr": "RGB"}
_LUMA = np.array([19595, 38470, 7471], dtype=np.uint32)  # Pillow's ITU-R 601 weights, of 65536
_GROUP = 64
_GROUPS_AT_ONCE = 32
_THREADS = min(8, os.cpu_count() or 1)  # more would only wait for the interpreter's lock


@dataclass(frozen=True)
class Conversion:
    """What is done to every picture.

    Attributes:
        mode: "L", "RGB" or None (as stored).
        size: (height, width) or None (as stored).
    """

    mode: str | None = None
    size: tuple[int, int] | None = None


def conversion(mode: str | None, resize: Any) -> Conversion:
    """Check `data.mode` (None, L or RGB) and `data.resize` (None, a side, or [height, width])."""
    if mode not in (None, "L", "RGB"):
        raise ConfigError(f"data.mode is {mode!r}, but it must be null, L or RGB")
    if resize is None:
        return Conversion(mode)
    sides = [resize, resize] if isinstance(resize, int) else resize
    whole = isinstance(sides, (list, tuple)) and len(sides) == 2
    if not whole or not all(type(side) is int and side >= 1 for side in sides):
        raise ConfigError(
            f"data.resize is {resize!r}, but it must be null, a side in pixels, or [height, width]"
        )
    return Conversion(mode, (sides[0], sides[1]))


def decode(
    sources: Iterable[bytes | Path], num_images: int, how: Conversion, part: str
) -> np.ndarray:
    """Decode pictures, files or encoded bytes, into one array.

    Args:
        sources: read once, in order.
        num_images: how many there are.
        part: the part's name, for messages.

    Returns:
        [num_images, C, H, W] uint8.
    """
    images: np.ndarray | None = None
    stream, row = iter(sources), 0
    with ThreadPoolExecutor(_THREADS) as pool:
        while groups := _groups(stream, row):
            for first, pictures in pool.map(lambda group: _decode_group(*group, how=how), groups):
                if images is None:
                    images = np.empty((num_images, *pictures[0].shape), np.uint8)
                for index, picture in enumerate(pictures, first):
                    _check_alike(picture, images, index, part)
                    images[index] = picture
                row += len(pictures)
    if images is None:
        raise DataError(f"the {part} part of the data is empty: give at least one image")
    return images  # [num_images, C, H, W]


def convert_array(images: np.ndarray, how: Conversion) -> np.ndarray:
    """Apply `data.mode` and `data.resize` to images that came as an array.

    Args:
        images: [N, C, H, W] uint8 or float32.
    """
    channels = images.shape[1]
    if how.mode is not None and channels not in (1, 3, 4):
        raise DataError(
            f"data.mode is {how.mode}, but the images have {channels} channels: leave it null"
        )
    if how.mode == "RGB" and channels != 3:
        images = np.repeat(images, 3, axis=1) if channels == 1 else images[:, :3]
    if how.mode == "L" and channels != 1:
        images = _grey(images[:, :3])
    if how.size is not None and how.size != images.shape[2:]:
        images = interpolate(
            torch.from_numpy(np.ascontiguousarray(images)),
            how.size,
            mode="bilinear",
            antialias=True,
        ).numpy()
    return np.ascontiguousarray(images)  # [N, C', H', W']


def _grey(images: np.ndarray) -> np.ndarray:
    """[N, 3, H, W] -> [N, 1, H, W]; of uint8 exactly Pillow's convert("L")."""
    if images.dtype == np.uint8:
        luma = np.einsum("c,nchw->nhw", _LUMA, images.astype(np.uint32)) + 0x8000
        return (luma >> 16).astype(np.uint8)[:, None]
    return np.einsum("c,nchw->nhw", _LUMA.astype(np.float32) / 65536, images)[:, None]


def _groups(stream: Iterator[bytes | Path], row: int) -> list[tuple[int, list[bytes | Path]]]:
    """The next pictures, in groups that are worth a thread's while, each with its first row."""
    groups = []
    while len(groups) < _GROUPS_AT_ONCE and (group := list(islice(stream, _GROUP))):
        groups.append((row, group))
        row += len(group)
    return groups


def _decode_group(
    first: int, group: Sequence[bytes | Path], *, how: Conversion
) -> tuple[int, list[np.ndarray]]:
    return first, [_decode_one(row, source, how) for row, source in enumerate(group, first)]


def _check_alike(picture: np.ndarray, images: np.ndarray, index: int, part: str) -> None:
    if picture.shape != images.shape[1:]:
        raise DataError(
            f"image {index} of the {part} part has shape {list(picture.shape)}, the first has "
            f"{list(images.shape[1:])} (channels, height, width): set data.resize or data.mode"
        )


def _decode_one(row: int, source: bytes | Path, how: Conversion) -> np.ndarray:
    """One picture as [C, H, W] uint8."""
    where = source if isinstance(source, Path) else f"the image in row {row}"
    try:
        with Image.open(source if isinstance(source, Path) else io.BytesIO(source)) as image:
            return _pixels(image, how)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{where} cannot be decoded ({error}): replace or remove it") from error


def _pixels(image: Image.Image, how: Conversion) -> np.ndarray:
    mode = how.mode or _PLAIN_MODES.get(image.mode, image.mode)
    if mode not in _NATIVE_MODES:
        raise ValueError(
            f"mode {image.mode} has no 8-bit form; set data.mode or load it by a callable"
        )
    picture = image if image.mode == mode else image.convert(mode)
    if how.size is not None:
        height, width = how.size
        if picture.size != (width, height):
            picture = picture.resize((width, height), Image.Resampling.BILINEAR)
    pixels = np.asarray(picture)  # [H, W] or [H, W, C]
    return pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)
