"""Parameters and buffers by name: what a teacher has, what is folded from it, and where a student's stand in its module tree."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from typing import Any

import torch
from torch import fx, nn

from raysearch.architecture.graph import Architecture, Layer
from raysearch.architecture.programs import operands
from raysearch.errors import InputError, InvalidArchitecture, WeightsError
from raysearch.models.programs import fold
from raysearch.models.rehearsal import rehearse_fold
from raysearch.models.wrappers import unwrap

State = Mapping[str, torch.Tensor]

_ONES = frozenset({"mul", "div", "pow"})
_TAKEN = frozenset({*dir(fx.GraphModule), *vars(fx.GraphModule({}, fx.Graph()))}) - {
    *dir(nn.Module),
    *vars(nn.Module()),
}
"""Names that the built module has for itself."""


def state_of(source: nn.Module | State | None) -> State:
    """The state to inherit from; of a module also the buffers that its state_dict leaves out."""
    if source is None:
        return {}
    if not isinstance(source, nn.Module):
        given = source.values() if isinstance(source, Mapping) else [source]
        wrong = [value for value in given if not isinstance(value, torch.Tensor)]
        if wrong or not isinstance(source, Mapping):
            raise WeightsError(
                f"the weights to inherit from hold {type(wrong[0]).__name__}, but a module or its state_dict (name -> tensor) "
                "is needed"
            )
        return source
    module = unwrap(source)
    return {**dict(module.named_buffers()), **module.state_dict(keep_vars=False)}


def with_folds(architecture: Architecture, state: State) -> State:
    """The state and the folded weights that it does not hold yet.

    Raises:
        WeightsError: it lacks what they are computed from.
    """
    found = dict(state)
    for layer in architecture.layers:
        for role, program in layer.attrs.get("folds", {}).items():
            key = layer.params.get(role, f"{layer.name}.{role}")
            if key not in found:
                found[key] = _folded(layer, role, key, program, state)
    return found


def _folded(
    layer: Layer, role: str, key: str, program: Mapping[str, Any], state: State
) -> torch.Tensor:
    where = f"layer {layer.name[:80]!r}: attrs.folds.{role}"
    names = dict.fromkeys(operands(program, "state"))
    if all(name in state for name in names):  # else `fold` says what is missing
        rehearse_fold(where, program, {name: state[name] for name in names})
    try:
        found = fold(key, program, state)
    except (RuntimeError, IndexError, ValueError, TypeError) as error:
        if isinstance(error, InputError):
            raise
        why = next(iter(str(error).splitlines()), "")[:200]
        raise InvalidArchitecture(f"{where} cannot run: {type(error).__name__}: {why}") from error
    wanted = {**layer.param_shapes, **layer.buffer_shapes}.get(role, ())
    if found.ndim != len(wanted):
        raise InvalidArchitecture(
            f"{where} gives a tensor of shape {list(found.shape)} for {list(wanted)}"
        )
    return found


def constants(architecture: Architecture) -> dict[str, torch.Tensor]:
    """The folded states that depend on no state at all: they have their values without a teacher, too."""
    found: dict[str, torch.Tensor] = {}
    for layer in architecture.layers:
        for role, program in layer.attrs.get("folds", {}).items():
            if not any(True for _ in operands(program, "state")):
                key = layer.params.get(role, f"{layer.name}.{role}")
                found[key] = _folded(layer, role, key, program, {})
    return found


def fresh(layer: Layer, role: str) -> torch.Tensor:
    """A new parameter or buffer of a layer that no standard module computes."""
    try:
        return _fresh(layer, role)
    except (MemoryError, RuntimeError) as error:
        shape = {**layer.param_shapes, **layer.buffer_shapes}[role]
        raise InvalidArchitecture(
            f"layer {layer.name[:80]!r}: {role} of {list(shape)} does not fit into the memory"
        ) from error


def _fresh(layer: Layer, role: str) -> torch.Tensor:
    dtype = getattr(torch, layer.attrs.get("dtypes", {}).get(role, "float32"))
    if role not in layer.param_shapes:
        return torch.zeros(layer.buffer_shapes[role], dtype=dtype)
    shape = layer.param_shapes[role]
    values = torch.zeros(shape, dtype=dtype)
    if layer.op == "param_binary":
        values += layer.attrs["fn"] in _ONES
    elif len(shape) > 1:
        nn.init.kaiming_uniform_(values, a=5**0.5)
    else:
        values += 1
    return nn.Parameter(values)


def at(root: nn.Module, path: str) -> object:
    """What stands at a dotted path; None where nothing does."""
    value: object = root
    for part in path.split("."):
        value = getattr(value, part, None)
    return value


def place(root: nn.Module, path: str, value: nn.Module | torch.Tensor) -> None:
    """Sets a module, parameter or buffer at a dotted path; what is missing on the way is made."""
    *parents, last = _checked_parts(path)
    owner = root
    for part in parents:
        if part not in owner._modules:
            _check_free(owner, part, path)
            owner.add_module(part, nn.Module())
        owner = owner.get_submodule(part)
    if last not in owner._modules or not isinstance(value, nn.Module):
        _check_free(owner, last, path)
    if isinstance(value, torch.Tensor) and not isinstance(value, nn.Parameter):
        owner.register_buffer(last, value)
        return
    former = owner._modules.get(last)
    if former is not None and isinstance(value, nn.Module):  # keeps what already stands below it
        for name, child in {**former._modules, **former._parameters}.items():
            if not hasattr(value, name):
                setattr(value, name, child)
        for name, buffer in former._buffers.items():
            if not hasattr(value, name):
                value.register_buffer(name, buffer)
    setattr(owner, last, value)


def as_buffers(module: nn.Module, roles: tuple[str, ...]) -> None:
    """Makes parameters of a module buffers: they are state that is not trained."""
    for role in roles:
        values = getattr(module, role).detach()
        delattr(module, role)
        module.register_buffer(role, values)


def _check_free(owner: nn.Module, name: str, path: str) -> None:
    """Refuses a name that something else has."""
    if hasattr(owner, name):
        raise InvalidArchitecture(
            f"{name!r} in the name {path!r} is taken by a module, or by torch itself"
        )


def _checked_parts(path: str) -> list[str]:
    """The names on a path; `torch.fx` writes them into code as they stand."""
    parts = path.split(".")
    if parts[0] in _TAKEN:
        raise InvalidArchitecture(
            f"{parts[0]!r} in the name {path!r} is taken by torch.fx; give the module another name"
        )
    for part in parts:
        same = unicodedata.normalize("NFKC", part) == part  # Python's parser reads names so
        if not part or not same or not part.isprintable() or set(part) & set('"\\'):
            raise InvalidArchitecture(f"{part!r} in the name {path!r} cannot name a module")
    return parts
