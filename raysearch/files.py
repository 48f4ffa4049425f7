"""A run's folder: where everything lies, how it is created, and atomic writing."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raysearch.errors import RunFolderError


@dataclass(frozen=True)
class RunFiles:
    """The names of a run's files, relative to its folder."""

    folder: Path

    @property
    def config(self) -> Path:
        return self.folder / "config.yaml"

    @property
    def lock(self) -> Path:
        """Held by the process that works on the run."""
        return self.folder / "lock"

    @property
    def data(self) -> Path:
        return self.folder / "data.json"

    @property
    def arrays(self) -> Path:
        """Data that were handed over in memory, so that the run can be resumed without them."""
        return self.folder / "data.npz"

    @property
    def summary(self) -> Path:
        return self.folder / "summary.json"

    @property
    def observations(self) -> Path:
        return self.folder / "observations.jsonl"

    @property
    def runs(self) -> Path:
        """One line for each finished run of a method whose students come out of runs."""
        return self.folder / "runs.jsonl"

    @property
    def histories(self) -> Path:
        """The histories of such runs, for the report."""
        return self.folder / "bayesnas"

    @property
    def search_state(self) -> Path:
        """What a method that learns on the way has learned so far."""
        return self.folder / "search_state.json"

    @property
    def policy(self) -> Path:
        """The policies that such a method ends with."""
        return self.folder / "policy"

    @property
    def surrogate(self) -> Path:
        """What the search's model knew at the end."""
        return self.folder / "surrogate.parquet"

    @property
    def random_observations(self) -> Path:
        return self.folder / "baselines" / "random" / "observations.jsonl"

    @property
    def prune_observations(self) -> Path:
        return self.folder / "baselines" / "prune" / "observations.jsonl"

    @property
    def finished(self) -> Path:
        """Full trainings of finalists and baselines, one line each."""
        return self.folder / "finished.jsonl"

    @property
    def session(self) -> Path:
        """What an unfinished run needs besides its logs: students in training, and the seconds spent so far."""
        return self.folder / "session.json"

    @property
    def latency(self) -> Path:
        """Measured latencies by architecture id, so that a run that is continued finds the same ones."""
        return self.folder / "latency.jsonl"

    @property
    def teacher(self) -> Path:
        return self.folder / "teacher"

    @property
    def teacher_card(self) -> Path:
        return self.teacher / "card.json"

    @property
    def tune(self) -> Path:
        return self.folder / "tune"

    @property
    def weights(self) -> Path:
        """Weights of evaluated students that may still be needed, and unfinished trainings."""
        return self.folder / "weights"

    @property
    def students(self) -> Path:
        return self.folder / "students"

    @property
    def baselines(self) -> Path:
        return self.folder / "baselines"

    @property
    def best(self) -> Path:
        return self.folder / "best"

    @property
    def report(self) -> Path:
        return self.folder / "report.html"


def create_run_folder(storage: str, name: str | None, default_name: str) -> RunFiles:
    """Makes a new, empty folder `STORAGE/NAME`; without a name the next free `DEFAULT-001`.

    Raises:
        RunFolderError: the name is taken, or the storage cannot be written.
    """
    root = Path(storage).expanduser().absolute()
    try:
        root.mkdir(parents=True, exist_ok=True)
        if name is not None:
            folder = root / name
            folder.mkdir()
            return RunFiles(folder)
        number = 1
        while True:
            folder = root / f"{default_name}-{number:03d}"
            try:
                folder.mkdir()
                return RunFiles(folder)
            except FileExistsError:
                number += 1
    except FileExistsError:
        raise _taken(storage, name) from None
    except OSError as error:
        raise RunFolderError(
            f"run.storage: {storage!r} cannot be written ({error.strerror}); choose another folder"
        ) from error


def check_run_name(storage: str, name: str | None) -> None:
    """Raises RunFolderError where `create_run_folder` would find the name taken."""
    root = Path(storage).expanduser().absolute()
    if name is not None and (root / name).exists():
        raise _taken(storage, name)
    parent = next(path for path in (root, *root.parents) if path.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise RunFolderError(
            f"run.storage: {storage!r} cannot be written; choose a folder that can"
        )


def _taken(storage: str, name: str | None) -> RunFolderError:
    if name is None:
        return RunFolderError(f"run.storage: {storage!r} is a file; choose a folder")
    path = Path(storage) / name
    return RunFolderError(
        f"run.name: {name!r} exists in {storage!r}; continue it with `raysearch resume {path}`, or choose another name"
    )


def write_text(path: Path, text: str) -> None:
    """Replaces a file's content at once: a reader sees the old text or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def write_json(path: Path, value: Any) -> None:
    """`write_text` of indented JSON; NaN and infinities are refused."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: Path, *, holds: Sequence[str] = ()) -> Any:
    """Reads a JSON file of the run's folder.

    Args:
        holds: keys that it must have.

    Raises:
        RunFolderError: missing or damaged.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        for key in holds:
            if not isinstance(content, dict) or key not in content:
                raise ValueError(f"no {key!r}")
        return content
    except FileNotFoundError:
        raise RunFolderError(f"{path}: missing; {path.parent} is not a complete run") from None
    except (OSError, ValueError) as error:
        raise RunFolderError(f"{path}: damaged ({error}); restore it or start a new run") from error
