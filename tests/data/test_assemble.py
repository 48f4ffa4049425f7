"""From arrays to parts: rows, notes and refusals."""

from __future__ import annotations

import numpy as np
import pytest

from raysearch.data import from_arrays
from raysearch.data.assemble import assemble
from raysearch.data.source import Source
from raysearch.errors import ConfigError, DataError


def _arrays(num_images: int = 80, num_classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Every image holds its own row number."""
    rows = np.arange(num_images)
    images = np.broadcast_to(rows[:, None, None, None], (num_images, 1, 3, 3))
    return images.astype(np.uint8), rows % num_classes


def test_rows_point_into_the_source() -> None:
    images, labels = _arrays()
    data = from_arrays((images, labels))
    for split in (data.train, data.validation, data.test):
        assert np.array_equal(split.images, images[split.indices])
        assert np.array_equal(split.labels, labels[split.indices])
        assert split.source == "all"


def test_the_three_parts_are_a_partition() -> None:
    data = from_arrays(_arrays())
    rows = np.concatenate([part.indices for part in (data.train, data.validation, data.test)])
    assert np.array_equal(np.sort(rows), np.arange(80))


def test_a_test_part_that_was_split_off_is_noted_and_does_not_depend_on_the_seed() -> None:
    first, second = (from_arrays(_arrays(), seed=seed) for seed in (0, 1))
    assert "no test part: 12 of 80 images" in first.notes[0]
    assert np.array_equal(first.test.indices, second.test.indices)
    assert not np.array_equal(first.validation.indices, second.validation.indices)


def test_a_given_test_part_is_kept_whole() -> None:
    images, labels = _arrays()
    data = from_arrays((images, labels), (images[:7], labels[:7]))
    assert np.array_equal(data.test.indices, np.arange(7))
    assert data.test.source == "test"
    assert data.validation.source == "train"
    assert len(data.train) + len(data.validation) == 80
    assert data.notes == ()


def test_a_given_validation_part_is_kept_whole() -> None:
    source = Source("own", {"train": _arrays(), "validation": _arrays(9), "test": _arrays(8)})
    data = assemble(source, validation=0.15, augment="auto", seed=0)
    assert [len(part) for part in (data.train, data.validation, data.test)] == [80, 9, 8]
    assert data.validation.source == "validation"


def test_validation_can_be_a_number_of_rows() -> None:
    images, labels = _arrays()
    assert len(from_arrays((images, labels), (images, labels), validation=20).validation) == 20


def test_statistics_come_from_the_training_part_only() -> None:
    data = from_arrays(_arrays())
    expected = data.train.indices.mean() / 255
    assert data.preprocessing.mean[0] == pytest.approx(expected)


def test_floats_keep_their_scale() -> None:
    images, labels = _arrays()
    assert from_arrays((images / 7.0, labels)).preprocessing.scale == 1.0


def test_a_class_without_training_image_is_noted() -> None:
    images, labels = _arrays()
    data = from_arrays((images, np.where(labels == 1, 5, labels)))
    assert data.num_classes == 6
    assert "2 of 6 classes have no training image: 1, 4" in data.notes


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.zeros(80, int), "at least two classes"),
        (np.arange(80) * 1000, r"80 images for 79001 classes"),
        (np.arange(80) - 1, "label -1 in row 0 of the train part"),
    ],
)
def test_labels_that_make_no_classes_are_refused(labels: np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=message):
        from_arrays((_arrays()[0], labels))


def test_a_test_label_outside_the_training_classes_is_refused() -> None:
    images, labels = _arrays()
    with pytest.raises(
        DataError,
        match=r"label 4 in row 0 of the test part is outside 0\.\.3: the train part has no",
    ):
        from_arrays((images, labels), (images[:2], np.array([4, 1])))
    with pytest.raises(DataError, match=r"label -1 .*: number the classes from 0 to 3"):
        from_arrays((images, labels), (images[:2], np.array([-1, 1])))


@pytest.mark.parametrize(
    "other", [np.zeros((2, 1, 4, 3), np.uint8), np.zeros((2, 1, 3, 3), np.float32)]
)
def test_parts_of_different_images_are_refused(other: np.ndarray) -> None:
    with pytest.raises(DataError, match="make them alike"):
        from_arrays(_arrays(), (other, np.array([0, 1])))


def test_an_unknown_augmentation_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"data.augment is 'mixup'"):
        from_arrays(_arrays(), augment="mixup")


def test_named_classes_must_cover_the_labels() -> None:
    with pytest.raises(DataError, match=r"outside 0\.\.1"):
        from_arrays(_arrays(), classes=("cat", "dog"))


def test_floating_point_images_are_the_networks_input_as_they_are():
    rng = np.random.default_rng(0)
    images = rng.normal(5, 3, (60, 2, 8, 8)).astype(np.float32)
    data = from_arrays((images, np.arange(60) % 3))
    assert data.preprocessing.to_dict() == {"scale": 1.0, "mean": [0.0, 0.0], "std": [1.0, 1.0]}
    assert np.array_equal(data.train.images, images[data.train.indices])
