"""Loading a data set by name: the built-in ones, a folder, or a user's own arrays."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from http.client import HTTPException
from pathlib import Path
from typing import Any

import numpy as np

from raysearch.cache import cache_folder
from raysearch.data.arrays import as_images, as_labels, as_parts
from raysearch.data.assemble import assemble
from raysearch.data.callables import call
from raysearch.data.dataset import DataSet
from raysearch.data.folders import load_image_folder
from raysearch.data.images import Conversion, conversion, convert_array
from raysearch.data.parquet import find_parts, load_parquet
from raysearch.data.source import Source
from raysearch.errors import ConfigError, DataError

# name in torchvision.datasets, the arguments of its train and of its test part, augmentation that suits it
_TORCHVISION = {
    "mnist": ("MNIST", {"train": True}, {"train": False}, "crop"),
    "fashion_mnist": ("FashionMNIST", {"train": True}, {"train": False}, "flip_crop"),
    "cifar10": ("CIFAR10", {"train": True}, {"train": False}, "flip_crop"),
    "cifar100": ("CIFAR100", {"train": True}, {"train": False}, "flip_crop"),
    "svhn": ("SVHN", {"split": "train"}, {"split": "test"}, "crop"),
}
_FOLDERS: dict[str, Callable[[Path, Conversion], Source]] = {
    "parquet": load_parquet,
    "image_folder": load_image_folder,
}
DATA_SETS = ("digits", *_TORCHVISION, *_FOLDERS)


def load_data(
    name: str,
    *,
    path: str | os.PathLike[str] | None = None,
    mode: str | None = None,
    resize: int | list[int] | tuple[int, int] | None = None,
    validation: float = 0.15,
    augment: str = "auto",
    seed: int = 0,
    download: bool = True,
    sample: Sequence[int | None] | None = None,
) -> DataSet:
    """Load a data set and split it.

    Args:
        name: one of DATA_SETS, `package.module:callable`, or a folder (parquet files or class folders).
        path: the folder of parquet and image_folder; where torchvision's files are (default: the user's cache folder).
        mode: None (as stored), "L" or "RGB"; grey pictures of 16 bits are scaled to 8 by either.
        resize: None (as stored), a side in pixels, or (height, width).
        validation: the share of the training part held out, or a number of rows; ignored where the source brings its own.
        augment: "auto" or one of `augment.AUGMENTATIONS`.
        seed: of the validation part; the test part never depends on it.
        download: fetch a torchvision set whose files are missing.
        sample: the shape of one sample of a callable's arrays, where it is known (see `arrays.as_images`).

    Raises:
        DataError, ConfigError: one sentence with the field, its value and the remedy.
    """
    how = conversion(mode, resize)
    folder = None if path is None else Path(path).expanduser()
    found = _load(name, folder, how, download, sample)
    if isinstance(found, DataSet):
        return found
    return assemble(found, validation=validation, augment=augment, seed=seed)


def from_arrays(
    train: tuple[Any, Any],
    test: tuple[Any, Any] | None = None,
    *,
    name: str = "arrays",
    classes: tuple[str, ...] | None = None,
    mode: str | None = None,
    resize: int | list[int] | tuple[int, int] | None = None,
    validation: float = 0.15,
    augment: str = "auto",
    seed: int = 0,
    sample: Sequence[int | None] | None = None,
) -> DataSet:
    """A data set from arrays or tensors in memory.

    Args:
        train: (images, labels); images [N, C, H, W], [N, H, W] or [N, H, W, C], also [N, C, D, H, W] or, where `sample` has two
            sizes, [N, C, L]; labels [N].
        test: the same, or None: 15 % of `train` is split off.
        classes: the names of the classes; None: their numbers.
        mode, resize, validation, augment, seed, sample: as in load_data.
    """
    parts = as_parts(train if test is None else (train, test))
    source = _array_source(parts, name, conversion(mode, resize), sample, classes)
    return assemble(source, validation=validation, augment=augment, seed=seed)


def _load(
    name: str,
    path: Path | None,
    how: Conversion,
    download: bool,
    sample: Sequence[int | None] | None,
) -> Source | DataSet:
    if name == "digits":
        return _digits(how)
    if name in _TORCHVISION:
        return _torchvision(name, path or cache_folder() / "torchvision", how, download)
    if name in _FOLDERS:
        return _FOLDERS[name](_existing(path, name), how)
    if ":" in name and not Path(name).exists():
        found = call(name, path)
        if isinstance(found, DataSet):
            return found
        return _array_source(as_parts(found), name, how, sample)
    if name and Path(name).expanduser().is_dir():
        folder = Path(name).expanduser()
        return _FOLDERS[_kind_of_folder(folder)](folder, how)
    raise ConfigError(
        f"data.name is {name!r}, but it must be one of {', '.join(DATA_SETS)}, "
        "package.module:callable, or a folder that exists"
    )


def _existing(path: Path | None, name: str) -> Path:
    if path is None:
        raise ConfigError(
            f"data.path is null, but data.name {name} needs it: give the folder of the data"
        )
    if not path.is_dir() and not (name == "parquet" and path.is_file()):
        raise DataError(f"data.path: {path} does not exist: give the folder of the data")
    return path


def _kind_of_folder(folder: Path) -> str:
    if any(folder.glob("*.parquet")) or any(folder.glob("*/*.parquet")):
        find_parts(folder)
        return "parquet"
    return "image_folder"


def _array_source(
    pairs: Sequence[tuple[Any, Any]],
    name: str,
    how: Conversion,
    sample: Sequence[int | None] | None,
    classes: tuple[str, ...] | None = None,
) -> Source:
    parts, notes = {}, []
    for part, (images, labels) in zip(("train", "test"), pairs, strict=False):
        pixels, assumed = as_images(images, part, sample)
        parts[part] = (convert_array(pixels, how, part), as_labels(labels, len(pixels), part))
        notes += [note for note in assumed if note not in notes]
    return Source(name, parts, classes, notes=tuple(notes))


def _digits(how: Conversion) -> Source:
    """scikit-learn's bundled 1,797 digits, 8x8, pixels 0..16.

    Measured: students of 5 % lose .04 of accuracy in 4 epochs and .006 in 20 by shifts of one pixel, so `auto` means none here.
    """
    from sklearn.datasets import load_digits  # a second of import that no other set needs

    found: Any = load_digits()
    pixels = found.images[:, None].astype(np.uint8)  # [1797, 1, 8, 8]
    names = tuple(str(digit) for digit in range(10))
    part = (convert_array(pixels, how), found.target.astype(np.int64))
    return Source("digits", {"train": part}, names, scale=1 / 16, augment="none", num_test=360)


def _torchvision(name: str, root: Path, how: Conversion, download: bool) -> Source:
    kind, train, test, augment = _TORCHVISION[name]
    loaded = {
        part: _torchvision_part(name, kind, root, arguments, download)
        for part, arguments in (("train", train), ("test", test))
    }
    names = tuple(getattr(loaded["train"], "classes", map(str, range(10))))
    parts = {}
    for part, found in loaded.items():
        labels = getattr(found, "targets", None)
        images, _ = as_images(found.data, part)
        values = as_labels(found.labels if labels is None else labels, len(images), part)
        parts[part] = (convert_array(images, how, part), values)
    return Source(name, parts, names, augment=augment)


def _torchvision_part(
    name: str, kind: str, root: Path, arguments: dict[str, Any], download: bool
) -> Any:
    """One part, from the files that are there; else downloaded."""
    from torchvision import datasets

    loader = getattr(datasets, kind)
    try:
        return loader(str(root), download=False, **arguments)
    except RuntimeError as missing:
        if not download:
            raise DataError(_missing(name, kind, root, "downloads are off")) from missing
    except (OSError, ValueError, EOFError) as damaged:
        raise DataError(
            f"the files of {name} in {root} cannot be read ({_flat(damaged)}): delete them, "
            "so that they are fetched again"
        ) from damaged
    try:
        return loader(str(root), download=True, **arguments)
    except (RuntimeError, OSError, ValueError, EOFError, HTTPException) as error:
        reason = f"downloading failed: {_flat(error)}"
        raise DataError(_missing(name, kind, root, reason)) from error


def _flat(error: Exception) -> str:
    return " ".join(str(error).split())


def _missing(name: str, kind: str, root: Path, reason: str) -> str:
    return (
        f"the files of {name} are not in {root} ({reason}): connect to a network, put torchvision's "
        f"{kind} files there, set data.path to their folder, or use data.name parquet"
    )
