"""A table of trained students as the folder of a finished search, to begin another search with."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from raysearch.tables.files import read_file


def write_run(table: Path, folder: Path) -> None:
    """Writes the files of a run that `searchers.source` reads: the table's students without a budget, in their order, with their f."""
    about, rows = read_file(table)
    teacher = about["teacher"]
    (folder / "teacher").mkdir(parents=True)
    (folder / "teacher" / "architecture.json").write_text(about["architecture"], encoding="utf-8")
    (folder / "config.yaml").write_text(yaml.safe_dump(about["config"]), encoding="utf-8")
    lines: list[str] = []
    for row in rows:
        if row["budget"] is not None and row["budget"] == row["budget"]:
            continue
        compression = 1 - row["num_params"] / teacher["num_params"]
        accuracy = float(row["accuracy"][-1])
        record = {
            "architecture": row["architecture"],
            "value": compression * (2 - compression) * accuracy / teacher["accuracy"],
            "fidelity": 1.0,
            "status": "full",
            "accuracy": accuracy,
            "teacher_accuracy": teacher["accuracy"],
            "compression": compression,
        }
        lines.append(json.dumps(record) + "\n")
    (folder / "observations.jsonl").write_text("".join(lines), encoding="utf-8")
