"""The results of a run as a table: `results.csv` for programs, a small one for the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from raysearch.formatting import MISSING, count, decimal, percent, short_count
from raysearch.report.records import Scores, Trained
from raysearch.report.run_folder import RunFolder

if TYPE_CHECKING:
    import pandas
    from rich.table import Table

RESULTS_FILE = "results.csv"
COLUMNS = (
    "name",
    "role",
    "origin",
    "best",
    "accuracy",
    "test_accuracy",
    "loss",
    "reward",
    "num_params",
    "share_of_teacher",
    "compression",
    "macs",
    "epochs",
    "search_accuracy",
    "search_loss",
    "search_reward",
    "trial_id",
    "architecture_id",
    "path",
    "architecture",
)
Row = dict[str, Any]


def result_rows(run: RunFolder) -> list[Row]:
    """The teacher, the best student, the other finalists by their validation result, the baselines.

    Keys are `COLUMNS` and "label", the row's name for people.

    A baseline stands once: the uniform student is a finalist too, and one that only `summary.json` knows gets its row from there.
    """
    teacher = _scores("teacher", "teacher", run.teacher, run)
    rows = [teacher] if run.teacher != Scores() else []
    rows += [_trained(row, run) for row in (*run.students, *run.baselines)]
    known = {row.origin for row in run.trained} | {row.name for row in run.baselines}
    for name, scores in sorted(run.summary_part("baselines").items()):
        if name not in known and isinstance(scores, dict):
            rows.append(_scores(name, "baseline", Scores.from_json(scores), run))
    return rows


def results_frame(run: RunFolder) -> pandas.DataFrame:
    """`result_rows` as a frame; whole numbers stay whole where some are missing."""
    import pandas

    frame = pandas.DataFrame(result_rows(run), columns=list(COLUMNS))
    return frame.astype({"num_params": "Int64", "macs": "Int64", "epochs": "Int64"})


def write_results_table(run: RunFolder | Path | str) -> Path:
    """Writes `results.csv` into the run's folder and returns its path."""
    folder = _opened(run)
    path = folder.path / RESULTS_FILE
    results_frame(folder).to_csv(path, errors="replace", index=False, lineterminator="\n")
    return path


def terminal_table(run: RunFolder | Path | str) -> Table:
    """The small table that a run ends with."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    table.add_column("network", overflow="fold", min_width=7)
    for title in ("params", "of teacher", "MACs", "validation", "test", "reward"):
        table.add_column(title, justify="right")
    for row in result_rows(_opened(run)):
        cells = (
            row["label"],  # Text: a name is shown as it is, never read as markup
            count(row["num_params"]),
            percent(row["share_of_teacher"]),
            short_count(row["macs"]),
            percent(row["accuracy"]),
            percent(row["test_accuracy"]),
            decimal(row["reward"]) if row["role"] != "teacher" else MISSING,
        )
        table.add_row(*map(Text, cells), style="bold" if row["best"] else "")
    return table


def _opened(run: RunFolder | Path | str) -> RunFolder:
    return run if isinstance(run, RunFolder) else RunFolder.read(run)


def _scores(name: str, role: str, scores: Scores, run: RunFolder) -> Row:
    """A row with the columns that every network has."""
    row: Row = dict.fromkeys(COLUMNS)
    row["label"] = role if role == name else f"{role} {name}"
    share = None
    if scores.num_params is not None and run.teacher.num_params:
        share = scores.num_params / run.teacher.num_params
    row.update(
        name=name,
        role=role,
        origin=name if role == "baseline" else role,
        best=False,
        accuracy=scores.accuracy,
        test_accuracy=scores.test_accuracy,
        num_params=scores.num_params,
        macs=scores.macs,
        share_of_teacher=share,
        compression=None if share is None else 1 - share,
        path="teacher" if role == "teacher" else "",
    )
    return row


def _trained(row: Trained, run: RunFolder) -> Row:
    compression = {} if row.compression is None else {"compression": row.compression}
    return {
        **_scores(row.name, row.role, row.scores, run),
        **compression,
        "label": f"{row.role} {run.label(row)}",
        "origin": row.origin,
        "best": run.is_best(row),
        "loss": row.loss,
        "reward": row.reward,
        "epochs": row.epochs,
        "search_accuracy": row.search["accuracy"],
        "search_loss": row.search["loss"],
        "search_reward": row.search["reward"],
        "trial_id": row.trial_id,
        "architecture_id": row.architecture_id,
        "path": row.path,
        "architecture": row.architecture,
    }
