"""What the nodes of a capture stand for while it is read.

A value is the output of a layer (`Made`), a parameter or buffer (`State`), a small constant, or a *pending* ATen call (`Step`) that no layer
has taken up yet. Pending calls become part of the layer that needs them: of a fold where they depend on the state alone, of an opaque
layer else.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx
from torch.fx.experimental.symbolic_shapes import free_symbols

from raysearch.architecture.programs import DTYPES, MAX_CONSTANT, MAX_DATA
from raysearch.models.programs import encoded


@dataclass(frozen=True, eq=False)
class Made:
    """The output of the layer at a position of the list of all layers; -1 is the input."""

    position: int
    meta: Any


@dataclass(frozen=True, eq=False)
class State:
    """A parameter or buffer of the teacher."""

    name: str
    trainable: bool
    meta: Any


@dataclass(frozen=True, eq=False)
class Constant:
    """A tensor that `forward` makes, or a buffer that the state_dict leaves out."""

    tensor: torch.Tensor
    meta: Any


@dataclass(frozen=True, eq=False)
class Step:
    """A call that is pending; `args` and `kwargs` hold values and `Batch` where the graph has nodes."""

    target: torch._ops.OpOverload
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    meta: Any


@dataclass(frozen=True, eq=False)
class Item:
    """One of the several tensors that a step gives."""

    step: Step
    index: int
    meta: Any


@dataclass(frozen=True)
class Batch:
    """A multiple of the batch size, as an argument."""

    factor: int


Value = Made | State | Constant | Step | Item


class Unreadable(Exception):
    """An argument that no program can hold; the text says why."""


def is_symbolic(size: Any) -> bool:
    """Whether a size depends on the batch size (or on data)."""
    return not isinstance(size, int) and bool(free_symbols(size))


def batch_factor(size: Any, batch: Any) -> int | None:
    """c where a symbolic size is c times the batch size, else None."""
    symbol = batch.node.expr
    quotient = size.node.expr / symbol
    return int(quotient) if quotient.is_Integer and int(quotient) > 0 else None


def parts(value: Value) -> Iterator[Value]:
    """A value and all that it is computed from, each once, sources last."""
    seen: set[int] = set()
    stack: list[Any] = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, list | tuple):
            stack.extend(item)
        elif isinstance(item, Mapping):
            stack.extend(item.values())
        elif isinstance(item, Made | State | Constant | Step | Item) and id(item) not in seen:
            seen.add(id(item))
            yield item
            if isinstance(item, Step):
                stack.extend((item.kwargs, item.args))
            elif isinstance(item, Item):
                stack.append(item.step)


def depends_on_images(value: Value) -> bool:
    """Whether some layer's output is among the sources."""
    return any(isinstance(part, Made) for part in parts(value))


def depends_on_batch(value: Value) -> bool:
    """Whether the batch size is among the arguments."""
    return any(
        _holds_batch((part.args, part.kwargs)) for part in parts(value) if isinstance(part, Step)
    )


def _holds_batch(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return any(map(_holds_batch, value))
    if isinstance(value, Mapping):
        return any(map(_holds_batch, value.values()))
    return isinstance(value, Batch)


def is_fixed(value: Value) -> bool:
    """Whether a value depends on the state and on constants alone."""
    return not depends_on_images(value) and not depends_on_batch(value)


def is_trainable(value: Value) -> bool:
    """Whether a parameter is among the sources."""
    return any(isinstance(part, State) and part.trainable for part in parts(value))


def read(argument: Any, values: Mapping[fx.Node, Value], batch: Any) -> Any:
    """An argument of a node with values for nodes.

    Raises:
        Unreadable: it holds a number that is computed from data, or an object that JSON lacks.
    """
    if isinstance(argument, list | tuple):
        return [read(item, values, batch) for item in argument]
    if isinstance(argument, fx.Node):
        if argument in values:
            return values[argument]
        size = argument.meta.get("val")
        if isinstance(size, int | float | bool):
            return size
        factor = batch_factor(size, batch) if isinstance(size, torch.SymInt) else None
        if factor is None:
            raise Unreadable("computes with a number that is taken from data or the batch size")
        return Batch(factor)
    if isinstance(argument, torch.layout | torch.memory_format):
        return None
    plain = argument is None or isinstance(argument, bool | int | float | str)
    if not plain and not isinstance(argument, torch.dtype | torch.device):
        raise Unreadable(f"has an argument of type {type(argument).__name__}")
    return argument


def program_of(
    value: Value,
    slot: Callable[[Made], int],
    state: Callable[[State | Constant], str],
    precision: torch.dtype | None,
) -> dict[str, Any]:
    """The program that computes a value.

    Args:
        value: what the program gives.
        slot: the number of an input slot.
        state: the name of a state in the program, or of a constant that is too large to be written as numbers; "" where it has none.
        precision: of the images, written as "input"; None: written by name.

    Raises:
        Unreadable: something that JSON cannot hold.
    """
    steps: list[list[Any]] = []
    place: dict[int, int] = {}

    def operand(item: Any) -> Any:
        if isinstance(item, list | tuple):
            return [operand(part) for part in item]
        if isinstance(item, Made):
            return {"slot": slot(item)}
        if isinstance(item, State):
            return {"state": state(item)}
        if isinstance(item, Constant):
            name = state(item) if MAX_CONSTANT < item.tensor.numel() <= MAX_DATA else ""
            return {"state": name} if name else _constant(item.tensor)
        if isinstance(item, Item):
            return {"step": place[id(item.step)], "item": item.index}
        if isinstance(item, Step):
            return {"step": place[id(item)]}
        if isinstance(item, Batch):
            return {"batch": item.factor}
        if isinstance(item, torch.device):
            return {"device": "input"}
        if isinstance(item, torch.dtype):
            return {"dtype": "input" if item == precision else _word(item)}
        if isinstance(item, float) and math.isnan(item):
            raise Unreadable("has the argument NaN")
        return item

    for step in _ordered(value):
        kwargs = {k: operand(v) for k, v in step.kwargs.items() if v is not None}
        steps.append([str(step.target), operand(step.args), kwargs])
        place[id(step)] = len(steps) - 1
    return {"steps": steps, "result": operand(value)}


def _ordered(value: Value) -> list[Step]:
    """The steps of a value, each after those that it reads."""
    order: list[Step] = []
    entered: set[int] = set()
    stack: list[tuple[Any, bool]] = [(value, False)]
    while stack:
        item, leave = stack.pop()
        if leave:
            order.append(item)
        elif isinstance(item, list | tuple):
            stack.extend((part, False) for part in reversed(item))
        elif isinstance(item, Mapping):
            stack.extend((part, False) for part in item.values())
        elif isinstance(item, Item):
            stack.append((item.step, False))
        elif isinstance(item, Step) and id(item) not in entered:
            entered.add(id(item))
            stack.extend(((item, True), (item.kwargs, False), (item.args, False)))
    return order


def _constant(tensor: torch.Tensor) -> dict[str, Any]:
    shape, dtype = list(tensor.shape), _word(tensor.dtype)
    if tensor.numel() > MAX_DATA:
        raise Unreadable(
            f"computes with a constant of {tensor.numel()} numbers that forward makes; register it as a buffer of the module"
        )
    if tensor.numel() > MAX_CONSTANT:
        return {"data": encoded(tensor), "shape": shape, "dtype": dtype}
    numbers = tensor.detach().cpu().reshape(-1).tolist()
    if any(isinstance(number, complex) or number != number for number in numbers):
        raise Unreadable("computes with a constant that is complex or NaN")
    return {"tensor": numbers, "shape": shape, "dtype": dtype}


def _word(dtype: torch.dtype) -> str:
    word = str(dtype).removeprefix("torch.")
    if word not in DTYPES:
        raise Unreadable(f"computes in {dtype}")
    return word
