"""Views against a slow, obvious implementation."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from raysearch.data.augment import apply_views, crop_pad, make_views, resolve_augment


def _by_hand(image: np.ndarray, down: int, right: int, flip: int) -> np.ndarray:
    """[C, H, W]: every pixel moved on its own."""
    out = np.zeros_like(image)
    channels, height, width = image.shape
    for channel in range(channels):
        for row in range(height):
            for column in range(width):
                if 0 <= row + down < height and 0 <= column + right < width:
                    out[channel, row + down, column + right] = image[channel, row, column]
    return out[:, :, ::-1] if flip else out


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_views_shift_then_flip_each_image_by_its_own(dtype: type) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(1, 256, (40, 2, 7, 5)).astype(dtype)
    shifts = np.column_stack([rng.integers(-2, 3, (40, 2)), rng.integers(0, 2, 40)]).astype(np.int8)
    out = apply_views(torch.from_numpy(images), torch.from_numpy(shifts), 2).numpy()
    expected = [
        _by_hand(image, *shift) for image, shift in zip(images, shifts.tolist(), strict=True)
    ]
    assert out.dtype == dtype
    assert np.array_equal(out, np.stack(expected))


def test_view_zero_is_the_image_itself() -> None:
    views = make_views(30, num_views=10, augment="flip_crop", shape=(1, 8, 8), seed=0)
    assert views.shifts.shape == (10, 30, 3)
    assert views.shifts.dtype == np.int8
    assert not views.shifts[0].any()
    images = torch.arange(30 * 64).reshape(30, 1, 8, 8)
    assert torch.equal(apply_views(images, torch.from_numpy(views.shifts[0]), views.pad), images)


@pytest.mark.parametrize(
    ("augment", "moves", "flips"),
    [("crop", True, False), ("flip", False, True), ("flip_crop", True, True)],
)
def test_each_augmentation_does_what_its_name_says(augment: str, moves: bool, flips: bool) -> None:
    views = make_views(500, num_views=5, augment=augment, shape=(3, 32, 32), seed=0)
    later = views.shifts[1:]
    assert views.pad == (4 if moves else 0)
    assert set(np.unique(later[..., :2])) == (set(range(-4, 5)) if moves else {0})
    assert set(np.unique(later[..., 2])) == ({0, 1} if flips else {0})


def test_without_augmentation_there_is_one_view() -> None:
    assert len(make_views(5, num_views=10, augment="none", shape=(1, 8, 8), seed=0)) == 1


def test_the_seed_decides_the_views() -> None:
    first, again, other = (
        make_views(50, num_views=3, augment="crop", shape=(1, 8, 8), seed=seed).shifts
        for seed in (0, 0, 1)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_shifts_grow_with_the_image_and_fit_their_type() -> None:
    assert [crop_pad((1, side, side)) for side in (4, 8, 28, 32, 5000)] == [1, 1, 3, 4, 127]


def test_flips_are_never_assumed_of_unknown_images() -> None:
    assert resolve_augment("auto", None, (3, 32, 32)) == "crop"
    assert resolve_augment("auto", None, (3, 12, 32)) == "none"
    assert resolve_augment("auto", "flip_crop", (3, 12, 12)) == "flip_crop"
    assert resolve_augment("flip", "none", (3, 12, 12)) == "flip"


@pytest.mark.parametrize("shape", [(2, 8, 8), (1, 10, 6)])
def test_cutout_leaves_a_square_of_zeros_where_the_view_says(shape: tuple[int, int, int]) -> None:
    num_images = 40
    views = make_views(num_images, num_views=3, augment="crop_cutout", shape=shape, seed=0)
    images = torch.rand(num_images, *shape) + 1
    assert torch.equal(apply_views(images, torch.from_numpy(views.shifts[0]), views.pad), images)
    found = apply_views(images, torch.from_numpy(views.shifts[1]), views.pad)
    uncut = apply_views(images, torch.from_numpy(views.shifts[1, :, :3]), views.pad)
    _, height, width = shape
    side = min(height, width) // 2
    for number, (row, column) in enumerate(views.shifts[1, :, 3:].astype(int)):
        top, left = row * height // 128 - side // 2, column * width // 128 - side // 2
        expected = uncut[number].clone()
        expected[:, max(0, top) : top + side, max(0, left) : left + side] = 0
        assert torch.equal(found[number], expected)
