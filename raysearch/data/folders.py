"""Folders of picture files, one folder a class: `PATH/train/CLASS/*`, `PATH/test/CLASS/*`, or `PATH/CLASS/*`.

Parts are told by their names in any case. Folders inside a class belong to it; whatever is hidden is left out.
"""

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
    "testing": "test",
}


def part_of(name: str) -> str | None:
    """The part that a folder or file of this name holds, in any case; None: it names no part."""
    return PART_NAMES.get(name.lower())


def load_image_folder(path: Path, how: Conversion) -> Source:
    """Read an image folder; the class names are the training part's folder names, sorted."""
    folders = _part_folders(path)
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
    _check_layout(folders["train"], path)
    parts = {part: _load_part(folder, classes, how, part) for part, folder in folders.items()}
    return Source("image_folder", parts, tuple(classes))


def _part_folders(path: Path) -> dict[str, Path]:
    """The folder of each part; DataError where two claim the same one."""
    folders: dict[str, Path] = {}
    for folder in _folders(path):
        part = part_of(folder.name)
        if part in folders:
            raise DataError(
                f"data.path: {path} has both {folders[part].name} and {folder.name}, which mean the same "
                f"({part}): put their pictures together or rename one"
            )
        if part is not None:
            folders[part] = folder
    return folders


def _check_layout(train: Path, path: Path) -> None:
    """Refuses folders that look like parts or wrappers, not like classes: no pictures of their own, only folders of some."""
    classes = _folders(train)
    nested = [
        folder.name
        for folder in classes
        if (pictures := _pictures(folder)) and all(file.parent != folder for file in pictures)
    ]
    if len(nested) > 1 or len(nested) == len(classes):
        raise DataError(
            f"data.path: {', '.join(nested[:5])} in {train} hold no pictures but folders of pictures, so which are the "
            f"classes cannot be told: make it {path}/train/CLASS/*.png and {path}/test/CLASS/*.png, or {path}/CLASS/*.png"
        )


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
        if file.suffix.lower() in known
        and not any(name.startswith(".") for name in file.relative_to(folder).parts)
        and file.is_file()
    )
