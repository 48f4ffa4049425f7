"""A table as the folder of a finished search."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.sources import write_run
from benchmarks.tabular import TABLES
from raysearch.tables.files import read_file
from searchers.source import read_source


def test_a_tables_students_without_a_budget_are_a_search(tmp_path: Path):
    table = TABLES / "digits_resnet14.parquet"
    write_run(table, tmp_path)
    source = read_source(tmp_path)
    about, rows = read_file(table)
    left = [row for row in rows if row["budget"] is None or row["budget"] != row["budget"]]
    assert [one.architecture for one in source.full] == [row["architecture"] for row in left]
    for one, row in zip(source.full, left, strict=True):
        share = source.space.apply(one.architecture).num_params / source.space.teacher.num_params
        ratio = row["accuracy"][-1] / about["teacher"]["accuracy"]
        assert one.value == pytest.approx((1 - share) * (1 + share) * ratio)
