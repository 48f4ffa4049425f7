"""The Python interface: `compress`, `resume`, and what they return. The command line is a thin layer over it."""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raysearch.cluster import check_packages
from raysearch.config import BudgetValue, Config, load_config
from raysearch.errors import ConfigError, RunFolderError, RunInterrupted
from raysearch.files import RunFiles, check_run_name, create_run_folder, read_json
from raysearch.lock import locked
from raysearch.resuming import continued_config
from raysearch.termination import sigterm_interrupts

if TYPE_CHECKING:
    import pandas as pd
    from ray.tune import Trainable
    from torch import nn

    from raysearch.architecture import Architecture
    from raysearch.exporting import Export
    from raysearch.inspection import Inspection
    from raysearch.problem import Problem


@dataclass(frozen=True, eq=False)
class Student:
    """A fully trained student of a run, read from its folder.

    Attributes:
        path: the folder with `architecture.json`, `weights.safetensors`, `model.py` and `metrics.json`.
        metrics: the content of `metrics.json`.
    """

    path: Path
    metrics: Mapping[str, Any]

    @property
    def accuracy(self) -> float:
        """On the validation part."""
        return self.metrics["accuracy"]

    @property
    def test_accuracy(self) -> float:
        """On the test part, which nothing was selected by."""
        return self.metrics["test_accuracy"]

    @property
    def num_params(self) -> int:
        return self.metrics["num_params"]

    @property
    def macs(self) -> int:
        return self.metrics["macs"]

    @property
    def reward(self) -> float:
        return self.metrics["reward"]

    @cached_property
    def architecture(self) -> Architecture:
        from raysearch.architecture import Architecture

        return Architecture.from_json((self.path / "architecture.json").read_text("utf-8"))

    @cached_property
    def module(self) -> nn.Module:
        """The trained network, in eval mode; its input is `(pixel * scale - mean) / std` (see `data.json`)."""
        from raysearch.models import build, load_weights

        weights = load_weights(self.path / "weights.safetensors")
        return build(self.architecture, inherit_from=weights).eval()

    def export(self, format: str, output: str | Path | None = None) -> Export:
        """Writes the student as "onnx", "torch" or "source"; see `raysearch.export`."""
        return export(self.path, format, output)

    def __repr__(self) -> str:
        return f"Student({self.num_params} parameters, accuracy {self.accuracy:.4f}, {self.path})"


@dataclass(frozen=True, eq=False)
class Result:
    """A finished run, read from its folder.

    Attributes:
        path: the run's folder.
        summary: the content of `summary.json`.
    """

    path: Path
    summary: Mapping[str, Any]

    @classmethod
    def read(cls, path: str | Path) -> Result:
        """Opens the folder of a finished run; raises RunFolderError."""
        folder = Path(path).expanduser().absolute()
        return cls(folder, read_json(RunFiles(folder).summary))

    @cached_property
    def students(self) -> list[Student]:
        """The fully trained students, the best first."""
        folders = sorted(RunFiles(self.path).students.glob("*/metrics.json"))
        return [Student(file.parent, read_json(file)) for file in folders]

    @property
    def best(self) -> Student:
        """The student that was chosen on the validation part."""
        return self.students[0]

    @property
    def pareto(self) -> list[Student]:
        """The students that no other one beats in both size and accuracy."""
        from raysearch.objective import pareto_front

        points = [(student.num_params, student.accuracy) for student in self.students]
        return [self.students[index] for index in pareto_front(points)]

    def to_pandas(self) -> pd.DataFrame:
        """Every evaluation of the search, one row each."""
        import pandas as pd

        return pd.read_json(RunFiles(self.path).observations, lines=True)

    def __repr__(self) -> str:
        return f"Result({self.path}, best={self.best!r})"


def compress(
    teacher: nn.Module | str | None = None,
    data: Any = None,
    budget: Mapping[str, BudgetValue] | None = None,
    *,
    method: str | None = None,
    trials: int | None = None,
    epochs: int | None = None,
    seed: int | None = None,
    storage: str | None = None,
    name: str | None = None,
    config: str | Path | Mapping[str, Any] | Config | None = None,
    overrides: Sequence[str] | str = (),
    progress: bool | None = None,
) -> Result:
    """Searches for a small student of a trained teacher, trains it fully, and writes a report.

    None takes what `config` says, else the default.

    Args:
        teacher: a trained module, or a name (see `teacher.model` in the configuration).
        data: a name ("digits"), a folder, or ((x_train, y_train), (x_test, y_test)) of arrays or tensors [N, C, H, W] (for networks of
            one or three dimensions [N, C, L] or [N, C, D, H, W]), [N].
        budget: any of params, macs, memory (fractions of the teacher, numbers, "60%" or "1.2M"), latency_ms, and accuracy: a floor, an
            accuracy in (0, 1] or a share of the teacher's such as "98%", which the smallest student is wanted for.
        method: who proposes (`python -m raysearch methods` lists them).
        trials: students that the search evaluates.
        epochs: of each trial of the search.
        seed: of everything random.
        storage, name: the run's folder is STORAGE/NAME.
        config: a YAML file, a mapping of configuration keys, or a `Config`.
        overrides: `key.path=value` strings, as on the command line, or a single one.
        progress: show the display; None: where a terminal is attached, else plain lines.

    Raises:
        InputError: before any trial starts, with the field, the value and the remedy.
        RunError: no student could be trained.
    """
    if teacher is not None and not isinstance(teacher, str):
        from raysearch.subject import check_module

        check_module(teacher)
    named: dict[str, Any] = {
        "teacher": None if teacher is None else {"model": _teacher_name(teacher)},
        "data": _data_section(data),
        "search": {"method": method, "trials": trials},
        "distill": {"epochs": epochs},
        "run": {"seed": seed, "storage": storage, "name": name},
    }
    base = load_config(config, overrides)
    resolved = load_config(_with(base, named, budget))
    module = None if isinstance(teacher, str) else teacher
    arrays = None if data is None or isinstance(data, str | Path) else _pairs(data)
    return run(resolved, teacher=module, data=arrays, progress=progress)


def export(
    source: str | Path | Result | Student,
    format: str,
    output: str | Path | None = None,
    *,
    student: str | int = "best",
) -> Export:
    """Writes a finished student for other programs, and checks that it gives the same logits.

    Args:
        source: a run, or a student; or the folder of one.
        format: "onnx" (needs the extra of that name), "torch" (a `torch.export` program), or "source" (a folder).
        output: where to; default: in the folder `export` of the run.
        student: "best" or a number such as "002" or 2, where `source` is a run.

    Raises:
        InputError: with the field, the value and the remedy.
        ExportError: the file does not give the student's logits; nothing is left of it.
    """
    from raysearch.exporting import export as write

    return write(source, format, output, student=student)


def inspect(config: Config, *, teacher: nn.Module | None = None, data: Any = None) -> Inspection:
    """Shows what a run would search, before any compute is spent: layers, channels, students and their costs, the budget.

    Raises:
        InputError: with the field, the value and the remedy; a budget that cannot be met is part of the result.
    """
    from raysearch.inspection import inspect as look

    return look(config, teacher=teacher, data=None if data is None else _pairs(data))


def prepare(config: Config, *, teacher: nn.Module | None = None, data: Any = None) -> Problem:
    """Loads and checks what a run needs, for use inside one's own Tune script: its `.space`, and `make_trainable`.

    Raises:
        InputError: with the field, the value and the remedy.
    """
    check_packages()
    from raysearch.problem import prepare as prepare_problem

    return prepare_problem(config, teacher=teacher, data=None if data is None else _pairs(data))


def make_trainable(problem: Problem) -> type[Trainable]:
    """The distillation of a problem's students for anybody's `ray.tune.Tuner`; its trials need `architecture` in their config.

    Trains the teacher first where it came without weights (or takes it from the cache).
    """
    from raysearch.teaching import make_trainable as make

    return make(problem)


def run(
    config: Config,
    *,
    teacher: nn.Module | None = None,
    data: Any = None,
    progress: bool | None = None,
) -> Result:
    """Runs a configuration from the beginning; see `compress`."""
    start = time.perf_counter()
    check_run_name(config.run.storage, config.run.name)
    check_packages()
    from raysearch.problem import prepare, save_arrays

    problem = prepare(config, teacher=teacher, data=data)
    default = f"{folder_label(problem.data.name)}-{folder_label(config.teacher.model)}"
    files = create_run_folder(config.run.storage, config.run.name, default)
    with locked(files.lock):
        if data is not None:
            save_arrays(files.arrays, data)
        return _execute(problem, files, progress, start)


def resume(
    path: str | Path, overrides: Sequence[str] | str = (), *, progress: bool | None = None
) -> Result:
    """Continues a run that was cut, or extends a finished one (`search.trials=64`).

    Raises:
        InputError: not a run's folder, a damaged one, one that another process works on, or an override that would change what its results mean.
    """
    start = time.perf_counter()
    files = RunFiles(Path(path).expanduser().absolute())
    if not files.config.exists():
        raise RunFolderError(
            f"{path}: no run's folder (there is no config.yaml); give the folder of a run"
        )
    with locked(files.lock):
        config = continued_config(
            files.config, [overrides] if isinstance(overrides, str) else overrides
        )
        check_packages()
        from raysearch.problem import reopen

        return _execute(reopen(config, files), files, progress, start)


def _execute(problem: Problem, files: RunFiles, progress: bool | None, start: float) -> Result:
    from raysearch.experiment import Experiment
    from raysearch.progress import Progress
    from raysearch.report import budget_text

    limits: dict[str, Any] = dict(problem.space.limits)
    if problem.floor is not None:
        limits["accuracy"] = problem.config.limits["accuracy"]
    try:
        with (
            sigterm_interrupts(),
            Progress(budget_text=budget_text(limits) or "none", enabled=progress) as display,
        ):
            Experiment(
                problem,
                files,
                progress=display,
                command=_command(files),
                prepare_s=time.perf_counter() - start,
            ).run()
    except KeyboardInterrupt as error:
        raise RunInterrupted(files.folder, cause=error) from None
    return Result.read(files.folder)


def _command(files: RunFiles) -> str:
    """What repeats this run: its resolved configuration under a new name."""
    return shlex.join(
        [
            "python",
            "-m",
            "raysearch",
            "run",
            str(files.config),
            f"run.name={files.folder.name}-again",
        ]
    )


def _with(
    base: Config, named: Mapping[str, Mapping[str, Any] | None], budget: Mapping[str, Any] | None
) -> dict[str, Any]:
    """The configuration with the arguments that were given on top."""
    merged = base.model_dump()
    for section, values in named.items():
        given = {key: value for key, value in (values or {}).items() if value is not None}
        merged[section] = {**merged[section], **given}
    if budget is not None:
        if not isinstance(budget, Mapping):
            raise ConfigError(
                f"budget: {budget!r} does not say what is limited; give {{'params': {budget!r}}}, or macs, memory, latency_ms or accuracy"
            )
        merged["budget"] = dict(budget)
    return merged


def _teacher_name(teacher: nn.Module | str) -> str:
    """`teacher.model`; of a module in memory its class, for people."""
    return teacher if isinstance(teacher, str) else type(teacher).__name__


def _data_section(data: Any) -> dict[str, Any] | None:
    """`data.name`, or the loader that fits a folder."""
    if data is None:
        return None
    if not isinstance(data, str | Path):
        return {"name": "arrays"}
    folder = Path(data).expanduser()
    if isinstance(data, str) and not folder.is_dir():
        return {"name": data}
    kind = "parquet" if any(folder.rglob("*.parquet")) else "image_folder"
    return {"name": kind, "path": str(folder.absolute())}


def _pairs(data: Any) -> tuple[Any, Any]:
    """((x, y), (x_test, y_test) or None) of what was given."""
    if isinstance(data, tuple | list) and len(data) == 2:
        first, second = data
        if isinstance(first, tuple | list):
            return tuple(first), None if second is None else tuple(second)
        return (first, second), None
    raise ConfigError(
        f"data: a {type(data).__name__} is not understood; give a name, a folder, or ((x_train, y_train), (x_test, y_test))"
    )


def folder_label(text: str) -> str:
    """A name that is fit for a folder."""
    return "".join(c if c.isalnum() else "-" for c in text.rpartition(":")[2]).strip("-") or "run"


__all__ = [
    "Result",
    "Student",
    "compress",
    "export",
    "inspect",
    "make_trainable",
    "prepare",
    "resume",
    "run",
]
