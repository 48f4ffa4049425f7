"""Folders of pictures, one a class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from raysearch.data import load_data
from raysearch.errors import DataError

from .conftest import encode, pictures


def _write(folder: Path, num_images: int, seed: int = 0) -> np.ndarray:
    images = pictures(num_images, seed=seed)
    folder.mkdir(parents=True)
    for row, image in enumerate(images):
        (folder / f"{row:03d}.png").write_bytes(encode(image[0]))
    return images


def test_parts_and_sorted_classes_are_read(tmp_path: Path) -> None:
    dog = _write(tmp_path / "train" / "dog", 10, seed=1)
    cat = _write(tmp_path / "train" / "cat", 10, seed=2)
    _write(tmp_path / "val" / "dog", 3)
    _write(tmp_path / "test" / "cat", 2)
    (tmp_path / "train" / "cat" / "notes.txt").write_text("no picture")
    (tmp_path / "train" / ".hidden").mkdir()
    data = load_data("image_folder", path=tmp_path)
    assert data.classes == ("cat", "dog")
    assert np.array_equal(data.train.images, np.concatenate([cat, dog]))
    assert data.validation.labels.tolist() == [1, 1, 1]
    assert data.test.labels.tolist() == [0, 0]


def test_class_folders_at_the_top_are_one_part(tmp_path: Path) -> None:
    _write(tmp_path / "a", 20)
    _write(tmp_path / "b", 20)
    data = load_data("image_folder", path=tmp_path)
    assert data.classes == ("a", "b")
    assert len(data.test) == 6
    assert "split off" in data.notes[0]


def test_a_folder_can_be_named_directly(tmp_path: Path) -> None:
    _write(tmp_path / "a", 20)
    _write(tmp_path / "b", 20)
    assert load_data(str(tmp_path)).name == "image_folder"


def test_an_unknown_class_in_the_test_part_is_refused(tmp_path: Path) -> None:
    for folder in ("train/a", "train/b", "test/c"):
        _write(tmp_path / folder, 5)
    with pytest.raises(DataError, match=r"c is not a class of the training part \(a, b\)"):
        load_data("image_folder", path=tmp_path)


def test_an_empty_class_is_refused(tmp_path: Path) -> None:
    _write(tmp_path / "train" / "a", 5)
    (tmp_path / "train" / "b").mkdir()
    with pytest.raises(DataError, match="b holds no picture"):
        load_data("image_folder", path=tmp_path)


def test_a_folder_without_classes_or_training_part_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no class folders"):
        load_data("image_folder", path=tmp_path)
    _write(tmp_path / "test" / "a", 2)
    with pytest.raises(DataError, match="has test but no train folder"):
        load_data("image_folder", path=tmp_path)


def test_part_names_are_understood_in_any_case(tmp_path: Path) -> None:
    for folder in ("Train/a", "Train/b", "TEST/a", "TEST/b"):
        _write(tmp_path / folder, 10)
    data = load_data("image_folder", path=tmp_path)
    assert data.classes == ("a", "b")
    assert len(data.test) == 20
    assert data.test.source == "test"


@pytest.mark.parametrize("top", [("Learn", "Probe"), ("pictures",)])
def test_folders_of_folders_are_no_classes(tmp_path: Path, top: tuple[str, ...]) -> None:
    for name in top:
        for label in ("a", "b"):
            _write(tmp_path / name / label, 10)
    with pytest.raises(
        DataError, match=rf"{', '.join(top)} in .* hold no pictures but .*train/CLASS/\*\.png"
    ):
        load_data("image_folder", path=tmp_path)


def test_folders_inside_a_class_belong_to_it(tmp_path: Path) -> None:
    _write(tmp_path / "a", 10)
    _write(tmp_path / "a" / "more", 10)
    _write(tmp_path / "b" / "all", 10)
    data = load_data("image_folder", path=tmp_path)
    assert data.classes == ("a", "b")
    labels = np.concatenate([part.labels for part in (data.train, data.validation, data.test)])
    assert np.bincount(labels).tolist() == [20, 10]


def test_hidden_folders_inside_a_class_are_left_out(tmp_path: Path) -> None:
    root = tmp_path / ".cache"  # a hidden folder above the data hides nothing
    for folder in ("train/a", "train/b", "test/a", "train/a/.ipynb_checkpoints", "train/b/.x/y"):
        _write(root / folder, 10)
    data = load_data("image_folder", path=root)
    assert len(data.train) + len(data.validation) == 20


def test_two_names_of_one_part_are_refused(tmp_path: Path) -> None:
    for folder in ("train/a", "train/b", "val/a", "valid/b"):
        _write(tmp_path / folder, 5)
    with pytest.raises(DataError, match=r"has both val and valid, .* \(validation\)"):
        load_data("image_folder", path=tmp_path)
