"""The file of a table: parquet rows, one for each training, and JSON metadata under the key `raysearch` (docs/tables.md)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
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
FULL = ("full_accuracy", "full_loss", "test_accuracy", "test_loss", "full_cpu_seconds")
"""The columns that are null where a student was not trained fully."""

_ABOUT = {"problem": str, "config": dict, "architecture": str, "teacher": dict}


def read_file(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The metadata and the rows of a table's file, checked as far as the file alone tells.

    Raises:
        TableError: one sentence that names the file and what is wrong with it.
    """
    if path.is_dir():
        raise TableError(f"{path}: a folder, not a table; give its parquet file")
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
    rows = table.to_pylist()
    _check_rows(path, rows)
    return about, rows


def write_table(path: Path, rows: Sequence[Mapping[str, Any]], about: Mapping[str, Any]) -> None:
    """Writes rows (keys of `SCHEMA`; an absent one is null) and metadata in the layout that `read_file` reads."""
    columns = {name: [row.get(name) for row in rows] for name in SCHEMA.names}
    text = json.dumps({"version": VERSION, **about})
    path.parent.mkdir(parents=True, exist_ok=True)
    # as Arrow's own schema the metadata would be there twice
    options: dict[str, Any] = {"compression_level": 19, "store_schema": False}
    with pq.ParquetWriter(path, SCHEMA, compression="zstd", **options) as writer:
        writer.write_table(pa.table(columns, SCHEMA))
        writer.add_key_value_metadata({"raysearch": text})


_REMEDY = "make the table again with benchmarks/make_tables.py"


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
    for key, kind in _ABOUT.items():
        if key not in about:
            raise TableError(f"{path}: the metadata 'raysearch' has no {key!r}; {_REMEDY}")
        if not isinstance(about[key], kind):
            raise TableError(
                f"{path}: {key!r} in the metadata 'raysearch' is a {type(about[key]).__name__}, expected a {kind.__name__}; {_REMEDY}"
            )
    return about


def _check_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    """Nothing is missing, curves of one length, accuracies in [0, 1], each student and seed once."""
    lengths: dict[str, int] = {}
    seen: set[tuple[str, int]] = set()
    for number, row in enumerate(rows):
        problem = _problem(row, lengths, seen)
        if problem is not None:
            raise TableError(f"{path}: row {number}: {problem}; {_REMEDY}")


def _problem(
    row: dict[str, Any], lengths: dict[str, int], seen: set[tuple[str, int]]
) -> str | None:
    """What is wrong with a row; `lengths` of curves by "short" and "full", and `seen`, are those of the rows before it."""
    full = row["full_accuracy"] is not None
    for name in SCHEMA.names:
        if name != "budget" and (full or name not in FULL) and row[name] is None:
            return f"{name} is missing"
        if name in FULL and not full and row[name] is not None:
            return f"{name} is there, but full_accuracy is not"
    for stage, prefix in (("short", ""), *([("full", "full_")] if full else [])):
        for kind in ("accuracy", "loss"):
            name = prefix + kind
            values = np.asarray(row[name], np.float64)
            if len(values) != lengths.setdefault(stage, len(values)) or not len(values):
                return f"{name} has {len(values)} epochs, other curves of its kind {lengths[stage]}"
            if not np.all((values >= 0) & (values <= (1 if kind == "accuracy" else np.inf))):
                return f"{name} is {values.tolist()}, not {_RANGES[kind]}"
    key = row["architecture_id"], row["seed"]
    if key in seen:
        return f"architecture_id {key[0]!r} with seed {key[1]} stands there twice"
    seen.add(key)
    return None


_RANGES = {"accuracy": "in [0, 1]", "loss": "numbers of at least 0"}
