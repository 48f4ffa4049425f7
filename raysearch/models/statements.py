"""The statements of a generated `forward`: one a layer, with few and reused variables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from raysearch.architecture.graph import Architecture, Layer
from raysearch.models.build import module_path, numbered_names, standard_modules, state_keys
from raysearch.models.calls import function_call, module_call, weighted_call
from raysearch.models.layout import access, arguments, value_text, wrap
from raysearch.models.opaque import method_names

_INFIX = {"torch.add": "+", "torch.sub": "-", "torch.mul": "*", "torch.div": "/"}
_VARIABLES = ("x", "y", "z", "u", "v", "w")


@dataclass
class _Variables:
    """Names for values; a name is free again after its value's last use."""

    last_use: Mapping[str, int]
    of: dict[str, str] = field(default_factory=dict)
    free: list[str] = field(default_factory=list)
    count: int = 0

    def assign(self, value: str, used: Sequence[str], step: int) -> str:
        """A name for `value`: that of an operand that is not needed any more, else a free one."""
        ended = [v for v in dict.fromkeys(used) if self.last_use[v] == step and v in self.of]
        released = [self.of.pop(v) for v in ended]
        if released:
            name, *rest = released
            self.free += rest
        elif self.free:
            name = self.free.pop()
        else:
            name = self._new()
        self.of[value] = name
        return name

    def _new(self) -> str:
        self.count += 1
        if self.count <= len(_VARIABLES):
            return _VARIABLES[self.count - 1]
        return f"x{self.count - len(_VARIABLES)}"


@dataclass(frozen=True)
class _Step:
    """One statement: value = layer(slots), or a sum of two values where `layer` is None."""

    value: str
    slots: tuple[tuple[str, ...], ...]
    layer: Layer | None


def forward_lines(architecture: Architecture) -> list[str]:
    """The body of `forward(self, x)`, indented by eight spaces."""
    steps = list(_steps(architecture))
    output = steps.pop().slots[0]
    last_use: dict[str, int] = {}
    for position, step in enumerate(steps):
        last_use[step.value] = position
        last_use |= {value: position for slot in step.slots for value in slot}
    last_use |= dict.fromkeys(output, len(steps))
    variables = _Variables(last_use)
    calls = _module_calls(architecture)
    lines: list[str] = []
    for position, step in enumerate(steps):
        if step.layer is not None and step.layer.op == "input":
            variables.assign(step.value, (), position)
            continue
        operands = [" + ".join(variables.of[value] for value in slot) for slot in step.slots]
        used = [value for slot in step.slots for value in slot]
        head, parts, tail = _expression(step.layer, operands, calls)
        if output == (step.value,) and position == len(steps) - 1:
            return [*lines, *wrap(f"        return {head}", parts, tail, 8)]
        name = variables.assign(step.value, used, position)
        lines += wrap(f"        {name} = {head}", parts, tail, 8)
    return [*lines, f"        return {' + '.join(variables.of[value] for value in output)}"]


def _steps(architecture: Architecture) -> Iterator[_Step]:
    """The layers that compute something, then the output; longer sums are split into sums of two."""
    alias: dict[str, tuple[str, ...]] = {}
    for layer in architecture.layers:
        slots = []
        for index, slot in enumerate(layer.inputs):
            values = tuple(value for name in slot for value in alias[name])
            while len(values) > 2:
                total = f"{layer.name}:{index}:{len(values)}"
                yield _Step(total, (values[:1], values[1:2]), None)
                values = (total, *values[2:])
            slots.append(values)
        if layer.op != "identity":
            yield _Step(layer.name, tuple(slots), layer)
            alias[layer.name] = (layer.name,)
        elif len(slots[0]) == 1:
            alias[layer.name] = slots[0]
        else:  # a named sum, computed once
            yield _Step(layer.name, tuple((value,) for value in slots[0]), None)
            alias[layer.name] = (layer.name,)
    yield _Step("output", (alias[architecture.output],), None)


Expression = tuple[str, Sequence[Any], str]
"""What stands before, between and after the parts that a long line is broken into."""


def _expression(
    layer: Layer | None, operands: Sequence[str], calls: Mapping[str, str]
) -> Expression:
    if layer is None or layer.op == "add":
        return " + ".join(_atom(operand) for operand in operands), (), ""
    if layer.op == "param_binary":
        weight = access(state_keys(layer)["weight"])
        operands = [weight, *operands] if layer.attrs["reverse"] else [*operands, weight]
    if layer.name in calls:
        return f"{calls[layer.name]}(", tuple(operands), ")"
    call = module_call(layer)
    if call is not None:
        return _weighted(layer, operands)
    call = function_call(layer)
    infix = _INFIX.get(call.function)
    if infix and len(operands) + len(call.args) == 2 and not call.kwargs:
        parts = [*map(_atom, operands), *map(value_text, call.args)]
        return f" {infix} ".join(parts), (), ""
    if call.function == "operator.getitem":
        return f"{_atom(operands[0])}[", tuple(map(_place_text, call.args[0])), "]"
    tensors = (("(", tuple(operands), ")"),) if call.packed else tuple(operands)
    tail = f").{call.method}()" if call.method else ")"
    return f"{call.function}(", (*tensors, *arguments(call)), tail


def _place_text(place: slice) -> str:
    """What stands between the brackets for one axis."""
    ends = ("" if end is None else str(end) for end in (place.start, place.stop))
    return ":".join([*ends, *([] if place.step is None else [str(place.step)])])


def _weighted(layer: Layer, operands: Sequence[str]) -> Expression:
    call = weighted_call(layer)
    keys = state_keys(layer)
    weights = [access(keys[role]) if role in keys else "None" for role in ("weight", "bias")]
    return f"{call.function}(", (*operands, *weights, *arguments(call)), ")"


def _module_calls(architecture: Architecture) -> dict[str, str]:
    """Layer name -> the expression of the module or method that computes it."""
    modules = standard_modules(architecture)
    names = {**method_names(architecture), **numbered_names(architecture, "gather")}
    calls = {name: f"self.{own}" for name, own in names.items()}
    for layer in architecture.layers:
        call, path = module_call(layer), module_path(layer)
        if call is not None and path is not None and modules[path] == call:
            calls[layer.name] = access(path)
    return calls


def _atom(operand: str) -> str:
    return f"({operand})" if " + " in operand else operand
