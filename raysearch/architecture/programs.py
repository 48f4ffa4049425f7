"""Programs: short sequences of ATen calls that are replayed verbatim, as JSON.

They are what an `opaque` layer computes, and how a *folded* weight is computed from the teacher's state (`attrs.folds`).

    {"steps": [[target, [args...], {kwargs...}], ...], "result": operand}

A target is the name of an ATen overload ("aten.bmm.default"). Arguments are JSON values, lists of them, or operands:

    {"slot": i}             the i-th input [B, *shape]
    {"state": name}         a parameter or buffer (an opaque layer's role; in a fold, a name in the teacher's state)
    {"step": i}             what an earlier step gave; with "item": k, the k-th of several tensors
    {"batch": c}            c times the batch size
    {"dtype": word}         a precision; "input": that of the first slot
    {"device": "input"}     the device of the first slot (or state)
    {"tensor": [...], "shape": [...], "dtype": word}    a small constant
    {"data": [text...], "shape": [...], "dtype": word}  a larger one: base64 of its bytes, little endian, in pieces

This module checks the form alone; which targets may run is decided where they run (`raysearch.models.programs`).
"""

from __future__ import annotations

import keyword
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

MAX_STEPS = 2000
MAX_CONSTANT = 4096
MAX_DATA = 2**20
"""Numbers of a constant that is written as bytes."""
PIECE = 1000
DTYPES = (
    "float32",
    "float64",
    "float16",
    "bfloat16",
    "int64",
    "int32",
    "int16",
    "int8",
    "uint8",
    "bool",
    "complex64",
)
_TARGET = re.compile(r"aten\.[A-Za-z_][A-Za-z0-9_]{0,80}\.[A-Za-z_][A-Za-z0-9_]{0,80}")
_OPERANDS = ("tensor", "data", "slot", "state", "step", "batch", "dtype", "device")


def check_program(program: Any) -> str:
    """Returns what is wrong with the form of a program, or ""."""
    if not isinstance(program, Mapping) or set(program) != {"steps", "result"}:
        return "an object of steps and result"
    steps = program["steps"]
    if not isinstance(steps, list) or not len(steps) <= MAX_STEPS:
        return f"a list of at most {MAX_STEPS} steps"
    for place, step in enumerate(steps):
        if not (isinstance(step, list) and len(step) == 3):
            return f"step {place} to be [target, arguments, keyword arguments]"
        target, args, kwargs = step
        if not isinstance(target, str) or not _TARGET.fullmatch(target):
            return f"step {place} to name an ATen overload such as 'aten.bmm.default'"
        if not isinstance(args, list) or not isinstance(kwargs, Mapping):
            return f"step {place} to have a list and an object of arguments"
        if not all(key.isidentifier() and not keyword.iskeyword(key) for key in kwargs):
            return f"step {place} to have keyword arguments with names"
        wrong = _check_value([args, *kwargs.values()], place)
        if wrong:
            return f"step {place}: {wrong}"
    result = program["result"]
    if not isinstance(result, Mapping) or not set(result) & {"step", "state", "tensor", "data"}:
        return "a result that is a step, a state or a constant"
    return _check_value(result, len(steps))


def check_fold(program: Any) -> str:
    """The same for a folded weight, which neither images nor their number may enter."""
    wrong = check_program(program)
    if not wrong and any(True for kind in ("slot", "batch") for _ in operands(program, kind)):
        return "a program of states and constants alone"
    return wrong


def _check_value(value: Any, before: int) -> str:
    if isinstance(value, list):
        return next((wrong for item in value if (wrong := _check_value(item, before))), "")
    if isinstance(value, Mapping):
        return _check_operand(value, before)
    return ""


def _check_operand(value: Mapping[str, Any], before: int) -> str:
    kind = next((key for key in _OPERANDS if key in value), None)
    if kind is None:
        return f"an operand, one of {', '.join(_OPERANDS)}"
    content = value[kind]
    extra = set(value) - {kind, *_EXTRA.get(kind, ())}
    if extra:
        return f"an operand {kind} without {sorted(map(str, extra))[0][:40]!r}"
    if kind in ("slot", "step", "batch"):
        right = _is_count(content) and (kind != "step" or content < before)
        right = right and _is_count(value.get("item", 0))
        return "" if right else f"{kind} to be a whole number (of an earlier step)"
    if kind == "state":
        return "" if isinstance(content, str) else "state to be a name"
    if kind == "dtype":
        return "" if content in ("input", *DTYPES) else f"dtype to be one of {', '.join(DTYPES)}"
    if kind == "device":
        return "" if content == "input" else "device to be 'input'"
    return _check_constant(value) if kind == "tensor" else _check_data(value)


_EXTRA = {"step": ("item",), "tensor": ("shape", "dtype"), "data": ("shape", "dtype")}
_BYTES = {
    word: size
    for size, words in (
        (8, ("float64", "int64", "complex64")),
        (4, ("float32", "int32")),
        (2, ("float16", "bfloat16", "int16")),
        (1, ("int8", "uint8", "bool")),
    )
    for word in words
}


def _check_constant(value: Mapping[str, Any]) -> str:
    numbers, shape = value["tensor"], value.get("shape")
    right = (
        isinstance(numbers, list)
        and len(numbers) <= MAX_CONSTANT
        and all(isinstance(n, int | float) for n in numbers)
        and isinstance(shape, list)
        and len(shape) <= 8
        and all(_is_count(size) for size in shape)
        and math.prod(shape) == len(numbers)
        and value.get("dtype") in DTYPES
    )
    return "" if right else f"a constant of at most {MAX_CONSTANT} numbers, its shape and dtype"


def _check_data(value: Mapping[str, Any]) -> str:
    pieces, shape, dtype = value["data"], value.get("shape"), value.get("dtype")
    right = (
        isinstance(pieces, list)
        and all(isinstance(piece, str) and len(piece) <= PIECE for piece in pieces)
        and isinstance(shape, list)
        and len(shape) <= 8
        and all(_is_count(size) for size in shape)
        and math.prod(shape) <= MAX_DATA
        and dtype in DTYPES
    )
    text = "".join(pieces) if right else ""
    right = right and _BASE64.fullmatch(text) is not None and len(text) % 4 == 0
    held = len(text) // 4 * 3 - text.count("=")
    if right and held == math.prod(shape or []) * _BYTES[str(dtype)]:
        return ""
    return f"a constant of at most {MAX_DATA} numbers in base64, its shape and dtype"


_BASE64 = re.compile(r"[A-Za-z0-9+/]*={0,2}")


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31


def operands(program: Mapping[str, Any], kind: str) -> Iterator[Any]:
    """The contents of all operands of a kind, in the order of their use."""
    stack: list[Any] = [program["result"], program["steps"]]
    while stack:
        value = stack.pop()
        if isinstance(value, Mapping):
            if kind in value and set(value) & set(_OPERANDS):
                yield value[kind]
            elif not set(value) & set(_OPERANDS):
                stack.extend(reversed(list(value.values())))
        elif isinstance(value, list | tuple):
            stack.extend(reversed(value))


def label(program: Mapping[str, Any]) -> str:
    """The base name of the ATen call that gives the result ("bmm")."""
    step = program["result"].get("step")
    return "constant" if step is None else program["steps"][step][0].split(".")[1]
