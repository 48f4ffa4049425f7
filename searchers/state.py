"""A search's state as text: JSON, with numpy arrays as base64. Never a pickle, so a state file cannot run code."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

_ARRAY = "__ndarray__"


def dump_state(state: Mapping[str, Any]) -> str:
    """JSON text of JSON-native values and numpy arrays.

    Raises:
        TypeError: the state holds anything else.
    """
    return json.dumps(state, default=_encode, separators=(",", ":"))


def load_state(text: str) -> dict[str, Any]:
    """Inverts `dump_state`.

    Raises:
        ValueError: not such a text.
    """
    state = json.loads(text, object_hook=_decode)
    if not isinstance(state, dict):
        raise ValueError(f"expected a JSON object, got {type(state).__name__}")
    return state


def _encode(value: object) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray) and value.dtype != object:
        data = base64.b64encode(np.ascontiguousarray(value).tobytes()).decode()
        return {_ARRAY: data, "dtype": value.dtype.str, "shape": list(value.shape)}
    raise TypeError(f"a state holds JSON-native values and numpy arrays, not {type(value)}")


def _decode(values: dict[str, Any]) -> Any:
    if _ARRAY not in values:
        return values
    data = np.frombuffer(base64.b64decode(values[_ARRAY]), dtype=np.dtype(values["dtype"]))
    return data.reshape(values["shape"]).copy()
