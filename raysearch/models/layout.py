"""Pieces of generated Python: values, attribute paths, and lines broken as `ruff format` (100 columns) breaks them."""

from __future__ import annotations

import json
import keyword
import math
from collections.abc import Sequence
from typing import Any

from raysearch.models.calls import Call

_WIDTH = 100


def access(path: str) -> str:
    """The expression of a module or parameter in the student: self.layer1["0"].conv1"""
    first, *rest = path.split(".")
    text = f"self.{first}" if is_attribute(first) else f"getattr(self, {value_text(first)})"
    return text + "".join(
        f".{part}" if is_attribute(part) else f"[{value_text(part)}]" for part in rest
    )


def is_attribute(name: str) -> bool:
    """Whether `.name` can be written: in a class Python changes names with two leading underscores, and everywhere some of Unicode."""
    return (
        name.isidentifier()
        and name.isascii()
        and not name.startswith("__")
        and not keyword.iskeyword(name)
    )


def arguments(call: Call) -> tuple[str, ...]:
    """A call's plain arguments as text."""
    return (
        *(value_text(value) for value in call.args),
        *(f"{key}={value_text(value)}" for key, value in call.kwargs.items()),
    )


def value_text(value: Any) -> str:
    """A literal."""
    if isinstance(value, str):
        return json.dumps(value)
    if isinstance(value, float) and not math.isfinite(value):
        return f'float("{value}")'
    if isinstance(value, (list, tuple)):
        inner = ", ".join(value_text(part) for part in value)
        return f"({inner},)" if len(value) == 1 else f"({inner})"
    return repr(value)


def _flat(part: Any) -> str:
    if isinstance(part, str):
        return part
    head, parts, tail = part
    comma = "," if head == "(" and len(parts) == 1 else ""
    return f"{head}{', '.join(map(_flat, parts))}{comma}{tail}"


def wrap(head: str, parts: Sequence[Any], tail: str, indent: int) -> list[str]:
    """head + parts + tail: one line if it fits, else the parts on a line of their own, else a line each.

    Args:
        parts: texts, or triples (head, parts, tail) that are broken in the same way.
        indent: the columns that `head` begins with.
    """
    comma = "," if head.endswith(" (") and len(parts) == 1 else ""
    line = f"{head}{', '.join(map(_flat, parts))}{comma}{tail}"
    if len(line) <= _WIDTH or not parts:
        return [line]
    space = " " * (indent + 4)
    inner = space + ", ".join(map(_flat, parts))
    if len(inner) <= _WIDTH and not comma:
        return [head, inner, " " * indent + tail]
    lines = [head]
    for part in parts:
        nested = (part, (), "") if isinstance(part, str) else part
        lines += wrap(space + nested[0], nested[1], nested[2] + ",", indent + 4)
    return [*lines, " " * indent + tail]
