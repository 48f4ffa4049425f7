"""Decoding and converting pictures, against Pillow itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from raysearch.data.images import Conversion, conversion, convert_array, decode
from raysearch.errors import ConfigError, DataError

from .conftest import encode, pictures


def test_pixels_come_back_exactly() -> None:
    images = pictures(300, channels=3)
    decoded = decode(
        [encode(np.moveaxis(image, 0, -1)) for image in images], 300, Conversion(), "x"
    )
    assert np.array_equal(decoded, images)


def test_grey_is_pillows_grey_for_files_and_for_arrays() -> None:
    images = pictures(20, channels=3)
    expected = np.stack(
        [np.asarray(Image.fromarray(np.moveaxis(image, 0, -1)).convert("L")) for image in images]
    )[:, None]
    files = [encode(np.moveaxis(image, 0, -1)) for image in images]
    assert np.array_equal(decode(files, 20, Conversion("L"), "x"), expected)
    assert np.array_equal(convert_array(images, Conversion("L")), expected)


def test_grey_floats_are_the_same_mixture() -> None:
    images = pictures(5, channels=3)
    exact = convert_array(images, Conversion("L")).astype(np.float32)
    assert np.abs(convert_array(images.astype(np.float32), Conversion("L")) - exact).max() < 1


def test_grey_becomes_three_equal_channels() -> None:
    images = pictures(4)
    for colour in (
        convert_array(images, Conversion("RGB")),
        decode([encode(image[0]) for image in images], 4, Conversion("RGB"), "x"),
    ):
        assert colour.shape == (4, 3, 6, 6)
        assert np.array_equal(colour, np.repeat(images, 3, axis=1))


def test_resizing_an_array_is_near_pillows() -> None:
    images = pictures(3, side=16)
    expected = [
        np.asarray(Image.fromarray(image[0]).resize((8, 4), Image.Resampling.BILINEAR))
        for image in images
    ]
    resized = convert_array(images, Conversion(size=(4, 8)))
    assert resized.shape == (3, 1, 4, 8)
    assert np.abs(resized[:, 0].astype(int) - np.stack(expected)).max() <= 1


def test_pictures_of_different_sizes_need_a_size() -> None:
    files = [encode(pictures(1, side=side)[0, 0]) for side in (6, 9)]
    with pytest.raises(DataError, match=r"image 1 of the test part.*\[1, 9, 9\].*data.resize"):
        decode(files, 2, Conversion(), "test")
    assert decode(files, 2, Conversion(size=(5, 4)), "test").shape == (2, 1, 5, 4)


def test_palettes_and_bits_are_decoded_to_plain_pixels(tmp_path: Path) -> None:
    picture = Image.fromarray(np.moveaxis(pictures(1, channels=3)[0], 0, -1))
    for mode, channels in (("P", 3), ("1", 1), ("CMYK", 3)):
        file = tmp_path / f"{mode}.tiff"
        picture.convert(mode).save(file)
        assert decode([file], 1, Conversion(), "x").shape == (1, channels, 6, 6)


def test_a_broken_picture_is_named(tmp_path: Path) -> None:
    file = tmp_path / "cat.png"
    file.write_bytes(encode(pictures(1)[0, 0])[:40])
    with pytest.raises(DataError, match=r"cat.png cannot be decoded"):
        decode([file], 1, Conversion(), "train")
    with pytest.raises(DataError, match="image in row 1 cannot be decoded"):
        decode([encode(pictures(1)[0, 0]), b"no picture"], 2, Conversion(), "train")


def test_sixteen_bit_pictures_are_refused_where_no_mode_is_asked_for(tmp_path: Path) -> None:
    file = tmp_path / "deep.png"
    Image.fromarray(np.full((4, 4), 40_000, np.uint16)).save(file)
    with pytest.raises(DataError, match=r"deep.png has 16 bits .*data.mode=L scales them"):
        decode([file], 1, Conversion(), "train")


@pytest.mark.parametrize("kind", ["png", "tiff"])
def test_sixteen_bits_are_scaled_to_eight(tmp_path: Path, kind: str) -> None:
    deep = np.array([[0, 128, 129, 257], [300, 32_768, 65_406, 65_535]], np.uint16)
    expected = np.round(deep / 65_535 * 255).astype(np.uint8)  # [2, 4]
    file = tmp_path / f"deep.{kind}"
    Image.fromarray(deep).save(file)
    assert np.array_equal(decode([file], 1, Conversion("L"), "x")[0, 0], expected)
    colour = decode([file], 1, Conversion("RGB"), "x")[0]
    assert np.array_equal(colour, np.stack([expected] * 3))


@pytest.mark.parametrize("pixels", [np.full((4, 4), 40_000, np.int32), np.full((4, 4), 0.5, "f4")])
@pytest.mark.parametrize("mode", [None, "L", "RGB"])
def test_pictures_without_an_eight_bit_form_are_refused(
    tmp_path: Path, pixels: np.ndarray, mode: str | None
) -> None:
    file = tmp_path / "deep.tiff"
    Image.fromarray(pixels).save(file)
    with pytest.raises(DataError, match="has no 8-bit form: load the data by a callable"):
        decode([file], 1, Conversion(mode), "train")


def test_a_size_beyond_the_machines_memory_is_refused_before_it_is_taken() -> None:
    how = Conversion(size=(10_000_000, 10_000_000))
    with pytest.raises(DataError, match=r"take 400000.0 GB, .*set data.resize to smaller sides"):
        convert_array(np.zeros((4, 1, 8, 8), np.uint8), how)
    with pytest.raises(DataError, match=r"take 400000.0 GB, .*set data.resize to smaller sides"):
        decode([encode(image[0]) for image in pictures(4)], 4, how, "train")


@pytest.mark.parametrize("resize", [0, -3, "big", [3], [3, 0], [1.5, 2], True])
def test_a_size_that_is_none_is_refused(resize: object) -> None:
    with pytest.raises(ConfigError, match=r"data.resize is"):
        conversion(None, resize)


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"data.mode is 'HSV'"):
        conversion("HSV", None)


def test_a_side_stands_for_a_square() -> None:
    assert conversion("L", 32) == Conversion("L", (32, 32))
    assert conversion(None, [3, 4]) == Conversion(None, (3, 4))
