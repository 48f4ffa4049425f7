"""Batches by index from resident images."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from raysearch.data import DeviceBatches, Preprocessing, make_views
from raysearch.data.augment import apply_views

_PREPROCESSING = Preprocessing(1 / 255, (0.4,), (0.2,))


def _batches(num_images: int = 30, augment: str = "flip_crop") -> DeviceBatches:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (num_images, 1, 8, 8), dtype=np.uint8)
    views = make_views(num_images, num_views=4, augment=augment, shape=(1, 8, 8), seed=0)
    return DeviceBatches(images, np.arange(num_images), _PREPROCESSING, views=views)


def test_a_batch_is_the_normalised_view_of_each_image() -> None:
    batches = _batches()
    indices, view = torch.tensor([3, 3, 17]), torch.tensor([0, 2, 3])
    assert batches.shifts is not None
    pixels = apply_views(batches.images[indices], batches.shifts[view, indices], batches.pad)
    expected = (pixels.float() * (1 / 255) - 0.4) / 0.2
    assert torch.equal(batches.take(indices, view), expected)


def test_one_view_for_all_equals_that_view_of_each() -> None:
    batches = _batches()
    indices = torch.arange(10)
    assert torch.equal(batches.take(indices, 2), batches.take(indices, torch.full((10,), 2)))


@pytest.mark.parametrize(("num_images", "batch_size"), [(129, 64), (65, 64), (5, 64), (130, 3)])
def test_an_epoch_holds_every_image_once_in_batches_of_nearly_one_size(
    num_images: int, batch_size: int
) -> None:
    order = _batches(num_images).order(batch_size, torch.Generator().manual_seed(0))
    sizes = [len(indices) for indices in order]
    assert sorted(torch.cat(order).tolist()) == list(range(num_images))
    assert max(sizes) - min(sizes) <= 1
    assert min(sizes) >= min(2, num_images)


def test_images_in_memory_are_shared_and_may_be_read_only() -> None:
    images = np.zeros((4, 1, 8, 8), np.uint8)
    images.setflags(write=False)
    batches = DeviceBatches(images, np.zeros(4, np.int64), _PREPROCESSING)
    assert batches.images.data_ptr() == images.ctypes.data
    batches.take(torch.arange(4))
    assert not images.any()


def test_in_order_visits_every_image_once() -> None:
    assert torch.equal(torch.cat(list(_batches(30).in_order(7))), torch.arange(30))
