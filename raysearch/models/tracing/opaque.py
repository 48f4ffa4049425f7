"""Opaque layers: pending calls that no rule understands, made into programs that are replayed verbatim."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx
from torch.utils.flop_counter import FlopCounterMode

from raysearch.architecture.ops import Shape
from raysearch.errors import InvalidArchitecture
from raysearch.models.programs import Tensors, overload, replay
from raysearch.models.tracing.rules import Call
from raysearch.models.tracing.values import (
    Batch,
    Constant,
    Made,
    State,
    Step,
    Unreadable,
    Value,
    is_symbolic,
    is_trainable,
    program_of,
    read,
)

_RANDOM = re.compile(
    r"(rand|bernoulli|multinomial|poisson|normal$|uniform|exponential|geometric|cauchy)"
)
_MOVES = frozenset(
    {
        "transpose",
        "permute",
        "movedim",
        "moveaxis",
        "swapaxes",
        "unsqueeze",
        "squeeze",
        "stack",
        "flatten",
        "unflatten",
    }
)
"""Operations that may name the batch axis without joining images."""
_DROPPED = frozenset({"layout", "pin_memory", "memory_format"})


@dataclass(frozen=True)
class Pending:
    """A value that becomes an opaque layer.

    Attributes:
        value: a tensor [B, *shape] in the precision of the images.
        precision: that precision.
        shape_of: the shape of a layer's output, without the batch.
    """

    value: Value
    precision: torch.dtype
    shape_of: Callable[[Made], Shape]


@dataclass(frozen=True)
class OpaqueDraft:
    """The attributes of an opaque layer, its inputs' positions, and what its roles read."""

    attrs: Mapping[str, Any]
    producers: tuple[int, ...]
    states: Mapping[str, State | Constant]


def pending_step(call: Call, values: Mapping[fx.Node, Value], images: Any, *, moving: bool) -> Step:
    """The call as a pending value.

    Args:
        call: any ATen call of tensors.
        values: what the nodes before it stand for.
        images: describes the batch of images.
        moving: the call depends on the images.

    Raises:
        UnsupportedTeacher: the call joins the images of a batch, or is random.
        Unreadable: it cannot be written down.
    """
    if _RANDOM.match(call.name):
        raise call.refuse("is random, so its logits cannot be reproduced")
    if moving:
        _refuse_joined(call, images)
    if call.name == "copy":
        return _copied(call, values, images)
    target = _replayed(call)
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    for argument in target._schema.arguments:
        name = "size" if argument.name == "shape" and "size" in call.args else argument.name
        value = read(call.args.get(name), values, images.shape[0])
        if _counts_images(value) and "int" not in str(argument.type).lower():
            raise Unreadable("computes with the batch size")
        if argument.name in _DROPPED:
            value = None
        if argument.kwarg_only:
            kwargs[argument.name] = value
        else:
            args.append(value)
    while args and _is_default(target._schema.arguments[len(args) - 1], args[-1]):
        args.pop()
    return Step(target, tuple(args), kwargs, call.node.meta["val"])


def _copied(call: Call, values: Mapping[fx.Node, Value], images: Any) -> Step:
    """What `x.copy_(y)` leaves in x; ATen's own function has no gradient."""
    there, source = (call.args[name] for name in ("self", "src"))
    meta = call.node.meta["val"]
    found = read(source, values, images.shape[0])
    if source.meta["val"].dtype != meta.dtype:
        found = Step(
            torch.ops.aten.to.dtype, (found, meta.dtype), {}, source.meta["val"].to(meta.dtype)
        )
    return Step(torch.ops.aten.expand_as.default, (found, values[there]), {}, meta)


def _replayed(call: Call) -> torch._ops.OpOverload:
    """The overload that is written down; views become reshapes, which do not depend on the order in memory."""
    if call.name in ("view", "_unsafe_view") and "size" in call.args:
        return torch.ops.aten.reshape.default
    keeps = call.args.get("memory_format") in (None, torch.preserve_format)
    if call.name == "contiguous" or (call.name == "clone" and not keeps):
        return torch.ops.aten.contiguous.default
    return _functional(call)


def _is_default(argument: Any, value: Any) -> bool:
    if isinstance(value, Made | State | Step | Batch) or not argument.has_default_value():
        return False
    return type(value) is type(argument.default_value) and value == argument.default_value


def _counts_images(value: Any) -> bool:
    if isinstance(value, list):
        return any(map(_counts_images, value))
    return isinstance(value, Batch)


def _functional(call: Call) -> torch._ops.OpOverload:
    """The overload without side effects."""
    target: Any = call.node.target
    if target._schema.name.endswith("_"):
        variant = target._schema.overload_name or "default"
        packet = getattr(torch.ops.aten, call.name, None)
        target = getattr(packet, variant, target)
    try:
        return overload(str(target))
    except InvalidArchitecture as error:
        raise Unreadable(f"cannot be replayed: {error}") from error


def _refuse_joined(call: Call, images: Any) -> None:
    """Refuses what joins the images of a batch where shapes and axes show it; the proof on numbers finds the rest."""
    found = call.node.meta["val"]
    outputs = [found] if isinstance(found, torch.Tensor) else list(found)
    if not any(is_symbolic(size) for tensor in outputs for size in getattr(tensor, "shape", ())):
        raise call.refuse("moves values across the batch axis")
    first = next((v for v in call.args.values() if isinstance(v, fx.Node)), None)
    shape = getattr(first.meta.get("val"), "shape", ()) if first is not None else ()
    for name in ("dim", "dims", "axis"):
        dims = call.args.get(name)
        for dim in dims if isinstance(dims, list | tuple) else [dims]:
            if (
                call.name in _MOVES
                or not isinstance(dim, int)
                or not -len(shape) <= dim < len(shape)
            ):
                continue
            if is_symbolic(shape[dim]) and not _takes_all(call):
                raise call.refuse(
                    "acts on the batch axis, so the images of a batch are not independent"
                )


def _takes_all(call: Call) -> bool:
    """A slice of the whole axis, as `x[:, 0]` writes it."""
    whole = (call.args.get("start") or 0) == 0 and call.args.get("step", 1) == 1
    return call.name == "slice" and whole and (call.args.get("end") or 2**62) >= 2**62


def opaque_draft(pending: Pending, tensors: Mapping[str, torch.Tensor]) -> OpaqueDraft:
    """The layer that computes a pending value.

    Args:
        pending: the value.
        tensors: the teacher's parameters and buffers.

    Raises:
        Unreadable: it holds what JSON cannot.
    """
    slots: dict[int, Made] = {}
    states: dict[str, State | Constant] = {}

    def slot(made: Made) -> int:
        slots.setdefault(made.position, made)
        return list(slots).index(made.position)

    def state(found: State | Constant) -> str:
        for role, known in states.items():
            if _identity(known) == _identity(found):
                return role
        states[f"state_{len(states)}"] = found
        return f"state_{len(states) - 1}"

    program = program_of(pending.value, slot, state, pending.precision)
    in_shapes = [list(pending.shape_of(made)) for made in slots.values()]
    held = {
        role: found.tensor if isinstance(found, Constant) else tensors[found.name].detach()
        for role, found in states.items()
    }
    macs, view = _measure(program, in_shapes, held, pending)
    shapes = {role: list(tensor.shape) for role, tensor in held.items()}
    attrs = {
        "program": program,
        "in_shapes": in_shapes,
        "out_shape": [int(size) for size in pending.value.meta.shape[1:]],
        "macs": macs,
        "params": {role: shapes[role] for role, found in states.items() if is_trainable(found)},
        "buffers": {
            role: shapes[role] for role, found in states.items() if not is_trainable(found)
        },
        "dtypes": {
            role: str(tensor.dtype).removeprefix("torch.")
            for role, tensor in held.items()
            if not tensor.is_floating_point()
        },
        "view": view,
    }
    return OpaqueDraft(attrs, tuple(slots), states)


def _identity(state: State | Constant) -> str | int:
    return state.name if isinstance(state, State) else id(state.tensor)


def _measure(
    program: Mapping[str, Any],
    in_shapes: list[list[int]],
    states: Mapping[str, torch.Tensor],
    pending: Pending,
) -> tuple[int, bool]:
    """Multiply-accumulates of one input, and whether the result shares the first input's memory: by running it once."""
    device = next((tensor.device for tensor in states.values()), torch.device("cpu"))
    slots = [torch.zeros(1, *shape, dtype=pending.precision, device=device) for shape in in_shapes]
    counter = FlopCounterMode(display=False)
    with torch.no_grad():
        found = replay(program, Tensors(slots, states))
        if _may_multiply(program):
            with counter:
                replay(program, Tensors(slots, states))
    view = found.untyped_storage().data_ptr() == slots[0].untyped_storage().data_ptr()
    return counter.get_total_flops() // 2, view


def _may_multiply(program: Mapping[str, Any]) -> bool:
    return any(_PRODUCTS.search(target) for target, _, _ in program["steps"])


_PRODUCTS = re.compile(
    r"conv|mm|matmul|linear|einsum|dot|attention|lstm|gru|rnn|attn|inner|bilinear|chain"
)
