"""The file of a table: parquet rows, one for each training, and JSON metadata under the key `raysearch` (docs/tables.md)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from raysearch.errors import TableError

VERSION = 1
DIVERGED_LOSS = 1e30
"""From here on a loss stands for one that was not finite."""

_CURVE = pa.list_(pa.float32())
SCHEMA = pa.schema(
    [
        ("architecture", pa.string()),
        ("architecture_id", pa.string()),
        ("source", pa.string()),
        ("budget", pa.float64()),
        ("seed", pa.int64()),
        ("num_params", pa.int64()),
        ("macs", pa.int64()),
        ("accuracy", _CURVE),
        ("loss", _CURVE),
        ("full_accuracy", _CURVE),
        ("full_loss", _CURVE),
        ("test_accuracy", pa.float64()),
        ("test_loss", pa.float64()),
        ("cpu_seconds", pa.float64()),
        ("full_cpu_seconds", pa.float64()),
    ]
)
SHORT = ("accuracy", "loss", "cpu_seconds")
FULL = ("full_accuracy", "full_loss", "test_accuracy", "test_loss", "full_cpu_seconds")
"""The columns that are null where a student was not trained fully."""

_ABOUT = ("problem", "config", "architecture", "teacher")


def read_file(path: Path) -> tuple[dict[str, Any], pd.DataFrame]:
    """The metadata and the rows of a table's file, checked as far as the file alone tells.

    Raises:
        TableError: one sentence that names the file and what is wrong with it.
    """
    try:
        table = pq.read_table(path)
    except FileNotFoundError:
        raise TableError(f"{path}: no such table; benchmarks/make_tables.py makes them") from None
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())[:120]
        raise TableError(
            f"{path}: not a whole parquet file ({reason}); copy or make the table again"
        ) from None
    about = _about(path, table)
    for field in SCHEMA:
        if field.name not in table.column_names:
            raise TableError(f"{path}: no column {field.name!r}; {_REMEDY}")
    try:
        table = table.select(SCHEMA.names).cast(SCHEMA)
    except (pa.ArrowException, ValueError) as error:
        raise TableError(f"{path}: columns of another type ({error}); {_REMEDY}") from None
    if not table.num_rows:
        raise TableError(f"{path}: no rows; {_REMEDY}")
    frame = table.to_pandas()
    _check_rows(path, frame)
    return about, frame


def write_table(path: Path, rows: pd.DataFrame, about: Mapping[str, Any]) -> None:
    """Writes rows (columns of `SCHEMA`) and metadata in the layout that `read_file` reads."""
    columns = {
        name: [None if _is_null(value) else value for value in rows[name]] for name in SCHEMA.names
    }
    text = json.dumps({"version": VERSION, **about})
    table = pa.table(columns, SCHEMA.with_metadata({"raysearch": text}))
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, compression="zstd", compression_level=19)


_REMEDY = "make the table again with benchmarks/make_tables.py"


def _is_null(value: Any) -> bool:
    return value is None or (isinstance(value, float) and np.isnan(value))


def _about(path: Path, table: pa.Table) -> dict[str, Any]:
    raw = (table.schema.metadata or {}).get(b"raysearch")
    if raw is None:
        raise TableError(
            f"{path}: a parquet file, but no table of students (no metadata 'raysearch'); {_REMEDY}"
        )
    try:
        about = json.loads(raw)
    except ValueError:
        about = None
    if not isinstance(about, dict):
        raise TableError(f"{path}: the metadata 'raysearch' is no JSON object; {_REMEDY}")
    version = about.get("version", VERSION)
    if version != VERSION:
        raise TableError(
            f"{path}: a table of version {version!r}, and version {VERSION} is read here; "
            "use the raysearch that wrote it, or make the table again"
        )
    for key in _ABOUT:
        if key not in about:
            raise TableError(f"{path}: the metadata 'raysearch' has no {key!r}; {_REMEDY}")
    return about


def _check_rows(path: Path, frame: pd.DataFrame) -> None:
    """Nothing is missing, curves of one length, accuracies in [0, 1], each student and seed once."""
    full = frame["full_accuracy"].notna()
    for name in SCHEMA.names:
        if name in FULL:
            wrong = frame[name].notna() != full
            _refuse(
                path, wrong, name, "is there without the rest of a full training, or is missing"
            )
        elif name != "budget":
            _refuse(path, frame[name].isna(), name, "is missing")
    for curve, other in (("accuracy", "loss"), ("full_accuracy", "full_loss")):
        rows = frame[[curve, other]].dropna()
        lengths = rows.map(len)
        for name in (curve, other):
            wrong = (lengths[name] != lengths[curve].max()) | (lengths[name] == 0)
            _refuse(path, wrong, name, "has another length than in other rows")
        outside = rows[curve].map(lambda values: bool(np.any((values < 0) | (values > 1))))
        _refuse(path, outside, curve, "is not in [0, 1]")
        wrong = rows[other].map(lambda values: not np.all(values >= 0))
        _refuse(path, wrong, other, "is not a number of at least 0")
    repeated = frame.duplicated(["architecture_id", "seed"])
    _refuse(path, repeated, "seed", "stands there twice for one architecture_id")


def _refuse(path: Path, wrong: pd.Series, name: str, what: str) -> None:
    if wrong.any():
        raise TableError(f"{path}: row {wrong.idxmax()}: {name} {what}; {_REMEDY}")
