"""Opaque layers in generated source: one method each, one ATen call a line."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from raysearch.architecture.graph import Architecture, Layer
from raysearch.models.build import numbered_names, state_keys
from raysearch.models.layout import access, value_text, wrap
from raysearch.models.programs import replay


def method_names(architecture: Architecture) -> dict[str, str]:
    """Layer name -> the method that computes it; no module or parameter has these names."""
    return numbered_names(architecture, "opaque")


def methods(architecture: Architecture) -> list[str]:
    """The methods of all opaque layers, indented by four spaces."""
    lines: list[str] = []
    for name, method in method_names(architecture).items():
        lines += ["", *_method(architecture[name], method)]
    return lines


def _method(layer: Layer, method: str) -> list[str]:
    slots = [f"x{place}" if place else "x" for place in range(len(layer.inputs))]
    parameters = ("self", *(f"{slot}: torch.Tensor" for slot in slots))
    shape = ", ".join(map(str, layer.shape))
    text = _Text(slots, state_keys(layer))
    result = replay(layer.attrs["program"], text)
    return [
        *wrap(f"    def {method}(", parameters, ") -> torch.Tensor:", 4),
        f'        """{_plain(layer.name)}: [B, {shape}]."""',
        *text.lines,
        f"        return {result}",
    ]


def _plain(name: str) -> str:
    return "".join(c if c.isprintable() and c not in '"\\\\' else "?" for c in name)


class _Code(str):
    """An expression, in contrast to a text."""


class _Text:
    """Writes a program as statements: a backend for `replay`."""

    def __init__(self, slots: Sequence[str], names: Mapping[str, str]) -> None:
        self.slots, self.names = slots, names
        self.lines: list[str] = []
        self.count = 0

    def call(self, function: Callable[..., Any], args: Sequence[Any], kwargs: Any) -> _Code:
        if function is operator.getitem:
            return _Code(f"{args[0]}[{args[1]}]")
        parts = [_written(value) for value in args]
        parts += [_named(key, _written(value)) for key, value in kwargs.items()]
        name = _Code(f"v{self.count}")
        self.count += 1
        self.lines += wrap(f"        {name} = {_function(function)}(", parts, ")", 8)
        return name

    def slot(self, index: int) -> _Code:
        return _Code(self.slots[index])

    def state(self, name: str) -> _Code:
        return _Code(access(self.names[name]))

    def batch(self, factor: int) -> _Code:
        size = f"{self.slots[0]}.shape[0]"
        return _Code(size if factor == 1 else f"{factor} * {size}")

    def dtype(self) -> _Code:
        return _Code(f"{self.slots[0]}.dtype")

    def device(self) -> _Code:
        return _Code(f"{self.slots[0]}.device")


def _function(function: Callable[..., Any]) -> str:
    if isinstance(function, torch._ops.OpOverload):
        return f"torch.ops.{function}"
    return f"torch.{function.__name__}"


def _written(value: Any) -> Any:
    """A value as text, or as a triple that a long line is broken into."""
    if isinstance(value, _Code):
        return str(value)
    if isinstance(value, list):
        return "[", tuple(_written(item) for item in value), "]"
    return str(value) if isinstance(value, torch.dtype) else value_text(value)


def _named(key: str, part: Any) -> Any:
    return f"{key}={part}" if isinstance(part, str) else (f"{key}={part[0]}", *part[1:])
