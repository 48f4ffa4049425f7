"""Parquet data sets in the layouts that are found in the wild."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raysearch.data import load_data
from raysearch.errors import DataError

from .conftest import pictures, write_parquet


def _labels(num_images: int, num_classes: int = 3) -> list[int]:
    return [row % num_classes for row in range(num_images)]


def test_images_labels_and_class_names_are_read(tmp_path: Path) -> None:
    train, test = pictures(40, channels=3), pictures(8, channels=3, seed=1)
    names = {"classes": "cat,dog,eel"}
    write_parquet(tmp_path / "train.parquet", train, {"label": _labels(40)}, metadata=names)
    write_parquet(tmp_path / "test.parquet", test, {"label": _labels(8)}, metadata=names)
    data = load_data("parquet", path=tmp_path)
    assert data.classes == ("cat", "dog", "eel")
    assert np.array_equal(data.train.images, train[data.train.indices])
    assert np.array_equal(data.validation.images, train[data.validation.indices])
    assert np.array_equal(data.test.images, test)
    assert np.array_equal(data.train.labels, data.train.indices % 3)


def test_shards_are_joined_in_order(tmp_path: Path) -> None:
    images = pictures(30)
    for shard, rows in enumerate((slice(0, 12), slice(12, 30))):
        file = tmp_path / "data" / f"train-0000{shard}-of-00002.parquet"
        write_parquet(file, images[rows], {"label": _labels(30)[rows]}, plain=True)
    data = load_data("parquet", path=tmp_path)
    assert np.array_equal(data.train.images, images[data.train.indices])


def test_a_missing_shard_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "train-00000-of-00002.parquet"
    write_parquet(file, pictures(6), {"label": _labels(6)})
    with pytest.raises(DataError, match="holds 1 of 2 shards"):
        load_data("parquet", path=tmp_path)


def test_folders_named_after_parts_are_found(tmp_path: Path) -> None:
    for part, num_images in (("train", 30), ("validation", 6), ("test", 9)):
        file = tmp_path / part / "0000.parquet"
        write_parquet(file, pictures(num_images), {"label": _labels(num_images)})
    data = load_data("parquet", path=tmp_path)
    assert [len(part) for part in (data.train, data.validation, data.test)] == [30, 6, 9]


def test_the_only_configuration_folder_is_found_and_two_are_refused(tmp_path: Path) -> None:
    write_parquet(tmp_path / "plain" / "train.parquet", pictures(30), {"label": _labels(30)})
    assert load_data("parquet", path=tmp_path).shape == (1, 6, 6)
    write_parquet(tmp_path / "fancy" / "train.parquet", pictures(30), {"label": _labels(30)})
    with pytest.raises(DataError, match=r"several parquet data sets \(fancy, plain\)"):
        load_data("parquet", path=tmp_path)


def test_a_single_file_is_a_training_part(tmp_path: Path) -> None:
    write_parquet(tmp_path / "all.parquet", pictures(30), {"label": _labels(30)})
    assert load_data("parquet", path=tmp_path / "all.parquet").num_classes == 3


def test_the_features_of_hugging_face_name_the_classes(tmp_path: Path) -> None:
    features = {"fine_label": {"names": ["a", "b", "c"], "_type": "ClassLabel"}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    columns = {"coarse_label": [0] * 30, "fine_label": _labels(30)}
    write_parquet(tmp_path / "train.parquet", pictures(30), columns, metadata=metadata)
    data = load_data("parquet", path=tmp_path)
    assert data.classes == ("a", "b", "c")
    assert np.array_equal(data.test.labels, data.test.indices % 3)


def test_the_only_whole_number_column_is_the_label(tmp_path: Path) -> None:
    write_parquet(tmp_path / "train.parquet", pictures(30), {"species": _labels(30)})
    assert load_data("parquet", path=tmp_path).num_classes == 3


def test_two_possible_labels_are_refused(tmp_path: Path) -> None:
    columns = {"genus": _labels(30), "species": _labels(30)}
    write_parquet(tmp_path / "train.parquet", pictures(30), columns)
    with pytest.raises(DataError, match="image, genus, species, but no column 'label'"):
        load_data("parquet", path=tmp_path)


def test_a_file_without_images_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"label": [0, 1]}), tmp_path / "train.parquet")
    with pytest.raises(DataError, match="no column 'image'"):
        load_data("parquet", path=tmp_path)


def test_a_label_beyond_the_class_names_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "train.parquet"
    write_parquet(file, pictures(6), {"label": _labels(6)}, metadata={"classes": "a,b"})
    with pytest.raises(DataError, match=r"label 2 in row 2 of the train part is outside 0\.\.1"):
        load_data("parquet", path=tmp_path)


def test_absent_labels_and_images_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "train.parquet"
    write_parquet(file, pictures(4), {"label": [0, 1, None, 1]})  # type: ignore[list-item]
    with pytest.raises(DataError, match="1 rows have no label"):
        load_data("parquet", path=tmp_path)
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    image = pa.array([{"bytes": None, "path": "a.png"}] * 2, kind)
    pq.write_table(pa.table({"image": image, "label": [0, 1]}), file)
    with pytest.raises(DataError, match="row 0 of the train part has no image bytes"):
        load_data("parquet", path=tmp_path)


def test_a_file_that_is_no_parquet_is_refused(tmp_path: Path) -> None:
    (tmp_path / "train.parquet").write_text("not parquet")
    with pytest.raises(DataError, match="cannot be read as parquet"):
        load_data("parquet", path=tmp_path)


def test_a_folder_without_training_part_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no parquet file in"):
        load_data("parquet", path=tmp_path)
    write_parquet(tmp_path / "test.parquet", pictures(4), {"label": _labels(4)})
    with pytest.raises(DataError, match=r"no train\*\.parquet"):
        load_data("parquet", path=tmp_path)


def test_mode_and_size_are_applied(tmp_path: Path) -> None:
    write_parquet(tmp_path / "train.parquet", pictures(30, channels=3), {"label": _labels(30)})
    assert load_data("parquet", path=tmp_path, mode="L", resize=4).shape == (1, 4, 4)
