"""A run's folder as data: `STORAGE/NAME/` (docs/run-folder.md), read back whether the run ended, was cut, or is still going.

Only `config.yaml` must be there. A file that is missing is None or empty; one that cannot be read (a torn write) is left out and
named in `RunFolder.problems`, so that the report can say so.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from raysearch.architecture.budget import resolve_budget
from raysearch.architecture.graph import Architecture
from raysearch.errors import BudgetError, InvalidArchitecture, RunFolderError
from raysearch.report.bayesnas import read_histories
from raysearch.report.embedding import LOSSES_FILE, Refit, read_refits
from raysearch.report.records import Evaluation, Json, Role, Scores, Trained, number, text_of
from raysearch.report.surrogate import SURROGATE_FILE, Knowledge, read_knowledge


@dataclass(frozen=True)
class RunFolder:
    """Everything that a report needs of a run; see `RunFolder.read`."""

    path: Path
    config: Json
    config_text: str
    data: Json
    summary: Json | None
    evaluations: tuple[Evaluation, ...]
    trained: tuple[Trained, ...]
    teacher: Scores
    teacher_architecture: Architecture | None
    best_architecture: Architecture | None
    best_name: str | None
    knowledge: Knowledge | None
    refits: tuple[Refit, ...]
    policy: Json | None
    runs: tuple[Json, ...]
    histories: tuple[Json, ...]
    problems: tuple[str, ...]

    @classmethod
    def read(cls, path: str | Path) -> RunFolder:
        """Reads a finished, interrupted or running run.

        Raises:
            RunFolderError: if the folder is missing or is not a run's.
        """
        return _Reader(Path(path)).read()

    @property
    def name(self) -> str:
        """The run's name: its folder's."""
        return text_of(self.path.resolve().name)

    @property
    def partial(self) -> bool:
        """Whether the run has not come to its end (it writes `summary.json` last)."""
        return self.summary is None

    @cached_property
    def students(self) -> tuple[Trained, ...]:
        """The finalists, the best first, then in the order of their numbers, which follow their rank."""
        found = (row for row in self.trained if row.role == "student")
        return tuple(sorted(found, key=lambda row: (row.name != self.best_name, row.name)))

    @cached_property
    def baselines(self) -> tuple[Trained, ...]:
        """What stands beside the result."""
        return tuple(row for row in self.trained if row.role == "baseline")

    @property
    def best(self) -> Trained | None:
        """The student that the `best` link names, else the first."""
        return self.students[0] if self.students else None

    def is_best(self, row: Trained) -> bool:
        """Whether it is the run's result."""
        return row.role == "student" and row.name == self.best_name

    def label(self, row: Trained) -> str:
        """Its short name for people: "001 (best)", "003 (uniform)", "uniform"."""
        marks = ["best"] if self.is_best(row) else []
        marks += [row.origin] if row.origin not in ("search", row.name) else []
        return f"{row.name} ({', '.join(marks)})" if marks else row.name

    def summary_part(self, key: str) -> Json:
        """An object of `summary.json`, empty where absent."""
        value = (self.summary or {}).get(key)
        return value if isinstance(value, Mapping) else {}

    @property
    def seconds(self) -> dict[str, float]:
        """Wall time by phase, as far as recorded."""
        return _numbers(self.summary_part("seconds"))

    @property
    def trials(self) -> dict[str, float]:
        """Trials by status, as far as recorded."""
        return _numbers(self.summary_part("trials"))

    def limit(self, quantity: str) -> int | None:
        """The budget's upper limit in units of `quantity` ("params" or "macs"), None without one."""
        whole = self.teacher.num_params if quantity == "params" else self.teacher.macs
        for budget in (self.summary_part("budget"), self.config.get("budget")):
            if whole and isinstance(budget, Mapping) and budget.get(quantity) is not None:
                try:
                    limits = resolve_budget({quantity: budget[quantity]}, {quantity: whole})
                    return int(limits[quantity])
                except BudgetError:
                    return None
        return None


class _Reader:
    """Reads the files one by one and collects what could not be read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.problems: list[str] = []

    def read(self) -> RunFolder:
        text, config = self.config()
        summary = self.object("summary.json")
        teacher = (summary or {}).get("teacher")
        card = self.object("teacher/card.json") or {}
        trained = tuple(self.trained())
        best = self.best_name(trained)
        return RunFolder(
            path=self.path,
            config=config,
            config_text=text,
            data=self.object("data.json") or {},
            summary=summary,
            evaluations=tuple(self.evaluations()),
            trained=trained,
            teacher=Scores.from_json(teacher if isinstance(teacher, Mapping) else card),
            teacher_architecture=self.architecture("teacher/architecture.json"),
            best_architecture=self.architecture(f"students/{best}/architecture.json"),
            best_name=best,
            knowledge=self.knowledge(),
            refits=self.refits(),
            policy=self.object("policy/policy.json"),
            runs=tuple(self.objects(self.path / "runs.jsonl")),
            histories=self.histories(),
            problems=tuple(self.problems),
        )

    def config(self) -> tuple[str, Json]:
        if not self.path.is_dir():
            raise RunFolderError(
                f"There is no run at {self.path}: give the folder that `raysearch run` printed."
            )
        file = self.path / "config.yaml"
        if not file.is_file():
            raise RunFolderError(
                f"{self.path} is not a run's folder (it has no config.yaml): give the folder that `raysearch run` printed."
            )
        try:
            text = file.read_text(encoding="utf-8")
            config = yaml.safe_load(text)
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            reason = " ".join(str(error).split())
            raise RunFolderError(f"{file} cannot be read ({reason}): restore it.") from error
        if not isinstance(config, Mapping):
            raise RunFolderError(f"{file} does not hold a run's configuration: restore it.")
        return text, config

    def text(self, file: Path) -> str | None:
        """The file's text; None if absent, or unreadable, which is a problem."""
        if not file.is_file():
            return None
        try:
            return file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            self.problems.append(f"{self.relative(file)} could not be read and is left out.")
            return None

    def relative(self, file: Path) -> str:
        return file.relative_to(self.path).as_posix()

    def object(self, name: str) -> dict[str, Any] | None:
        text = self.text(self.path / name)
        if text is None:
            return None
        value = _parse(text)
        if not isinstance(value, dict):
            self.problems.append(f"{name} is damaged and is left out.")
            return None
        return value

    def architecture(self, name: str) -> Architecture | None:
        text = self.text(self.path / name)
        if text is None:
            return None
        try:
            return Architecture.from_json(text)
        except InvalidArchitecture:
            self.problems.append(f"{name} is damaged and is left out.")
            return None

    def knowledge(self) -> Knowledge | None:
        try:
            return read_knowledge(self.path / SURROGATE_FILE)
        except ValueError:
            self.problems.append(f"{SURROGATE_FILE} is damaged and is left out.")
            return None

    def refits(self) -> tuple[Refit, ...]:
        try:
            return read_refits(self.path)
        except ValueError:
            self.problems.append(f"{LOSSES_FILE} is damaged and is left out.")
            return ()

    def evaluations(self) -> list[Evaluation]:
        """The search's own lines, then those that a baseline keeps in a file of its own."""
        found = self.lines(self.path / "observations.jsonl", "search")
        for file in sorted(self.path.glob("baselines/*/observations.jsonl")):
            found += self.lines(file, file.parent.name)
        return found

    def histories(self) -> tuple[Json, ...]:
        found, damaged = read_histories(self.path)
        self.problems += [f"{name} is damaged and is left out." for name in damaged]
        return found

    def lines(self, file: Path, stage: str) -> list[Evaluation]:
        return [Evaluation.from_json(value, stage) for value in self.objects(file)]

    def objects(self, file: Path) -> list[Json]:
        """The lines of a log."""
        lines = (self.text(file) or "").split("\n")
        values = [_parse(line) for line in lines]
        # The last piece is what follows the last line break: empty, or a torn line (dropped even if it parses by chance).
        damaged = sum(
            not isinstance(value, dict) for value, line in zip(values, lines, strict=True) if line
        ) - (bool(lines[-1]) and not isinstance(values[-1], dict))
        if damaged:
            self.problems.append(f"{damaged} damaged lines of {self.relative(file)} are left out.")
        return [value for value in values if isinstance(value, dict)]

    def trained(self) -> list[Trained]:
        found: list[Trained] = []
        for file in sorted((self.path / "students").rglob("metrics.json")):
            name = file.parent.relative_to(self.path / "students").as_posix()
            found += self.one_trained(file, name, "student")
        for top in sorted((self.path / "baselines").glob("*/")):
            files = sorted(top.rglob("metrics.json"))
            for file in files:
                name = file.parent.relative_to(top.parent).as_posix()
                found += self.one_trained(file, top.name if len(files) == 1 else name, "baseline")
        return found

    def one_trained(self, file: Path, name: str, role: Role) -> list[Trained]:
        data = self.object(self.relative(file))
        path = self.relative(file.parent)
        return [Trained.from_json(data, name=name, role=role, path=path)] if data else []

    def best_name(self, trained: tuple[Trained, ...]) -> str | None:
        students = [row for row in trained if row.role == "student"]
        link = self.path / "best"
        target = link.resolve()
        for row in students:
            if link.exists() and (self.path / row.path).resolve() == target:
                return row.name
        return students[0].name if students else None


def _parse(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _numbers(values: Json) -> dict[str, float]:
    return {name: value for name in values if (value := number(values[name])) is not None}
