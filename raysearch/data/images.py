"""Pictures: decoding by Pillow, and the two conversions of the configuration, `data.mode` and `data.resize`.

Grey pictures of 16 bits become 8 bits where `data.mode` asks for L or RGB: 0..65535 is scaled to 0..255 and rounded. Other deep pictures
(32-bit whole numbers, floating point) have no known white, so they are refused.
"""

from __future__ import annotations

import io
import math
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
_DEEP_MODES = ("I;16", "I;16L", "I;16B", "I;16N")  # grey, 16 bits, white is 65535
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
    if how.size is not None:  # before the first picture takes that size
        check_memory((num_images, 3 if how.mode == "RGB" else 1, *how.size), 1, part)
    stream, row = iter(sources), 0
    with ThreadPoolExecutor(_THREADS) as pool:
        while groups := _groups(stream, row):
            for first, pictures in pool.map(lambda group: _decode_group(*group, how=how), groups):
                if images is None:
                    check_memory((num_images, *pictures[0].shape), 1, part)
                    images = np.empty((num_images, *pictures[0].shape), np.uint8)
                for index, picture in enumerate(pictures, first):
                    _check_alike(picture, images, index, part)
                    images[index] = picture
                row += len(pictures)
    if images is None:
        raise DataError(f"the {part} part of the data is empty: give at least one image")
    return images  # [num_images, C, H, W]


def check_memory(shape: Sequence[int], item_bytes: int, part: str) -> None:
    """Raise DataError where images [N, C, H, W] cannot be held by this machine, once as read and once as split."""
    needed, memory = math.prod(shape) * item_bytes, _machine_memory()
    if 2 * needed > memory:
        raise DataError(
            f"the images of the {part} part, {list(shape)} (images, channels, height, width), take {needed / 1e9:.1f} GB, "
            f"and twice that while they are split, but this machine has {memory / 1e9:.1f} GB: set data.resize to smaller sides"
        )


def _machine_memory() -> float:
    """Bytes of memory of this machine; infinite where the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return math.inf


def convert_array(images: np.ndarray, how: Conversion, part: str = "train") -> np.ndarray:
    """Apply `data.mode` and `data.resize` to images that came as an array.

    Args:
        images: [N, C, H, W] uint8 or float32; samples of another rank have neither a mode nor a size.
        part: the part's name, for messages.
    """
    if images.ndim != 4 and (how.mode is not None or how.size is not None):
        field = "data.mode" if how.size is None else "data.resize"
        raise DataError(
            f"{field} is for images [channels, height, width], but the samples have shape {list(images.shape[1:])}: leave it null"
        )
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
        check_memory((*images.shape[:2], *how.size), images.itemsize, part)
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
    except DataError as error:
        raise DataError(f"{where} {error}") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{where} cannot be decoded ({error}): replace or remove it") from error


def _eight_bits(image: Image.Image) -> Image.Image:
    """Grey of 16 bits as grey of 8, scaled and rounded (65535 / 255 = 257); Pillow's own convert("L") clips at 255."""
    values = np.asarray(image).astype(np.uint32)  # [H, W]
    return Image.fromarray(((values + 128) // 257).astype(np.uint8))


def _pixels(image: Image.Image, how: Conversion) -> np.ndarray:
    if image.mode in _DEEP_MODES and how.mode is not None:
        image = _eight_bits(image)
    mode = how.mode or _PLAIN_MODES.get(image.mode, image.mode)
    if image.mode in _DEEP_MODES:
        raise DataError(
            f"has 16 bits a pixel (mode {image.mode}): data.mode=L scales them to 8, a callable (data.name) keeps them"
        )
    if mode not in _NATIVE_MODES or image.mode in ("I", "F"):  # convert() would clip these at 255
        raise DataError(
            f"is of mode {image.mode}, which has no 8-bit form: load the data by a callable (data.name)"
        )
    picture = image if image.mode == mode else image.convert(mode)
    if how.size is not None:
        height, width = how.size
        if picture.size != (width, height):
            picture = picture.resize((width, height), Image.Resampling.BILINEAR)
    pixels = np.asarray(picture)  # [H, W] or [H, W, C]
    return pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)
