"""From a source to a data set: parts split off, labels checked, preprocessing computed, everything hashed."""

from __future__ import annotations

import numpy as np

from raysearch.data.arrays import check_labels
from raysearch.data.augment import resolve_augment
from raysearch.data.dataset import DataSet, Preprocessing, Split, channel_statistics, content_hash
from raysearch.data.source import Source
from raysearch.data.splits import check_share, stratified_split
from raysearch.errors import DataError

TEST_SHARE = 0.15
_TEST_SEED = 20_240  # fixed: the test rows of a data set are the same in every run


def assemble(source: Source, *, validation: float, augment: str, seed: int) -> DataSet:
    """Split, check and describe a source.

    Args:
        validation: a fraction of the training part, or a number of rows; unused where the source has a validation part.
        augment: "auto" or one of AUGMENTATIONS.
        seed: of the validation part only.
    """
    check_share(validation, "data.validation")
    classes = _check(source)
    splits, notes = _split(source, validation, seed)
    notes = (*source.notes, *notes, *_absent_classes(splits["train"].labels, classes))
    images = splits["train"].images
    if images.dtype == np.uint8:
        preprocessing = channel_statistics(images, source.scale or 1 / 255)
    else:  # floating-point values are taken for the network's input as they are
        preprocessing = Preprocessing(1.0, (0.0,) * images.shape[1], (1.0,) * images.shape[1])
    chosen = resolve_augment(augment, source.augment, images.shape[1:])
    settings = {
        "classes": list(classes),
        "preprocessing": preprocessing.to_dict(),
        "augment": chosen,
    }
    return DataSet(
        name=source.name,
        classes=classes,
        preprocessing=preprocessing,
        augment=chosen,
        notes=notes,
        hash=content_hash(splits, settings),
        **splits,
    )


def _check(source: Source) -> tuple[str, ...]:
    """Check labels and shapes across the parts; returns the classes' names."""
    images, labels = source.parts["train"]
    num_classes = len(source.classes) if source.classes else max(int(labels.max()), 0) + 1
    for part, (pixels, values) in source.parts.items():
        check_labels(values, num_classes, part, counted=not source.classes)
        if pixels.shape[1:] != images.shape[1:] or pixels.dtype != images.dtype:
            raise DataError(
                f"the images of the {part} part are {pixels.dtype} {list(pixels.shape[1:])}, those of the "
                f"train part {images.dtype} {list(images.shape[1:])}: make them alike (data.resize, data.mode)"
            )
    if len(np.unique(labels)) < 2:
        raise DataError(
            f"all {len(labels)} training labels are {labels[0]}: at least two classes are needed"
        )
    if len(labels) < num_classes:
        raise DataError(
            f"the train part has {len(labels)} images for {num_classes} classes (labels 0..{num_classes - 1}): "
            "give more images, or number the classes from 0 without gaps"
        )
    return source.classes or tuple(str(label) for label in range(num_classes))


def _split(source: Source, validation: float, seed: int) -> tuple[dict[str, Split], list[str]]:
    images, labels = source.parts["train"]
    rows, name = np.arange(len(labels)), "train"
    notes: list[str] = []
    splits: dict[str, Split] = {
        part: Split(*source.parts[part], np.arange(len(source.parts[part][1])), part)
        for part in ("validation", "test")
        if part in source.parts
    }
    if "test" not in splits:
        share = source.num_test or TEST_SHARE
        name = "train" if "validation" in splits else "all"
        rows, taken = stratified_split(labels, share, seed=_TEST_SEED, field="the test part")
        splits["test"] = Split(images[taken], labels[taken], taken, name)
        notes.append(
            f"{source.name} has no test part: {len(taken)} of {len(labels)} images, the same in every run, were split off"
        )
    if "validation" not in splits:
        kept, taken = stratified_split(labels[rows], validation, seed=seed, field="data.validation")
        rows, taken = rows[kept], rows[taken]
        splits["validation"] = Split(images[taken], labels[taken], taken, name)
    splits["train"] = Split(images[rows], labels[rows], rows, name)
    return {part: splits[part] for part in ("train", "validation", "test")}, notes


def _absent_classes(labels: np.ndarray, classes: tuple[str, ...]) -> list[str]:
    absent = sorted(set(range(len(classes))) - set(np.unique(labels).tolist()))
    if not absent:
        return []
    names = ", ".join(classes[label] for label in absent[:5]) + (", ..." if absent[5:] else "")
    return [f"{len(absent)} of {len(classes)} classes have no training image: {names}"]
