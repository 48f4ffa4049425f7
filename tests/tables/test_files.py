"""Reading a table's file, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raysearch.errors import TableError
from raysearch.tables import SCHEMA, Table


def test_a_table_that_is_written_again_is_the_same(table, write):
    again = Table.read(write(table.records))
    assert again.records == table.records
    assert again.about == table.about


def test_a_table_keeps_the_numbers_of_its_rows(table, rows):
    assert len(table) == len(rows)
    for kept, row in zip(table.records, rows, strict=True):
        assert kept["architecture"] == row["architecture"]
        assert kept["num_params"] == row["num_params"]
        np.testing.assert_allclose(kept["loss"], row["loss"], rtol=1e-6)
        assert kept["test_accuracy"] == row.get("test_accuracy")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(TableError, match=r"none\.parquet: no such table"):
        Table.read(tmp_path / "none.parquet")


def test_a_torn_file_is_no_whole_parquet_file(path, tmp_path):
    data = path.read_bytes()
    for share in (0.0, 0.3, 0.99):
        torn = tmp_path / "torn.parquet"
        torn.write_bytes(data[: int(share * len(data))])
        with pytest.raises(TableError, match=r"torn\.parquet: not a whole parquet file"):
            Table.read(torn)


def test_a_folder_is_no_table(tmp_path):
    with pytest.raises(TableError, match="a folder, not a table"):
        Table.read(tmp_path)


def test_any_other_parquet_file_is_no_table(tmp_path):
    path = tmp_path / "images.parquet"
    pq.write_table(pa.table({"label": [1, 2]}), path)
    with pytest.raises(TableError, match="no table of students"):
        Table.read(path)


def test_a_table_of_another_version_is_refused(rows, write):
    with pytest.raises(TableError, match="a table of version 2, and version 1 is read here"):
        Table.read(write(rows, version=2))


@pytest.mark.parametrize("key", ["problem", "config", "architecture", "teacher"])
def test_missing_metadata_are_named(path, tmp_path, key):
    whole = pq.read_table(path)
    about = json.loads(whole.schema.metadata[b"raysearch"])
    del about[key]
    broken = tmp_path / "broken.parquet"
    pq.write_table(whole.replace_schema_metadata({"raysearch": json.dumps(about)}), broken)
    with pytest.raises(TableError, match=f"has no '{key}'"):
        Table.read(broken)


def test_metadata_that_are_no_json_are_refused(path, tmp_path):
    broken = tmp_path / "broken.parquet"
    pq.write_table(pq.read_table(path).replace_schema_metadata({"raysearch": "{"}), broken)
    with pytest.raises(TableError, match="no JSON object"):
        Table.read(broken)


@pytest.mark.parametrize("name", SCHEMA.names)
def test_a_missing_column_is_named(path, tmp_path, name):
    broken = tmp_path / "broken.parquet"
    pq.write_table(pq.read_table(path).drop_columns([name]), broken)
    with pytest.raises(TableError, match=f"no column '{name}'"):
        Table.read(broken)


def test_a_table_without_rows_is_refused(write):
    with pytest.raises(TableError, match="no rows"):
        Table.read(write([]))


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"architecture": None}, "row 1: architecture is missing"),
        ({"loss": [1.0]}, "row 1: loss has 1 epochs"),
        ({"accuracy": [0.1, 0.2, 1.5]}, "row 1: accuracy is .*, not in"),
        ({"loss": [1.0, 2.0, float("nan")]}, "row 1: loss is .*, not numbers"),
        ({"num_params": 7}, "row 1: num_params is 7, but its architecture has"),
        ({"macs": 7}, "row 1: macs is 7, but its architecture has"),
        ({"architecture": "e1..B."}, "widths"),
        ({"architecture": "nonsense"}, "nonsense"),
        ({"test_accuracy": 0.5, "full_accuracy": None}, "row 1: .* but full_accuracy is not"),
    ],
)
def test_a_wrong_row_is_named(rows, write, changes, complaint):
    broken = [rows[0], {**rows[1], **changes}, *rows[2:]]
    with pytest.raises(TableError, match=complaint):
        Table.read(write(broken))


def test_a_row_that_stands_there_twice_is_refused(rows, write):
    with pytest.raises(TableError, match=r"row 3: .*stands there twice"):
        Table.read(write([*rows[:3], rows[1]]))


@pytest.mark.parametrize("key", ["problem", "config", "architecture", "teacher"])
def test_metadata_of_another_type_are_named(rows, write, key):
    with pytest.raises(TableError, match=f"'{key}' in the metadata 'raysearch' is a list"):
        Table.read(write(rows, **{key: [1]}))


def test_a_configuration_that_is_not_understood_is_named(rows, write, about):
    with pytest.raises(TableError, match=r"table\.parquet: .*magic"):
        Table.read(write(rows, config={**about["config"], "magic": 1}))


def test_a_teacher_without_its_accuracy_is_refused(rows, write):
    with pytest.raises(TableError, match="the metadata's teacher is"):
        Table.read(write(rows, teacher={"loss": 0.1}))
