"""A finished student on disk: `architecture.json`, `weights.safetensors` and a `model.py` that needs no raysearch."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import nn

from raysearch.architecture.graph import Architecture
from raysearch.errors import WeightsError
from raysearch.models.build import state_keys
from raysearch.models.source import model_source
from raysearch.models.states import state_of, with_folds
from raysearch.models.wrappers import unwrap

ARCHITECTURE_FILE = "architecture.json"
WEIGHTS_FILE = "weights.safetensors"
SOURCE_FILE = "model.py"


def export_student(
    folder: str | Path,
    architecture: Architecture,
    module: nn.Module,
    *,
    preprocessing: Mapping[str, Any] | None = None,
) -> None:
    """Writes a student; a file is there complete or not at all.

    Args:
        folder: is made where missing; files of a former export are replaced.
        architecture: the student.
        module: what `build` made of it, trained; or the teacher itself, of which parts that the logits do not need stay behind.
        preprocessing: `scale`, `mean`, `std` of the network's input (pixel * scale - mean) / std; written into `model.py`.

    Raises:
        WeightsError: the module's state is not the architecture's.
    """
    state = _state(architecture, unwrap(module))
    dtype = next((str(t.dtype) for t in state.values() if t.is_floating_point()), "torch.float32")
    source = model_source(architecture, preprocessing=preprocessing, dtype=dtype)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / WEIGHTS_FILE, save(state, metadata={"format": "pt"}))
    _write(folder / ARCHITECTURE_FILE, architecture.to_json().encode())
    _write(folder / SOURCE_FILE, source.encode())


def _state(architecture: Architecture, module: nn.Module) -> dict[str, torch.Tensor]:
    """The part of the module's state that the architecture has, on the CPU."""
    state = with_folds(architecture, state_of(module))
    wanted: dict[str, torch.Tensor] = {}
    for layer in architecture.layers:
        shapes = {**layer.param_shapes, **layer.buffer_shapes}
        for role, key in state_keys(layer).items():
            if key not in state and role == "num_batches_tracked":  # the teacher's norm has none
                wanted[key] = torch.tensor(0)
                continue
            if key not in state:
                raise WeightsError(f"the module has no {key!r}, so it is not this architecture's")
            if tuple(state[key].shape) != tuple(shapes[role]):
                raise WeightsError(
                    f"{key!r} has shape {list(state[key].shape)} in the module and {list(shapes[role])} in the architecture"
                )
            wanted[key] = state[key].detach().cpu().clone().contiguous()
    return wanted


def _write(path: Path, content: bytes) -> None:
    """Writes beside the target and renames, so that no reader sees half a file."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        Path(temporary).chmod(0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
