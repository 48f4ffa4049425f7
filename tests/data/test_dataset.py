"""Preprocessing, hashing and the description of a data set."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from raysearch.data import Preprocessing, from_arrays
from raysearch.data.dataset import channel_statistics


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_the_normalised_training_part_has_mean_zero_and_std_one(dtype: type) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (50, 3, 7, 5)).astype(dtype)
    images[:, 1] //= 2
    preprocessing = channel_statistics(images, 1 / 255)
    values = preprocessing(torch.from_numpy(images)).numpy()
    assert values.dtype == np.float32
    assert values.mean(axis=(0, 2, 3)) == pytest.approx(np.zeros(3), abs=1e-4)
    assert values.std(axis=(0, 2, 3)) == pytest.approx(np.ones(3), rel=1e-4)


def test_preprocessing_is_the_written_formula() -> None:
    preprocessing = Preprocessing(0.5, (1.0, 2.0), (4.0, 8.0))
    pixels = torch.tensor([[[[6]], [[20]]]], dtype=torch.uint8)
    assert preprocessing(pixels).flatten().tolist() == [(6 * 0.5 - 1) / 4, (20 * 0.5 - 2) / 8]


def test_preprocessing_leaves_its_input_alone() -> None:
    pixels = torch.ones(1, 1, 2, 2)
    Preprocessing(0.5, (1.0,), (4.0,))(pixels)
    assert torch.equal(pixels, torch.ones(1, 1, 2, 2))


def test_a_constant_channel_becomes_zero_and_not_infinite() -> None:
    images = np.full((4, 1, 3, 3), 7, np.uint8)
    values = channel_statistics(images, 1 / 255)(torch.from_numpy(images))
    assert values.abs().max() < 1e-6


def test_preprocessing_survives_json() -> None:
    preprocessing = Preprocessing(1 / 255, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert Preprocessing.from_dict(json.loads(json.dumps(preprocessing.to_dict()))) == preprocessing


def _arrays(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (60, 1, 4, 4), dtype=np.uint8), np.arange(60) % 3


def test_equal_content_has_an_equal_hash() -> None:
    assert from_arrays(_arrays()).hash == from_arrays(_arrays()).hash


def test_a_changed_pixel_label_or_split_changes_the_hash() -> None:
    images, labels = _arrays()
    reference = from_arrays((images, labels)).hash
    other_images, other_labels = images.copy(), labels.copy()
    other_images[30, 0, 0, 0] ^= 1
    other_labels[30] = (other_labels[30] + 1) % 3
    assert from_arrays((other_images, labels)).hash != reference
    assert from_arrays((images, other_labels)).hash != reference
    assert from_arrays((images, labels), seed=1).hash != reference
    assert from_arrays((images, labels), augment="flip").hash != reference


def test_the_description_is_json_and_holds_the_rows() -> None:
    data = from_arrays(_arrays())
    described = json.loads(json.dumps(data.describe()))
    assert described["validation"] == data.validation.indices.tolist()
    assert described["test"] == data.test.indices.tolist()
    assert described["shape"] == [1, 4, 4]
    assert described["classes"] == ["0", "1", "2"]
    assert described["preprocessing"] == data.preprocessing.to_dict()
    assert described["hash"] == data.hash
