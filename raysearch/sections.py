"""The raw sections of a configuration: YAML files, `key.path=value` overrides, and one mapping laid over another. What they mean is `raysearch.config`'s."""

from __future__ import annotations

import numbers
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from raysearch.errors import ConfigError


class _Loader(yaml.SafeLoader):
    """SafeLoader that reads 1e-3 as a number (YAML 1.1 wants 1.0e-3) and refuses duplicate keys."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if not isinstance(key, str):
                raise ConfigError(f"line {node.start_mark.line + 1}: key {key!r} is not a string")
            if keys.count(key) > 1:
                raise ConfigError(
                    f"line {node.start_mark.line + 1}: key {key!r} stands there twice"
                )
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)


def _load_yaml(text: str, where: str) -> Any:
    loader = _Loader(text)
    try:
        return loader.get_single_data()
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        detail = " ".join(str(getattr(error, "problem", None) or error).split())
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise ConfigError(f"{where}{line}: not valid YAML ({detail}); mend the file") from None
    finally:
        loader.dispose()


def read_yaml(path: Path) -> dict[str, Any]:
    """The sections of a file; raises ConfigError."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such configuration file; check the path") from None
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise ConfigError(f"{path}: cannot be read as a configuration ({reason})") from None
    data = _load_yaml(text, str(path))
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise ConfigError(
            f"{path}: holds a {type(data).__name__}, not sections such as `search:`; see configs/digits.yaml"
        )
    return data


def parse_override(text: str) -> dict[str, Any]:
    """`key.path=value` as nested mappings; raises ConfigError."""
    key, sign, value = text.partition("=")
    if not sign or not all(key.split(".")):
        raise ConfigError(f"override {text!r}: expected key.path=value, such as search.trials=64")
    nested: Any = _load_yaml(value, f"override {text!r}") if value.strip() else None
    for part in reversed(key.split(".")):
        nested = {part: nested}
    return nested


def plain(mapping: Mapping[str, Any]) -> dict[str, Any]:
    """A deep copy in plain dicts, lists and numbers, whoever made them (numpy's are none to YAML)."""

    def copy(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: copy(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [copy(item) for item in value]
        if isinstance(value, numbers.Integral) and not isinstance(value, bool):
            return int(value)
        if isinstance(value, numbers.Real) and not isinstance(value, bool):
            return float(value)
        return str(value) if isinstance(value, Path) else value

    return copy(mapping)


def merge(base: Mapping[str, Any], top: Mapping[str, Any]) -> dict[str, Any]:
    """`top` over `base`; an empty mapping takes the place of what is there, as in `search.options={}` for another method."""
    merged = dict(base)
    for key, value in top.items():
        both = value and isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = merge(merged[key], value) if both else value
    return merged
