"""Arrays from outside are brought to one form or refused with a sentence."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from raysearch.data.arrays import as_images, as_labels, as_parts, check_labels
from raysearch.errors import DataError


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((5, 3, 8, 8), (5, 3, 8, 8)),
        ((5, 8, 8), (5, 1, 8, 8)),
        ((5, 8, 9, 3), (5, 3, 8, 9)),
        ((5, 8, 9, 1), (5, 1, 8, 9)),
        ((5, 3, 8, 3), (5, 3, 8, 3)),
        ((5, 2, 8, 8), (5, 2, 8, 8)),
    ],
)
def test_axes_become_image_channel_height_width(
    shape: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    images, _ = as_images(np.zeros(shape, np.uint8), "train")
    assert images.shape == expected


def test_channels_last_keeps_every_pixel_and_is_noted() -> None:
    stored = np.arange(2 * 6 * 5 * 3, dtype=np.uint8).reshape(2, 6, 5, 3)
    images, notes = as_images(stored, "train")
    assert images[1, 2, 3, 4] == stored[1, 3, 4, 2]
    assert len(notes) == 1
    assert "channels last" in notes[0]


@pytest.mark.parametrize("shape", [(6, 50, 1), (16, 8, 4), (128, 4, 4), (2, 40, 3)])
def test_few_columns_are_not_taken_for_channels(shape: tuple[int, ...]) -> None:
    images, notes = as_images(np.zeros((2, *shape)), "train")
    assert images.shape[1:] == shape
    assert ["channels first" in note for note in notes] == [True]


@pytest.mark.parametrize(
    ("stored", "sample", "expected"),
    [
        ((8, 8, 4), (8, 8, 4), (8, 8, 4)),  # channels first, as it is known
        ((16, 8, 4), (4, 16, 8), (4, 16, 8)),
        ((6, 50, 1), (6, 25, 25), (6, 50, 1)),  # data.resize comes later: the channels decide
        ((60, 20, 3), (3, 32, 32), (3, 60, 20)),
        ((8, 9, 3), (1, 8, 9), (3, 8, 9)),  # data.mode comes later: the shape decides
        ((1, 40), (1, 40), (1, 40)),
        ((40,), (1, 40), (1, 40)),
        ((40, 2), (2, 40), (2, 40)),
        ((7, 9), (None, None), (7, 9)),
        ((2, 4, 5, 6), (2, 4, 5, 6), (2, 4, 5, 6)),
        ((4, 5, 6), (1, 4, 5, 6), (1, 4, 5, 6)),
        ((2, 4, 5, 6), None, (2, 4, 5, 6)),
    ],
)
def test_the_teachers_shape_tells_the_axes_apart(
    stored: tuple[int, ...], sample: tuple[int | None, ...] | None, expected: tuple[int, ...]
) -> None:
    assert as_images(np.zeros((2, *stored)), "train", sample)[0].shape == (2, *expected)


def test_a_shape_of_another_rank_than_the_teachers_is_refused() -> None:
    with pytest.raises(DataError, match=r"shape \[2, 1, 8, 8\], but 3 axes, .*teacher.input_shape"):
        as_images(np.zeros((2, 1, 8, 8)), "train", (1, 64))


def test_whole_numbers_beyond_bytes_are_noted() -> None:
    values = np.array([[[0, 300], [-2, 5]]], np.int16)
    _, notes = as_images(values, "test")
    assert len(notes) == 1
    assert "test part are whole numbers from -2 to 300" in notes[0]
    assert as_images(values.astype(float), "test")[1] == ()


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        (np.zeros((2, 4, 4), np.uint8), np.uint8),
        (np.full((2, 4, 4), 255, np.int64), np.uint8),
        (np.full((2, 4, 4), 256, np.int64), np.float32),
        (np.full((2, 4, 4), -1, np.int16), np.float32),
        (np.zeros((2, 4, 4), np.float64), np.float32),
        (np.zeros((2, 4, 4), np.float16), np.float32),
        (np.zeros((2, 4, 4), bool), np.uint8),
        (torch.zeros(2, 4, 4, dtype=torch.uint8), np.uint8),
        (torch.zeros(2, 4, 4, dtype=torch.bfloat16), np.float32),
        (torch.zeros(2, 4, 4, requires_grad=True), np.float32),
        ([[[0, 1], [2, 3]]], np.uint8),
    ],
)
def test_pixels_are_bytes_where_they_fit_and_floats_otherwise(values: object, dtype: type) -> None:
    images, _ = as_images(values, "train")
    assert images.dtype == dtype


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e300])
def test_pixels_that_are_not_finite_are_refused_with_their_row(bad: float) -> None:
    values = np.zeros((4, 1, 3, 3))
    values[2, 0, 1, 1] = bad
    with pytest.raises(DataError, match="image in row 2 of the test part holds NaN or infinite"):
        as_images(values, "test")


@pytest.mark.parametrize("shape", [(4,), (4, 16), (4, 1, 2, 3, 3, 3), (4, 1, 0, 3)])
def test_shapes_that_are_no_images_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match=r"\[N, C, H, W\]"):
        as_images(np.zeros(shape), "train")


def test_no_images_at_all_are_refused() -> None:
    with pytest.raises(DataError, match="train part of the data is empty"):
        as_images(np.zeros((0, 1, 3, 3)), "train")


@pytest.mark.parametrize("values", [[[[1, 2], [3]]], np.array([["a"]]), {"x": 1}, None])
def test_what_is_no_array_of_numbers_is_refused(values: object) -> None:
    with pytest.raises(DataError, match="images of the train part"):
        as_images(values, "train")


def test_a_column_of_labels_is_taken_as_labels() -> None:
    labels = as_labels(torch.tensor([[1], [0]], dtype=torch.int32), 2, "train")
    assert labels.dtype == np.int64
    assert labels.tolist() == [1, 0]


@pytest.mark.parametrize("values", [np.zeros(2), np.zeros((2, 10), int), [True, False]])
def test_labels_that_are_no_class_numbers_are_refused(values: object) -> None:
    with pytest.raises(DataError, match="class numbers"):
        as_labels(values, 2, "train")


def test_labels_and_images_must_be_as_many() -> None:
    with pytest.raises(DataError, match="3 images but 2 labels"):
        as_labels([0, 1], 3, "train")


@pytest.mark.parametrize("label", [-1, 10, 255])
def test_a_label_outside_the_classes_is_named_with_its_row(label: int) -> None:
    with pytest.raises(DataError, match=rf"label {label} in row 1 of the test part .* 0\.\.9"):
        check_labels(np.array([0, label, label]), 10, "test")


def test_pairs_are_told_from_one_pair() -> None:
    x, y = np.zeros((2, 3, 3)), np.zeros(2, int)
    assert len(as_parts((x, y))) == 1
    assert len(as_parts([(x, y), (x, y)])) == 2


@pytest.mark.parametrize("data", [None, 3, (1, 2), (np.zeros(2),), ((1, 2), 3), {"x": 1}])
def test_what_is_no_pair_is_refused(data: object) -> None:
    with pytest.raises(DataError, match=r"\(images, labels\)"):
        as_parts(data)
