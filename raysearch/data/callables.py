"""A user's own data: `package.module:callable`."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from raysearch.errors import DataError


def call(reference: str, path: Path | None) -> Any:
    """Import and call; the callable gets `path=` when `data.path` is set, and no argument otherwise."""
    module_name, _, attribute = reference.partition(":")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        raise DataError(
            f"data.name: {module_name} cannot be imported ({_sentence(error)}): is its folder on PYTHONPATH?"
        ) from error
    function = getattr(module, attribute, None)
    if not callable(function):
        raise DataError(
            f"data.name: {module_name} has no callable {attribute!r}: check {reference!r}"
        )
    try:
        return function(path=path) if path is not None else function()
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"data.name: {reference} raised {_sentence(error)}") from error


def _sentence(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
