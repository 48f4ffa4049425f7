"""A comparison as two tables: one row a cell (a method with a seed), one row an evaluation.

A cell's result is the best student, by the validation part, of the `finish.students` students that its own search valued most. A run
trains the uniformly scaled teacher beside them; it counts here only where the search evaluated it, and then takes a place of its own
among them, so that every method sends equally many students into the full training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from raysearch.comparing.curves import Floats, best_so_far
from raysearch.effort import epochs_of, seconds_of
from raysearch.files import RunFiles, read_json

if TYPE_CHECKING:
    import pandas as pd

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Metric:
    """What methods are compared by.

    Attributes:
        label: for people.
        higher: whether more is better.
        share: whether it is a share in [0, 1] that reads as a percentage.
    """

    label: str
    higher: bool = True
    share: bool = False


METRICS: Mapping[str, Metric] = {
    "value": Metric("best value of the search"),
    "reward": Metric("reward after full training"),
    "accuracy": Metric("validation accuracy", share=True),
    "loss": Metric("validation loss", higher=False),
    "test_accuracy": Metric("test accuracy", share=True),
    "test_loss": Metric("test loss", higher=False),
}
"""`value` is of the short trainings; the others are of the cell's final student after its full training."""

CELL_COLUMNS = (
    "problem",
    "method",
    "seed",
    "status",
    *METRICS,
    "num_params",
    "macs",
    "compression",
    "trials",
    "full",
    "stopped",
    "failed",
    "epochs",
    "seconds",
    "cpu_seconds",
    "propose_s",
    "finish_cpu_seconds",
    "wall_s",
    "replayed",
    "exact",
    "architecture_id",
    "architecture",
    "reason",
    "path",
)
EVALUATION_COLUMNS = (
    "problem",
    "method",
    "seed",
    "evaluation",
    "value",
    "best",
    "status",
    "accuracy",
    "loss",
    "num_params",
    "macs",
    "compression",
    "fidelity",
    "epochs",
    "epochs_spent",
    "seconds",
    "cpu_seconds",
    "propose_s",
    "seconds_spent",
    "origin",
    "exact",
    "architecture_id",
    "architecture",
)


def cell_row(problem: str, method: str, seed: int, records: Sequence[Record]) -> dict[str, Any]:
    """What a search alone says of a cell: its best value and what it spent; the final student's columns are None.

    Args:
        records: the search's log in its order.
    """
    full = [record["value"] for record in records if record["status"] == "full"]
    statuses = [record["status"] for record in records]
    return {
        **dict.fromkeys(CELL_COLUMNS),
        "problem": problem,
        "method": method,
        "seed": seed,
        "status": "done",
        "value": max(full, default=None),
        "trials": len(records),
        **{status: statuses.count(status) for status in ("full", "stopped", "failed")},
        "epochs": sum(map(epochs_of, records)),
        "seconds": _total(records, "seconds"),
        "cpu_seconds": _total(records, "cpu_seconds"),
        "propose_s": _total(records, "propose_s"),
        "replayed": False,
        "exact": 1.0,
    }


def failed_row(problem: str, method: str, seed: int, reason: str) -> dict[str, Any]:
    """The row of a cell that could not be brought to its end."""
    return {**cell_row(problem, method, seed, []), "status": "failed", "reason": reason}


def read_cell(
    problem: str, method: str, seed: int, folder: Path, num_finalists: int
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The rows of a cell's finished run: its own, and those of its evaluations.

    Args:
        folder: the run's.
        num_finalists: `finish.students`.

    Raises:
        RunFolderError: the folder is damaged.
    """
    from raysearch.observations import ObservationLog

    files = RunFiles(folder)
    records = ObservationLog(files.observations).records
    finished = ObservationLog(files.finished).records
    row = cell_row(problem, method, seed, records)
    metrics = [read_json(file) for file in sorted(files.students.glob("*/metrics.json"))]
    chosen = finalists(metrics, num_finalists)
    if chosen:
        best = chosen[0]  # the folders are numbered by their rank
        row |= {key: best[key] for key in METRICS if key in best}
        row |= {key: best[key] for key in _STUDENT_KEYS}
    keys = {student["architecture_id"] for student in chosen}
    trained = [record for record in finished if record["architecture_id"] in keys]
    row["finish_cpu_seconds"] = _total(trained, "cpu_seconds")
    row["wall_s"] = read_json(files.summary)["seconds"]["total"]
    row["path"] = f"runs/{folder.name}"
    return row, evaluation_rows(problem, method, seed, records)


_STUDENT_KEYS = ("num_params", "macs", "compression", "architecture_id", "architecture")


def finalists(students: Sequence[Record], count: int) -> list[Record]:
    """The fully trained students that count for a method, in the order given.

    Args:
        students: the content of their `metrics.json`, the best first.
        count: how many; of more, those that the search valued least are left out.
    """
    own = [student for student in students if student["search"] is not None]
    valued = sorted(own, key=lambda student: -student["search"]["reward"])[:count]
    kept = {student["architecture_id"] for student in valued}
    return [student for student in own if student["architecture_id"] in kept]


def evaluation_rows(
    problem: str, method: str, seed: int, records: Sequence[Record]
) -> list[dict[str, Any]]:
    """One row for each line of a search's log, with what had been spent by then and the best full value so far."""
    values = [record["value"] if record["status"] == "full" else None for record in records]
    best = best_so_far([np.nan if value is None else value for value in values])
    rows, epochs, seconds = [], 0, 0.0
    for place, record in enumerate(records):
        epochs, seconds = epochs + epochs_of(record), seconds + seconds_of(record)
        row = {key: record.get(key) for key in EVALUATION_COLUMNS}
        row |= {"problem": problem, "method": method, "seed": seed, "evaluation": place + 1}
        row |= {"epochs": record.get("epochs_done"), "best": float(best[place])}
        rows.append(row | {"epochs_spent": epochs, "seconds_spent": seconds})
    return rows


def cells_frame(rows: Sequence[Record]) -> pd.DataFrame:
    """Cells as a frame with all columns; scores are floats, NaN where there is none."""
    import pandas as pd

    frame = pd.DataFrame(list(rows), columns=list(CELL_COLUMNS))
    counts = {"num_params": "Int64", "macs": "Int64"}
    return frame.astype({**dict.fromkeys(METRICS, float), **counts})


def evaluations_frame(rows: Sequence[Record]) -> pd.DataFrame:
    """Evaluations as a frame with all columns."""
    import pandas as pd

    frame = pd.DataFrame(list(rows), columns=list(EVALUATION_COLUMNS))
    return frame.astype({"value": float, "best": float})


def only(frame: pd.DataFrame, key: str, value: Any) -> pd.DataFrame:
    """The rows whose column `key` is `value`."""
    return cast("pd.DataFrame", frame.loc[frame[key] == value])


def numbers(frame: pd.DataFrame, key: str) -> Floats:
    """A column as numbers that are there: missing ones are left out."""
    values = np.asarray(cast("pd.Series", frame[key]).astype(float))
    return values[np.isfinite(values)]


def rows_of(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """A frame's rows as mappings."""
    return cast("list[dict[str, Any]]", frame.to_dict("records"))


def _total(records: Sequence[Record], key: str) -> float:
    return round(sum(float(record.get(key) or 0.0) for record in records), 6)
