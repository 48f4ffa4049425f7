"""Pydantic's complaints about a configuration, in our words: key, value, remedy."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

# fields that take several types: what any of pydantic's per-type complaints would hide
_TAKES = {
    "budget.params": "a fraction such as 0.1, a number of parameters, or text such as '60%' or '1.2M'",
    "budget.macs": "a fraction such as 0.1, a number of MACs, or text such as '60%' or '1.2M'",
    "budget.memory": "a fraction such as 0.1, a number of bytes, or text such as '60%' or '1.2M'",
    "teacher.output_index": "the position or the key of the output that holds the logits",
    "budget.accuracy": "an accuracy such as 0.95, or a share of the teacher's such as '98%'",
    "data.resize": "a size in pixels, or [height, width]",
    "data.validation": "a share between 0 and 1, or a number of rows",
}


def complaint(error: ValidationError, raw: Mapping[str, Any], model: type[BaseModel]) -> str:
    """What is wrong first, as one sentence with the key, the value and the remedy.

    Args:
        error: what `model` said of `raw`.
        raw: the nested mapping that was checked.
        model: the whole configuration's model, for the names of its keys.
    """
    first = error.errors()[0]
    # union members add their own type names to the path; the user knows only the keys
    path: list[str] = []
    node: Any = raw
    for part in first["loc"]:
        if isinstance(part, int) and isinstance(node, list) and part < len(node):
            path[-1] += f"[{part}]"
            node = node[part]
        elif isinstance(node, Mapping) and part in node:
            path.append(str(part))
            node = node[part]
    where = ".".join(path)
    kind = first["type"]
    value = _short(first["input"])
    if kind == "extra_forbidden":
        return _unknown_key(where, model)
    if where in _TAKES:
        return f"{where}: {value} is not valid; it must be {_TAKES[where]}"
    if kind in ("model_type", "model_attributes_type", "dict_type"):
        section = where or "the configuration"
        return f"{section}: expected keys below it, got {value}; see configs/digits.yaml"
    if kind == "literal_error":
        known = _literal_choices(error, first["loc"]) or first.get("ctx", {}).get("expected")
        return f"{where}: {value} is not known; choose one of {known}"
    expected = {
        "greater_than_equal": "at least {ge}",
        "greater_than": "above {gt}",
        "less_than": "below {lt}",
        "less_than_equal": "at most {le}",
        "int_type": "a whole number",
        "int_from_float": "a whole number",
        "float_type": "a number",
        "string_type": "text",
        "bool_type": "true or false",
        "list_type": "a list",
        "finite_number": "a finite number",
        "too_short": "at least {min_length} entries",
        "too_long": "at most {max_length} entries",
        "string_too_short": "a name that is not empty",
        "string_pattern_mismatch": "letters, digits, '.', '_' and '-' only, 100 at most",
        "value_error": "a number",
    }.get(kind)
    if expected is None:
        return f"{where}: {value} is not valid ({first['msg']})"
    return f"{where}: {value} is not valid; it must be {expected.format(**first.get('ctx', {}))}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _literal_choices(error: ValidationError, loc: tuple[int | str, ...]) -> str | None:
    choices = [
        item.get("ctx", {})["expected"]
        for item in error.errors()
        if item["type"] == "literal_error" and item["loc"] == loc
    ]
    return choices[0] if choices else None


def _unknown_key(where: str, model: type[BaseModel]) -> str:
    *section, key = where.split(".")
    for part in section:
        field = model.model_fields[part.split("[")[0]]
        options = [field.annotation, *get_args(field.annotation)]
        model = next(o for o in options if isinstance(o, type) and issubclass(o, BaseModel))
    known = list(model.model_fields)
    close = difflib.get_close_matches(key, known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"known here: {', '.join(known)}"
    return f"{where}: unknown key; {hint}"
