"""Comparing methods: the same budget for all, several seeds, one answer.

    comparison = raysearch.compare("configs/digits.yaml", methods=["gp", "random"], seeds=5)
    print(comparison.verdict)

Each cell (a method with a seed) is an ordinary run in `STORAGE/NAME/runs/METHOD-SEED`; one Ray serves all. What is finished is not run
again, what was cut is resumed, and more methods or seeds may be added under the same name. With a table (`raysearch.tables`) nothing is
trained and Ray is not needed.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raysearch.api import folder_label
from raysearch.cluster import check_packages
from raysearch.comparing.manifest import Cell, Manifest, make_manifest, resolve_metric
from raysearch.config import Config, load_config
from raysearch.errors import RaysearchError, RunError, RunFolderError, RunInterrupted
from raysearch.files import RunFiles, check_run_name, read_json
from raysearch.termination import sigterm_interrupts

if TYPE_CHECKING:
    import pandas as pd
    from torch import nn

    from raysearch.comparing.results import Files
    from raysearch.progress import Progress


@dataclass(frozen=True, eq=False)
class Comparison:
    """A comparison, read from its folder.

    Attributes:
        path: its folder.
        summary: the content of `compare.json`.
    """

    path: Path
    summary: Mapping[str, Any]

    @classmethod
    def read(cls, path: str | Path) -> Comparison:
        """Opens the folder of a comparison; raises RunFolderError."""
        folder = Path(path).expanduser().absolute()
        return cls(folder, read_json(folder / "compare.json"))

    @property
    def verdict(self) -> str:
        """What can be said, and what cannot."""
        return self.summary["verdict"]

    @property
    def ranks(self) -> dict[str, float]:
        """The mean rank of each method, the best (lowest) first."""
        ranks = self.summary["ranks"]
        return dict(sorted(ranks.items(), key=lambda item: item[1]))

    def to_pandas(self) -> pd.DataFrame:
        """One row a cell: `compare.csv`."""
        import pandas as pd

        return pd.read_csv(self.path / "compare.csv", float_precision="round_trip")

    @cached_property
    def evaluations(self) -> pd.DataFrame:
        """One row an evaluation: `evaluations.csv`."""
        import pandas as pd

        path = self.path / "evaluations.csv"
        return pd.read_csv(path, low_memory=False, float_precision="round_trip")

    def __repr__(self) -> str:
        return f"Comparison({self.path}: {self.verdict})"


def compare(
    config: str | Path | Mapping[str, Any] | None = None,
    methods: str | Sequence[str] = (),
    seeds: int | str | Sequence[int] = 3,
    *,
    equal: str = "trials",
    metric: str = "auto",
    table: str | Path | None = None,
    name: str | None = None,
    storage: str | None = None,
    overrides: Sequence[str] = (),
    teacher: nn.Module | None = None,
    data: Any = None,
    progress: bool | None = None,
) -> Comparison:
    """Runs several methods with several seeds and the same budget, and says which are ahead.

    Args:
        config: a YAML file, or a mapping of configuration keys; None: the defaults, or the table's own configuration.
        methods: names or `package.module:Class`.
        seeds: how many, from `run.seed` on, or which ones. Teacher and data are always those of `run.seed` (or of `teacher.seed` and
            `data.seed`): a seed is the stream of a search and its trainings.
        equal: "trials": `search.trials` for each search; "epochs": `search.epochs`, or as many as `search.trials` full ones have;
            "seconds": `search.seconds`, of training and proposing (`raysearch.effort`).
        metric: what the verdict is about: a key of `raysearch.comparing.METRICS`, or "auto": the test accuracy of the final student under
            a budget of sizes, else its reward.
        table: a file of trained students that is replayed instead of training.
        name, storage: the folder is STORAGE/NAME; an existing comparison of the same configuration is continued. Without a name
            that is the first one of the default's name and the same configuration.
        overrides: `key.path=value` strings, as on the command line.
        teacher, data: as for `raysearch.run`, in place of what the configuration names.
        progress: as for `raysearch.compress`.

    Raises:
        InputError: before anything is trained, with the field, the value and the remedy.
        RunError: a search failed; the others are finished, and the page is written.
    """
    if table is not None:
        return _replay(config, methods, seeds, equal, metric, table, name, storage, overrides)
    base = _placed(load_config(config, overrides), name, storage)
    manifest = make_manifest(base, methods, seeds, equal)
    resolve_metric(metric, manifest.config)
    check_packages()
    from raysearch.problem import prepare
    from searchers.registry import make_algorithm, resolve

    for method in manifest.methods:
        resolve(method)
    problem = prepare(base, teacher=teacher, data=data)
    for cell in manifest.cells:
        trial = manifest.cell_config(cell, Path())
        search = trial.search
        make_algorithm(
            cell.method, problem.space, cell.seed, search.options, warm_start=search.warm_start
        )
    default = f"compare-{folder_label(problem.data.name)}-{folder_label(base.teacher.model)}"
    folder = open_folder(manifest, base, default)
    from raysearch.comparing.results import Files

    failures = _run_cells(manifest, Files(folder), teacher, data, progress)
    return _conclude(folder, metric, failures)


def report(folder: str | Path, metric: str = "auto") -> Comparison:
    """Writes a comparison's tables and page anew from the cells that are finished."""
    path = Path(folder).expanduser().absolute()
    resolve_metric(metric, Manifest.read(path).config)
    return _conclude(path, metric, {})


def _conclude(folder: Path, metric: str, failures: Mapping[Cell, str]) -> Comparison:
    from raysearch.comparing.results import write_results

    write_results(folder, metric=metric, failures=failures)
    if failures:
        cell, reason = next(iter(failures.items()))
        raise RunError(
            f"{len(failures)} of the searches failed ({cell.name}: {reason}); the page is written, and the same command tries them again"
        )
    return Comparison.read(folder)


# The folder


def _placed(config: Config, name: str | None, storage: str | None) -> Config:
    """The configuration with the name and the storage that were given."""
    named = {key: value for key, value in (("name", name), ("storage", storage)) if value}
    return load_config(config.model_dump(), {"run": named}) if named else config


def open_folder(manifest: Manifest, base: Config, default: str) -> Path:
    """The folder, new or of an earlier session, with the plan of all its sessions together written in it.

    Raises:
        InputError: the name is taken, or the earlier session had another configuration.
    """
    root = Path(base.run.storage).expanduser().absolute()
    if base.run.name is not None:
        folder = root / base.run.name
        if folder.exists():
            manifest = _joined(manifest, folder)
    else:
        folder, number = root / f"{default}-001", 1
        while folder.exists():
            try:
                manifest = _joined(manifest, folder)
                break
            except RaysearchError:  # something else of that name
                number += 1
                folder = root / f"{default}-{number:03d}"
    if not folder.exists():
        check_run_name(base.run.storage, folder.name)
        folder.mkdir(parents=True)
    manifest.write(folder)
    return folder


def _joined(manifest: Manifest, folder: Path) -> Manifest:
    from raysearch.comparing.manifest import MANIFEST

    if not (folder / MANIFEST).is_file():
        raise RunFolderError(
            f"run.name: {folder.name!r} exists in {str(folder.parent)!r} and is no comparison; choose another --name"
        )
    before = Manifest.read(folder)
    before.check_same(manifest, folder.name)
    return before.joined(manifest)


# Training


def _run_cells(
    manifest: Manifest, files: Files, teacher: nn.Module | None, data: Any, progress: bool | None
) -> dict[Cell, str]:
    """Brings all cells to their end, one after another in one Ray; returns those that failed, with the reason.

    Raises:
        RunInterrupted: the same command continues.
    """
    from raysearch.cluster import ray_session
    from raysearch.progress import Progress

    asked = list(manifest.cells)
    waiting = [cell for cell in asked if not files.is_finished(cell)]
    failures: dict[Cell, str] = {}
    try:
        with ExitStack() as stack:
            stack.enter_context(sigterm_interrupts())
            for cell in waiting:
                if cell is waiting[0]:
                    stack.enter_context(ray_session(manifest.config))
                with Progress(enabled=progress) as display:
                    place = asked.index(cell) + 1
                    display.note(f"search {place} of {len(asked)}: {cell.method}, seed {cell.seed}")
                try:
                    _run_cell(manifest, files, cell, teacher, data, progress)
                except RunError as error:
                    failures[cell] = str(error)
    except KeyboardInterrupt as error:
        raise RunInterrupted(files.folder, "the same command", cause=error) from None
    return failures


def _run_cell(
    manifest: Manifest,
    files: Files,
    cell: Cell,
    teacher: nn.Module | None,
    data: Any,
    progress: bool | None,
) -> None:
    """One run, from its beginning or from where it was cut."""
    from raysearch.api import resume, run

    folder = files.run(cell)
    if RunFiles(folder).config.exists():
        resume(folder, progress=progress)
        return
    shutil.rmtree(folder, ignore_errors=True)  # cut before it held anything
    run(manifest.cell_config(cell, folder.parent), teacher=teacher, data=data, progress=progress)


# Replaying


def _replay(
    config: str | Path | Mapping[str, Any] | None,
    methods: str | Sequence[str],
    seeds: int | str | Sequence[int],
    equal: str,
    metric: str,
    path: str | Path,
    name: str | None,
    storage: str | None,
    overrides: Sequence[str],
) -> Comparison:
    """A comparison over a table."""
    from raysearch.comparing.replaying import Replay, describe_table
    from raysearch.comparing.results import Files
    from raysearch.tables import Table
    from searchers.registry import resolve

    file = Path(path).expanduser().absolute()
    table = Table.read(file)
    given = table.config.model_dump() | {"run": {}} if config is None else config
    base = _placed(load_config(given, overrides), name, storage)
    known = {"path": str(file), "sha256": sha256(file.read_bytes()).hexdigest()}
    manifest = make_manifest(base, methods, seeds, equal, known)
    resolve_metric(metric, manifest.config)
    for method in manifest.methods:
        resolve(method)
    replay = Replay(table, manifest.config)
    replay.check(manifest.methods)
    manifest = make_manifest(base, methods, seeds, equal, known | describe_table(table))
    folder = open_folder(manifest, base, f"compare-{folder_label(table.problem)}")
    from raysearch.progress import Progress

    with Progress(enabled=None) as display:
        failures = _replay_cells(replay, manifest, Files(folder), display)
    return _conclude(folder, metric, failures)


def _replay_cells(
    replay: Any, manifest: Manifest, files: Files, display: Progress
) -> dict[Cell, str]:
    """Replays the cells that are not finished; returns those that failed, with the reason."""
    from raysearch.comparing.results import problem_name, write_replay

    waiting = [cell for cell in manifest.cells if not files.is_finished(cell)]
    failures: dict[Cell, str] = {}
    display.phase("replay", total=len(waiting))
    try:
        for cell in waiting:
            config = manifest.cell_config(cell, files.folder / "runs")
            try:
                row, evaluations = replay.run(problem_name(manifest), config)
                write_replay(files.run(cell), row, evaluations)
            except RunError as error:
                failures[cell] = str(error)
            display.advance()
    except KeyboardInterrupt as error:
        raise RunInterrupted(files.folder, "the same command", cause=error) from None
    return failures


__all__ = ["Comparison", "compare", "report"]
