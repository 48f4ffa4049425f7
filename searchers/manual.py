"""What a method can be told under `search.options`, read from its class: names and defaults from the constructor, meanings from its docstring."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from searchers.registry import GIVEN, resolve

_SECTIONS = ("Args:", "Attributes:")
_ENTRY = re.compile(r"(?P<names>\w+(, \w+)*): (?P<text>.*)")


@dataclass(frozen=True)
class Option:
    """One key of `search.options`.

    Attributes:
        name: the key.
        default: None often stands for a value that depends on others; the text says which.
        text: what it means; empty where the class does not say.
    """

    name: str
    default: Any
    text: str


def options_of(method: str) -> list[Option]:
    """The options of a method, in the order of its constructor.

    Args:
        method: a key of `searchers.registry.METHODS`, or `package.module:Class`.

    Raises:
        ConfigError: there is no such method.
    """
    factory = resolve(method)
    found = list(_options(factory))
    if settings := getattr(factory, "settings_class", None):  # of the engine behind it
        module, _, name = settings.partition(":")
        found += _options(getattr(importlib.import_module(module), name))
    return found


def _options(factory: Any) -> Iterator[Option]:
    texts: dict[str, str] = {}
    for one in reversed(getattr(factory, "__mro__", (factory,))):
        texts |= entries(inspect.cleandoc(one.__doc__ or ""))
    for parameter in inspect.signature(factory).parameters.values():
        is_named = parameter.kind in (
            parameter.POSITIONAL_OR_KEYWORD,
            parameter.KEYWORD_ONLY,
        )
        if is_named and parameter.name not in GIVEN:
            yield Option(parameter.name, parameter.default, texts.get(parameter.name, ""))


def entries(doc: str) -> dict[str, str]:
    """The arguments and attributes that a docstring in Google's form describes: name -> text; "a, b: text" gives both the same."""
    found: dict[str, list[str]] = {}
    names: list[str] = []
    in_section = False
    for line in doc.splitlines():
        if line and not line[0].isspace():
            in_section, names = line in _SECTIONS, []
            continue
        entry = _ENTRY.fullmatch(line[4:]) if in_section else None
        if entry is not None:
            names = entry["names"].split(", ")
            found |= {name: [entry["text"]] for name in names}
        elif line.strip():
            for name in names:
                found[name].append(line.strip())
    return {name: " ".join(lines) for name, lines in found.items()}
