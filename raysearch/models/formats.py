"""The formats that a student is exported to: how each is written, and how it is read back for the check."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from raysearch.architecture.graph import Architecture
from raysearch.errors import ConfigError, ExportError, MissingPackageError
from raysearch.models.export import SOURCE_FILE, export_student
from raysearch.models.tracing.capture import example, reason
from raysearch.version import __version__

Exported = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True, eq=False)
class Network:
    """A trained student.

    Attributes:
        architecture: its graph.
        module: the network, in eval mode, on the CPU.
        preprocessing: `scale`, `mean`, `std` of its input (pixel * scale - mean) / std; None where they are not known.
    """

    architecture: Architecture
    module: nn.Module
    preprocessing: Mapping[str, Any] | None


@dataclass(frozen=True)
class Format:
    """One format.

    Attributes:
        suffix: of its file; "" where it is a folder.
        write: (network, path) -> None.
        read: path -> the network as a function of images.
        load: a line of Python that loads `{path}`.
        packages: what must be installed.
    """

    suffix: str
    write: Callable[[Network, Path], None]
    read: Callable[[Path], Exported]
    load: str
    packages: tuple[str, ...] = ()


def check_installed(chosen: Format) -> None:
    """Raises MissingPackageError where a package of the format is not there."""
    for name in chosen.packages:
        try:
            found = importlib.util.find_spec(name)
        except ValueError:  # set to None by those who want it gone
            found = None
        if found is None:
            raise MissingPackageError(
                f"the format needs {name}, which is not installed; pip install 'raysearch[onnx]'"
            )


def _write_source(network: Network, path: Path) -> None:
    export_student(path, network.architecture, network.module, preprocessing=network.preprocessing)


def _read_source(path: Path) -> Exported:
    """Runs the `model.py` that was generated just now; never one that was found."""
    spec = importlib.util.spec_from_file_location("exported_student", path / SOURCE_FILE)
    assert spec is not None, "it ends in .py"
    assert spec.loader is not None, "it ends in .py"
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Student().eval()


def _write_program(network: Network, path: Path) -> None:
    with _quiet():
        program = _program(network)
        torch.export.save(program, path, extra_files={"preprocessing.json": _notes(network)})


def _program(network: Network) -> torch.export.ExportedProgram:
    images = example(network.module, network.architecture.input_shape, 2)
    batch = ({0: torch.export.Dim.DYNAMIC},)
    with _failures("torch.export"), torch.no_grad():
        return torch.export.export(network.module, (images,), dynamic_shapes=batch, strict=False)


def _read_program(path: Path) -> Exported:
    with _quiet():
        return torch.export.load(path).module()


def _write_onnx(network: Network, path: Path) -> None:
    import onnx

    _check_precision(network.module)
    with _quiet(), _failures("torch.onnx"), torch.no_grad():
        exported = torch.onnx.export(
            _program(network),
            dynamo=True,
            input_names=["images"],
            output_names=["logits"],
            verbose=False,
        )
        assert exported is not None, "dynamo=True returns the program"
        model = exported.model_proto
    onnx.helper.set_model_props(model, {"raysearch": __version__, "preprocessing": _notes(network)})
    onnx.checker.check_model(model)
    onnx.save_model(model, str(path))


def _check_precision(module: nn.Module) -> None:
    kinds = {p.dtype for p in module.parameters()} - {torch.float32, torch.float64}
    if kinds:
        name = str(kinds.pop()).removeprefix("torch.")
        raise ConfigError(
            f"format: onnx is written for float32 and float64, but the student's weights are {name}; choose torch or source"
        )


def _read_onnx(path: Path) -> Exported:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def run(images: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(session.run(["logits"], {"images": images.numpy()})[0])

    return run


def _notes(network: Network) -> str:
    """What a reader of the file needs to know of its input."""
    return json.dumps(
        {"input": "(pixel * scale - mean) / std", **(network.preprocessing or {})}, allow_nan=False
    )


@contextlib.contextmanager
def _failures(exporter: str) -> Iterator[None]:
    """An exporter's errors, of any kind, as ours."""
    try:
        yield
    except Exception as error:  # re-raised as our own
        raise ExportError(
            f"{exporter} cannot write this student ({reason(_innermost(error))}), so nothing was written"
        ) from error


def _innermost(error: BaseException) -> BaseException:
    """Where an error began: exporters wrap what they fail on in reports of their own progress."""
    seen: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in seen:
        seen.append(cause)
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    return seen[-1]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporters print: it repeats what we raise, or speaks of their own insides."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


FORMATS: Mapping[str, Format] = {
    "onnx": Format(
        ".onnx",
        _write_onnx,
        _read_onnx,
        "session = onnxruntime.InferenceSession({path!r}); logits = session.run(None, {{'images': images}})[0]",
        ("onnx", "onnxscript", "onnxruntime"),
    ),
    "torch": Format(
        ".pt2", _write_program, _read_program, "model = torch.export.load({path!r}).module()"
    ),
    "source": Format(
        "",
        _write_source,
        _read_source,
        "sys.path.insert(0, {path!r}); from model import Student; model = Student().eval()",
    ),
}
