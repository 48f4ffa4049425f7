"""Folders of picture files, one folder a class: `PATH/train/CLASS/*`, `PATH/test/CLASS/*`, or `PATH/CLASS/*`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from raysearch.data.images import Conversion, decode
from raysearch.data.source import Source
from raysearch.errors import DataError

PART_NAMES = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "test": "test",
}


def load_image_folder(path: Path, how: Conversion) -> Source:
    """Read an image folder; the class names are the training part's folder names, sorted."""
    folders = {
        PART_NAMES[folder.name]: folder for folder in _folders(path) if folder.name in PART_NAMES
    }
    if "train" not in folders:
        if folders:
            raise DataError(
                f"data.path: {path} has {', '.join(sorted(folders))} but no train folder: add it"
            )
        folders = {"train": path}
    classes = [folder.name for folder in _folders(folders["train"])]
    if not classes:
        raise DataError(
            f"data.path: {folders['train']} has no class folders: one folder a class is needed"
        )
    parts = {part: _load_part(folder, classes, how, part) for part, folder in folders.items()}
    return Source("image_folder", parts, tuple(classes))


def _load_part(
    folder: Path, classes: Sequence[str], how: Conversion, part: str
) -> tuple[np.ndarray, np.ndarray]:
    files, labels = [], []
    for found in _folders(folder):
        if found.name not in classes:
            raise DataError(
                f"{found} is not a class of the training part ({', '.join(classes)}): "
                "rename it or add the class there"
            )
        pictures = _pictures(found)
        if not pictures and part == "train":
            raise DataError(f"{found} holds no picture: add some or remove the folder")
        files += pictures
        labels += [classes.index(found.name)] * len(pictures)
    return decode(files, len(files), how, part), np.array(labels, np.int64)


def _folders(path: Path) -> list[Path]:
    return sorted(
        entry for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith(".")
    )


def _pictures(folder: Path) -> list[Path]:
    known = Image.registered_extensions()
    return sorted(
        file
        for file in folder.rglob("*")
        if file.is_file() and file.suffix.lower() in known and not file.name.startswith(".")
    )
