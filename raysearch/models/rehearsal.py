"""Programs rehearsed before they run: on tensors that have a shape and a precision but no memory.

A program may come from a file that anybody wrote. What would fail, or take more memory than any network needs, is refused where the
network is built, with the layer's name, and not by torch in the middle of a run.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.utils._pytree import tree_leaves

from raysearch.architecture.graph import Layer
from raysearch.architecture.ops import Shape
from raysearch.errors import InvalidArchitecture
from raysearch.models.programs import Tensors, replay

MAX_NUMBERS = 2**31
"""Numbers that all steps of a program together may make."""
MAX_TAKEN = 10_000
_BATCH = 2
_TAKEN: set[bytes] = set()
"""What went well before."""


class _Rehearsal(Tensors):
    """Runs a program on the meta device and counts the numbers that it makes."""

    def __init__(self, slots: Sequence[torch.Tensor], states: Mapping[str, torch.Tensor]) -> None:
        super().__init__(slots, states)
        self.numbers = 0

    def call(self, function: Callable[..., Any], args: Sequence[Any], kwargs: Any) -> Any:
        found = function(*args, **kwargs)
        if isinstance(function, torch._ops.OpOverload) and not function.is_view:
            made = (leaf for leaf in tree_leaves(found) if isinstance(leaf, torch.Tensor))
            self.numbers += sum(tensor.numel() for tensor in made)
            if self.numbers > MAX_NUMBERS:
                raise InvalidArchitecture(f"{function} makes more than {MAX_NUMBERS:,} numbers")
        return found

    def device(self) -> torch.device:
        return torch.device("meta")


def rehearse(layer: Layer) -> None:
    """Runs an opaque layer's program without memory.

    Raises:
        InvalidArchitecture: it fails, makes too much, or does not give what the layer's shape says.
    """
    attrs = layer.attrs
    key = _key("opaque", [{**attrs}, layer.shape])
    if key in _TAKEN:
        return
    slots = [_empty((_BATCH, *shape)) for shape in attrs["in_shapes"]]
    shapes = {**layer.param_shapes, **layer.buffer_shapes}
    states = {role: _empty(shape, attrs["dtypes"].get(role)) for role, shape in shapes.items()}
    where = f"layer {layer.name[:80]!r}: attrs.program"
    found = _run(attrs["program"], slots, states, where)
    if found is not None and tuple(found.shape) != (_BATCH, *layer.shape):
        raise InvalidArchitecture(
            f"{where} gives {list(found.shape)} for a batch of {_BATCH}, but the shape is {list(layer.shape)}"
        )
    _keep(key)


def rehearse_unary(layer: Layer, function: Callable[..., Any]) -> None:
    """Calls a function of one tensor with the arguments of its layer.

    Raises:
        InvalidArchitecture: it does not take them.
    """
    args, kwargs = layer.attrs["args"], layer.attrs["kwargs"]
    key = _key(layer.attrs["fn"], [args, {**kwargs}])
    if key in _TAKEN:
        return
    try:
        # real numbers: functions on the meta device would import torch's compiler, a second for each process
        function(torch.zeros(_BATCH), *args, **kwargs)
    except NotImplementedError:
        pass
    except Exception as error:  # as in `_run`
        raise InvalidArchitecture(
            f"layer {layer.name[:80]!r}: attrs.args and attrs.kwargs do not fit {layer.attrs['fn']}: {_reason(error)}"
        ) from error
    _keep(key)


def rehearse_fold(
    where: str, program: Mapping[str, Any], states: Mapping[str, torch.Tensor]
) -> None:
    """The same for a folded weight, whose program reads states alone."""
    _run(program, (), {name: tensor.to("meta") for name, tensor in states.items()}, where)


def _run(
    program: Mapping[str, Any],
    slots: Sequence[torch.Tensor],
    states: Mapping[str, torch.Tensor],
    where: str,
) -> torch.Tensor | None:
    """The result; None where an operation's shape depends on values, so that it cannot be rehearsed."""
    try:
        with torch.no_grad():
            found = replay(program, _Rehearsal(slots, states))
    except InvalidArchitecture as error:
        raise InvalidArchitecture(f"{where}: {error}") from error
    except NotImplementedError:
        return None
    except Exception as error:  # torch raises anything for arguments that do not fit
        raise InvalidArchitecture(f"{where} cannot run: {_reason(error)}") from error
    if not isinstance(found, torch.Tensor) or not found.is_floating_point():
        raise InvalidArchitecture(f"{where} gives no tensor of floating-point numbers")
    return found


def _reason(error: Exception) -> str:
    text = next(iter(str(error).splitlines()), "")[:200]
    return f"{type(error).__name__}: {text}"


def _key(kind: str, content: Any) -> bytes:
    text = kind + json.dumps(
        content, default=lambda value: dict(value) if isinstance(value, Mapping) else list(value)
    )
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def _keep(key: bytes) -> None:
    if len(_TAKEN) < MAX_TAKEN:
        _TAKEN.add(key)


def _empty(shape: Shape, dtype: str | None = None) -> torch.Tensor:
    return torch.empty(shape, device="meta", dtype=getattr(torch, dtype or "float32"))
