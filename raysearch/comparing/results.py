"""A comparison's folder, read back: the finished cells, and the files that are written from them for people and programs."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from raysearch.comparing.analysis import analyse
from raysearch.comparing.curves import Floats
from raysearch.comparing.figures import drawings, write_png
from raysearch.comparing.manifest import BASE, Cell, Manifest, resolve_metric
from raysearch.comparing.page import Contents, render
from raysearch.comparing.records import (
    METRICS,
    cells_frame,
    evaluations_frame,
    failed_row,
    numbers,
    only,
    read_cell,
    rows_of,
)
from raysearch.comparing.terminal import SHOWN
from raysearch.files import RunFiles, read_json, write_json
from raysearch.formatting import count, percent
from raysearch.report.html import write_page

if TYPE_CHECKING:
    import pandas as pd

RUNS = "runs"
REPLAY = "replay.json"


@dataclass(frozen=True)
class Files:
    """The names of a comparison's files, relative to its folder."""

    folder: Path

    @property
    def cells(self) -> Path:
        return self.folder / "compare.csv"

    @property
    def evaluations(self) -> Path:
        return self.folder / "evaluations.csv"

    @property
    def page(self) -> Path:
        return self.folder / "compare.html"

    @property
    def summary(self) -> Path:
        return self.folder / "compare.json"

    @property
    def picture(self) -> Path:
        return self.folder / "compare.png"

    def run(self, cell: Cell) -> Path:
        """The folder of a cell's run."""
        return self.folder / RUNS / cell.name

    def is_finished(self, cell: Cell) -> bool:
        """Whether a cell need not be run again."""
        folder = self.run(cell)
        return (folder / REPLAY).is_file() or RunFiles(folder).summary.is_file()


def problem_name(manifest: Manifest) -> str:
    """What the rows call the problem: the table's name, else data and teacher."""
    if manifest.table is not None:
        return str(manifest.table["problem"])
    config = manifest.config
    return f"{config.data.name}-{config.teacher.model}"


def read_cells(
    manifest: Manifest, files: Files, failures: Mapping[Cell, str]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The cells and their evaluations, as far as they are finished.

    Args:
        failures: cells that could not be brought to their end, with the reason.
    """
    problem, rows, evaluations = problem_name(manifest), [], []
    for cell in manifest.cells:
        if cell in failures:
            rows.append(failed_row(problem, cell.method, cell.seed, failures[cell]))
        elif (replay := files.run(cell) / REPLAY).is_file():
            stored = read_json(replay)
            rows.append(stored["cell"])
            evaluations += [
                dict(zip(stored["columns"], one, strict=True)) for one in stored["evaluations"]
            ]
        elif files.is_finished(cell):
            count_ = manifest.config.finish.students
            row, more = read_cell(problem, cell.method, cell.seed, files.run(cell), count_)
            rows.append(row)
            evaluations += more
    return cells_frame(rows), evaluations_frame(evaluations)


def write_replay(folder: Path, row: Mapping[str, Any], evaluations: Sequence[Mapping]) -> None:
    """Keeps a replayed cell, compactly."""
    columns = list(evaluations[0]) if evaluations else []
    lines = [[_native(one[key]) for key in columns] for one in evaluations]
    cell = {key: _native(value) for key, value in row.items()}
    folder.mkdir(parents=True, exist_ok=True)
    draft = folder / f".{REPLAY}.tmp"
    content = {"cell": cell, "columns": columns, "evaluations": lines}
    draft.write_text(json.dumps(content, separators=(",", ":"), allow_nan=False), "utf-8")
    draft.replace(folder / REPLAY)


def read_results(
    folder: Path, metric: str = "auto", failures: Mapping[Cell, str] | None = None
) -> Contents:
    """What the finished cells of a folder say; arguments as for `write_results`."""
    manifest, files = Manifest.read(folder), Files(folder)
    cells, evaluations = read_cells(manifest, files, failures or {})
    return _contents(manifest, files, cells, evaluations, metric)


def write_results(
    folder: Path, *, metric: str = "auto", failures: Mapping[Cell, str] | None = None
) -> Contents:
    """Writes compare.csv, evaluations.csv, compare.json, compare.html and compare.png from the finished cells.

    Args:
        metric: what the verdict is about; see `resolve_metric`.
        failures: see `read_cells`.

    Raises:
        RunFolderError: the folder is no comparison's, or damaged.
    """
    manifest, files = Manifest.read(folder), Files(folder)
    contents = read_results(folder, metric, failures)
    cells, evaluations = contents.cells, contents.evaluations
    cells.to_csv(files.cells, index=False, lineterminator="\n")
    evaluations.to_csv(files.evaluations, index=False, lineterminator="\n")
    write_json(files.summary, _summary(manifest, contents))
    write_page(files.page, render(contents))
    if contents.drawings:
        write_png(contents.drawings, files.picture)
    return contents


def _contents(
    manifest: Manifest, files: Files, cells: pd.DataFrame, evaluations: pd.DataFrame, metric: str
) -> Contents:
    methods = [method for method in manifest.methods if method in set(cells["method"])]
    main = resolve_metric(metric, manifest.config)
    metrics = dict.fromkeys((main, *SHOWN, *METRICS))
    unfinished = [
        cell.name
        for cell in manifest.cells
        if files.run(cell).exists() and not files.is_finished(cell)
    ]
    return Contents(
        name=files.folder.name,
        cells=cells,
        evaluations=evaluations,
        methods=methods,
        analyses={name: analyse(cells, name, methods) for name in metrics},
        drawings=drawings(cells, evaluations, methods, main) if methods else [],
        equal=manifest.equal,
        budget=manifest.budget,
        replay=manifest.table,
        notes=_notes(manifest, cells, unfinished),
        facts=_facts(manifest, files, cells),
        command=command(manifest, files.folder),
        config=manifest.config.to_yaml(),
    )


def _notes(manifest: Manifest, cells: pd.DataFrame, unfinished: Sequence[str]) -> list[str]:
    search, notes = manifest.config.search, []
    if unfinished:
        notes.append(f"Not finished yet, and left out: {', '.join(unfinished)}.")
    for row in rows_of(cells):
        if row["status"] != "done":
            notes.append(f"{row['method']} with seed {row['seed']} failed: {row['reason']}.")
    for method in dict.fromkeys(cells["method"]) if manifest.equal == "trials" else ():
        trials = numbers(only(only(cells, "method", method), "status", "done"), "trials")
        if not len(trials) or trials.min() >= search.trials:
            continue
        fewest = int(trials.min())
        students = "one student" if fewest == 1 else f"{fewest} students"
        notes.append(
            f"{method} ended after {students} of {search.trials}: it had nothing more to propose."
        )
    notes.append(
        "All searches share the teacher, the split of the data and the training recipes; a seed stands for the stream of the method "
        "and of the trainings."
    )
    if search.first:
        notes.append(
            f"Every search but random begins with the students of search.first, as in a run: {', '.join(search.first)}."
        )
    notes.append(
        f"Each search sends its {manifest.config.finish.students} most valued students into the full training, and the best of them on "
        "the validation part is its final student."
    )
    if manifest.table is not None:
        notes.append(
            "Replayed searches stop no student early and evaluate one at a time; seconds are the CPU seconds that the table recorded."
        )
    if search.options:
        notes.append(f"search.options apply to {search.method} alone.")
    return notes


def _facts(manifest: Manifest, files: Files, cells: pd.DataFrame) -> dict[str, str]:
    facts = {"problem": problem_name(manifest)}
    if manifest.table is not None:
        facts["table"] = f"{Path(manifest.table['path']).name} ({manifest.table['sha256'][:12]})"
    finished = next((c for c in manifest.cells if RunFiles(files.run(c)).summary.is_file()), None)
    if finished is not None:
        summary = read_json(RunFiles(files.run(finished)).summary)
        teacher = summary["teacher"]
        facts["teacher"] = (
            f"{manifest.config.teacher.model}: {count(teacher['num_params'])} parameters, {percent(teacher['accuracy'])} on validation, "
            f"{percent(teacher['test_accuracy'])} on test"
        )
        facts["objective"] = summary["objective"]
        facts["versions"] = ", ".join(f"{k} {v}" for k, v in summary["versions"].items())
    facts["seeds"] = ", ".join(str(seed) for seed in manifest.seeds)
    facts["budget of a student"] = (
        ", ".join(f"{key} {value}" for key, value in manifest.config.limits.items()) or "none"
    )
    return facts


def command(manifest: Manifest, folder: Path) -> str:
    """What makes the comparison again, under a new name."""
    table = [] if manifest.table is None else ["--table", str(manifest.table["path"])]
    return shlex.join(
        [
            *("python", "-m", "raysearch", "compare", str(folder / BASE)),
            *("--methods", ",".join(manifest.methods)),
            *("--seeds", ",".join(map(str, manifest.seeds)) + ("," * (len(manifest.seeds) == 1))),
            *("--equal", manifest.equal),
            *table,
            *("--name", f"{folder.name}-again", "--storage", str(folder.parent)),
        ]
    )


def _summary(manifest: Manifest, contents: Contents) -> dict[str, Any]:
    done = only(contents.cells, "status", "done")
    return {
        "verdict": contents.main.verdict,
        "metric": contents.main.metric,
        "methods": list(contents.methods),
        "seeds": list(manifest.seeds),
        "equal": manifest.equal,
        "budget": contents.budget,
        "problem": problem_name(manifest),
        "ranks": dict(contents.main.ranks),
        "replayed": None if manifest.table is None else dict(manifest.table),
        "analyses": {name: one.to_dict() for name, one in contents.analyses.items()},
        "cost": {
            method: {
                key: _mean(numbers(only(done, "method", method), key))
                for key in ("trials", "epochs", "seconds", "cpu_seconds", "propose_s", "wall_s")
            }
            for method in contents.methods
        },
        "notes": list(contents.notes),
        "command": contents.command,
    }


def _mean(values: Floats) -> float | None:
    return round(float(values.mean()), 6) if len(values) else None


def _native(value: Any) -> Any:
    """JSON-native; NaN and infinities become null."""
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not np.isfinite(value) else value
