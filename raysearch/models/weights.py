"""Weights files: safetensors, or torch's own format with `weights_only=True`. No file is ever unpickled freely."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from raysearch.architecture.graph import Architecture
from raysearch.architecture.ops import Shape
from raysearch.errors import WeightsError
from raysearch.models.build import state_keys

_WRAPPERS = ("state_dict", "model_state_dict", "model", "weights")
_PREFIXES = ("module.", "_orig_mod.")


def load_weights(path: str | Path) -> dict[str, torch.Tensor]:
    """Reads a state_dict: safetensors, or what `torch.save(module.state_dict(), path)` wrote.

    A checkpoint that holds the weights under "state_dict" or "model", and the prefixes of data-parallel and compiled modules, are
    understood.

    Raises:
        WeightsError: the file is missing, unreadable, a whole pickled module, not a state_dict, or holds tensors that are not plain.
    """
    path = Path(path)
    if not path.is_file():
        found = "a folder" if path.is_dir() else "no such file"
        raise WeightsError(
            f"teacher.weights: {str(path)!r} is {found}; give a .safetensors or .pt file"
        )
    content = _read(path)
    for wrapper in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
            break
    state = _checked_state(path, content)
    for prefix in _PREFIXES:
        if state and all(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): tensor for key, tensor in state.items()}
    return state


def apply_weights(module: nn.Module, state: Mapping[str, torch.Tensor], source: str) -> None:
    """Copies a state_dict into a module that it fits exactly.

    Raises:
        WeightsError: with the first tensor that is missing, unexpected, of another shape, or no floating-point numbers where the module
            has them.
    """
    own = module.state_dict()
    for key, tensor in own.items():
        if key not in state and not key.endswith("num_batches_tracked"):
            raise WeightsError(_missing(source, key, own, state))
        if key in state and state[key].shape != tensor.shape:
            raise WeightsError(
                f"teacher.weights: {source} holds {key!r} of shape {list(state[key].shape)}, but the teacher's is "
                f"{list(tensor.shape)}; use weights trained for this model, number of classes and image channels"
            )
        if key in state and tensor.is_floating_point() and not state[key].is_floating_point():
            raise WeightsError(
                f"teacher.weights: {source} holds {key!r} of type {_type(state[key])}, but the teacher's is {_type(tensor)}; "
                "save floating-point weights"
            )
    for key in state:
        if key not in own:
            raise WeightsError(
                f"teacher.weights: {source} holds {key!r}, which the teacher does not have; "
                "check that teacher.model is the network that these weights were saved from"
            )
    module.load_state_dict({**own, **state})


def misfits(
    architecture: Architecture, state: Mapping[str, torch.Tensor]
) -> Iterator[tuple[str, Shape | None, Shape]]:
    """What of an architecture's state is not there or has another shape: (name, shape found or None, shape wanted)."""
    for layer in architecture.layers:
        wanted = {**layer.param_shapes, **layer.buffer_shapes}
        for role, key in state_keys(layer).items():
            found = tuple(state[key].shape) if key in state else None
            if found != tuple(wanted[role]):
                yield key, found, tuple(wanted[role])


def _missing(
    source: str, key: str, own: Mapping[str, torch.Tensor], state: Mapping[str, torch.Tensor]
) -> str:
    shape = list(own[key].shape)
    extra = next((k for k in state if k not in own), None)
    hint = f" (it holds {extra!r}, which the teacher does not have)" if extra else ""
    return (
        f"teacher.weights: {source} has no {key!r} {shape}{hint}; "
        "check that teacher.model is the network that these weights were saved from"
    )


def _read(path: Path) -> Any:
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise WeightsError(
                f"teacher.weights: {str(path)!r} is not a readable safetensors file: {error}"
            ) from error
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a file of garbage raises anything; it is re-raised as our own
        if "Unsupported global" in str(error) or "Unsupported class" in str(error):
            raise WeightsError(
                f"teacher.weights: {str(path)!r} is a pickled object, not a plain state_dict, and pickles are never loaded; "
                "save it with torch.save(module.state_dict(), path)"
            ) from error
        raise WeightsError(
            f"teacher.weights: {str(path)!r} is not a readable weights file ({type(error).__name__}); "
            "give a .safetensors file or a state_dict saved by torch"
        ) from error


def _special(tensor: torch.Tensor) -> str:
    """What a tensor is that cannot be copied into a parameter; "" of a plain one."""
    if tensor.is_meta:
        return "a tensor on the meta device, which has no values"
    if tensor.is_quantized:
        return "a quantised tensor"
    return "" if tensor.layout is torch.strided else "a sparse tensor"


def _type(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _checked_state(path: Path, content: Any) -> dict[str, torch.Tensor]:
    if not isinstance(content, Mapping):
        raise WeightsError(
            f"teacher.weights: {str(path)!r} holds {type(content).__name__}, but a state_dict (name -> tensor) is needed"
        )
    for key, value in content.items():
        if not isinstance(key, str) or not isinstance(value, torch.Tensor):
            raise WeightsError(
                f"teacher.weights: entry {key!r} of {str(path)!r} is {type(value).__name__}, but a state_dict (name -> tensor) "
                "is needed; save it with torch.save(module.state_dict(), path)"
            )
        if kind := _special(value):
            raise WeightsError(
                f"teacher.weights: entry {key!r} of {str(path)!r} is {kind}; save plain dense tensors with their values"
            )
    if not content:
        raise WeightsError(f"teacher.weights: {str(path)!r} holds no tensors")
    return dict(content)
