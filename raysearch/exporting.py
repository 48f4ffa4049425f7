"""Finished students for other programs: ONNX, a `torch.export` program, or Python source that stands alone.

Every file is read back and compared with the trained student before it takes its place; what differs is thrown away.
"""

from __future__ import annotations

import ast
import copy
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn

from raysearch.architecture import Architecture
from raysearch.errors import (
    ConfigError,
    ExportError,
    InvalidArchitecture,
    OutputError,
    RunFolderError,
    WeightsError,
)
from raysearch.files import RunFiles, read_json
from raysearch.models import build, load_weights
from raysearch.models.export import ARCHITECTURE_FILE, SOURCE_FILE, WEIGHTS_FILE
from raysearch.models.formats import FORMATS, Format, Network, check_installed
from raysearch.models.tracing.capture import example
from raysearch.models.weights import misfits

TOLERANCE = 1e-5
"""How far logits may lie from the trained student's, as a share of their scale, the largest logit."""
ROUNDINGS = 4
"""How many times its own rounding they may lie away where that is more: the same network in another order of additions rounds as much as the
student itself does, so that the two lie up to twice its rounding apart, and that is measured on a few images only."""
ROUNDED = 64
"""Images beside those compared that the rounding is measured on: of one image it is a matter of luck."""
MOST_ROUNDING = 1e-4
"""More than this is never put down to rounding: a mistake in one layer can be as small."""
BATCHES = (1, 2, 5)


@runtime_checkable
class HasPath(Protocol):
    """What knows its folder: `raysearch.Result` and `raysearch.Student`."""

    @property
    def path(self) -> Path: ...


@dataclass(frozen=True)
class Export:
    """What was written.

    Attributes:
        path: the file, or the folder of the source.
        format: "onnx", "torch" or "source".
        size_bytes: of all its files.
        difference: the largest difference from the trained student's logits, as a share of their scale.
        takes: what the network's input is, in words.
        load: one line of Python that loads it.
    """

    path: Path
    format: str
    size_bytes: int
    difference: float
    takes: str
    load: str


def export(
    source: str | Path | HasPath,
    format: str,
    output: str | Path | None = None,
    *,
    student: str | int = "best",
) -> Export:
    """Writes a finished student in a format that other programs read.

    Args:
        source: a run's folder or a student's, or the `Result` or `Student`.
        format: "onnx" (needs the extra of that name), "torch" (a program for `torch.export.load`), or "source" (a folder with
            `model.py` and its weights).
        output: the file, or for "source" the folder; an existing folder gets a file of the default name. Default: in the folder
            `export` of the run.
        student: "best" or the number of one, where `source` is a run.

    Raises:
        InputError: no such format or student, a missing package, or an output that cannot be written.
        ExportError: what was written does not give the student's logits; nothing is left of it.
    """
    chosen = _format(format)
    check_installed(chosen)
    folder = _student_folder(
        Path(source.path if isinstance(source, HasPath) else source).expanduser(), student
    )
    network = _read(folder)
    target = _target(folder, chosen, output)
    draft = _draft_folder(target)
    try:
        written = draft / target.name
        chosen.write(network, written)
        difference = _compare(network, chosen, written)
        size = sum(f.stat().st_size for f in (written, *written.rglob("*")) if f.is_file())
        _move(written, target)
    except OSError as error:
        raise _unwritable(target, error) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    takes = f"images [B, {', '.join(map(str, network.architecture.input_shape))}], {_normalised(network.preprocessing)}"
    return Export(target, format, size, difference, takes, chosen.load.format(path=str(target)))


def _format(name: str) -> Format:
    if name not in FORMATS:
        given = f"{name!r} is not known" if name else "not given"
        raise ConfigError(f"format: {given}; choose one of {', '.join(FORMATS)}")
    return FORMATS[name]


def _student_folder(source: Path, student: str | int) -> Path:
    """The folder of the student that is meant."""
    if not source.is_dir():
        raise RunFolderError(f"{source}: no such folder; give the folder of a run or of a student")
    if (source / ARCHITECTURE_FILE).exists():
        return source.resolve()
    files = RunFiles(source)
    found = sorted(file.parent.name for file in files.students.glob(f"*/{ARCHITECTURE_FILE}"))
    if not found:
        what = "the run is not finished" if files.config.exists() else "it is no run's folder"
        raise RunFolderError(f"{source}: holds no finished student ({what})")
    if student == "best":
        return (files.best if files.best.exists() else files.students / found[0]).resolve()
    name = f"{int(student):03d}" if str(student).isdecimal() else str(student)
    if name not in found:
        raise RunFolderError(
            f"student: {student!r} is not in {files.students}; choose best, {', '.join(found)}"
        )
    return (files.students / name).resolve()


def _read(folder: Path) -> Network:
    """The trained student, which every export must equal."""
    try:
        text = (folder / ARCHITECTURE_FILE).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RunFolderError(f"{folder / ARCHITECTURE_FILE}: cannot be read ({error})") from error
    try:
        architecture = Architecture.from_json(text)
    except InvalidArchitecture as error:
        raise InvalidArchitecture(f"{folder / ARCHITECTURE_FILE}: {error}") from error
    file = folder / WEIGHTS_FILE
    if not file.exists():
        raise RunFolderError(f"{folder}: holds no finished student ({WEIGHTS_FILE} is missing)")
    try:
        state = load_weights(file)
    except WeightsError as error:
        raise WeightsError(str(error).removeprefix("teacher.weights: ")) from error
    _check_fit(architecture, state, file)  # before a module of any size is made
    module = build(architecture, inherit_from=state).eval()
    return Network(architecture, module, _preprocessing(folder))


def _check_fit(architecture: Architecture, state: Mapping[str, torch.Tensor], file: Path) -> None:
    for key, found, wanted in misfits(architecture, state):
        has = "is missing" if found is None else f"has shape {list(found)}"
        raise WeightsError(f"{file}: {key!r} {has}, but {ARCHITECTURE_FILE} needs {list(wanted)}")


def _preprocessing(folder: Path) -> Mapping[str, Any] | None:
    """`scale`, `mean`, `std` of the run's `data.json`; of a student that left its run, those written in its `model.py`."""
    data = RunFiles(folder.parent.parent).data
    if data.exists():
        content = read_json(data)
        found = content.get("preprocessing") if isinstance(content, dict) else None
        if not isinstance(found, dict) or not {"scale", "mean", "std"} <= set(found):
            raise RunFolderError(
                f"{data}: damaged (no preprocessing with scale, mean, std); restore it"
            )
        return found
    try:
        body = ast.parse((folder / SOURCE_FILE).read_text("utf-8")).body
        found = {
            name.id.lower(): ast.literal_eval(line.value)
            for line in body
            if isinstance(line, ast.Assign)
            for name in line.targets
            if isinstance(name, ast.Name) and name.id in ("SCALE", "MEAN", "STD")
        }
    except (OSError, ValueError, SyntaxError):
        return None
    return found if len(found) == 3 else None


def _normalised(preprocessing: Mapping[str, Any] | None) -> str:
    if preprocessing is None:
        return "normalised as the student was trained"
    values = ", ".join(
        f"{key} {json.dumps(preprocessing[key])}" for key in ("scale", "mean", "std")
    )
    return f"normalised: (pixel * scale - mean) / std with {values}"


def _target(folder: Path, chosen: Format, output: str | Path | None) -> Path:
    in_run = folder.parent.name == "students"
    name = (f"student-{folder.name}" if in_run else "student") + chosen.suffix
    if output is None:
        target = (folder.parent.parent if in_run else folder) / "export" / name
    else:
        target = Path(output).expanduser().absolute()
        if target.is_dir() and chosen.suffix:
            target = target / name
    if not chosen.suffix and target.exists() and not target.is_dir():
        raise OutputError(f"output: {str(target)!r} is a file; give a folder")
    if not chosen.suffix and target == folder:
        raise OutputError(f"output: {str(target)!r} is the student itself; give another folder")
    return target


def _draft_folder(target: Path) -> Path:
    """A new folder beside the target, so that moving from it is one step."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix=".export-", dir=target.parent))
    except OSError as error:
        raise _unwritable(target, error) from error


def _unwritable(target: Path, error: OSError) -> OutputError:
    why = error.strerror or str(error)
    return OutputError(
        f"output: {str(target)!r} cannot be written ({why}); choose another place with --output"
    )


def _move(written: Path, target: Path) -> None:
    if not written.is_dir():
        os.replace(written, target)
        return
    target.mkdir(exist_ok=True)
    for file in written.iterdir():
        if file.is_file():  # what Python left beside the source it read stays behind
            os.replace(file, target / file.name)


@torch.no_grad()
def _compare(network: Network, chosen: Format, written: Path) -> float:
    """The largest difference from the trained student, as a share of the logits' scale.

    Raises:
        ExportError: it is above what rounding explains, the larger of `TOLERANCE` and `ROUNDINGS` times the student's own rounding.
    """
    exported: Callable[[torch.Tensor], torch.Tensor] = chosen.read(written)
    worst = 0.0
    for batch in BATCHES:
        images = example(network.module, network.architecture.input_shape, batch)
        expected = network.module(images)
        found = exported(images)
        if found.shape != expected.shape:
            raise ExportError(
                f"the exported network gives logits of shape {list(found.shape)} for {batch} images instead of "
                f"{list(expected.shape)}, so nothing was written"
            )
        scale = max(torch.finfo(torch.float32).tiny, float(expected.abs().max()))
        difference = float((found.double() - expected.double()).abs().max()) / scale
        worst = max(worst, difference)
        if not difference <= TOLERANCE:  # NaN too
            more = example(network.module, network.architecture.input_shape, ROUNDED)
            rounding = max(_rounding(network.module, x) for x in (images, more))
            allowed = max(TOLERANCE, min(MOST_ROUNDING, ROUNDINGS * rounding))
            if not difference <= allowed:
                raise ExportError(
                    f"the exported network's logits differ from the student's by {difference:.2g} of their scale, above "
                    f"{allowed:.2g}, so nothing was written"
                )
    return worst


def _rounding(module: nn.Module, images: torch.Tensor) -> float:
    """How far a float32 network's logits lie from those in float64, as a share of their scale; 0 where that cannot be told."""
    logits = module(images)
    if logits.dtype != torch.float32:
        return 0.0
    try:
        exact = copy.deepcopy(module).double()(images.double())
    except RuntimeError:  # float32 is written in its code
        return 0.0
    scale = max(torch.finfo(torch.float32).tiny, float(exact.abs().max()))
    return float((logits.double() - exact).abs().max()) / scale


__all__ = ["Export", "export"]
