"""The budget of a run in words: what it allowed, and what the best student uses of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from raysearch.formatting import percent

_UNITS = {
    "params": "parameters",
    "macs": "MACs",
    "memory": "bytes of memory",
    "latency_ms": "ms",
}
_USED = {
    "params": "num_params",
    "macs": "macs",
    "memory": "memory_bytes",
    "latency_ms": "latency_ms",
}


def budget_text(budget: Mapping[str, Any]) -> str:
    """The limits by metric in one line; a floor of accuracy may be text ("98%" of the teacher's)."""
    parts = [f"{_amount(value)} {_UNITS[key]}" for key, value in budget.items() if key in _UNITS]
    if (floor := budget.get("accuracy")) is not None:
        wanted = f"{floor} of the teacher's" if isinstance(floor, str) else percent(floor)
        parts.append(f"accuracy of {wanted} or more")
    return ", ".join(parts)


def budget_use(budget: Mapping[str, float], best: Mapping[str, Any]) -> str:
    """What the best student uses of each limit, and whether it reaches the accuracy that was asked for; "" without a budget.

    Args:
        budget: absolute limits by metric; "accuracy" is a floor.
        best: the student's metrics.
    """
    parts = [
        f"{_amount(best[_USED[key]])} of {_amount(value)} {_UNITS[key]}"
        for key, value in budget.items()
        if key in _USED and best.get(_USED[key]) is not None
    ]
    sentences = [f"It uses {', '.join(parts)}."] if parts else []
    floor = budget.get("accuracy")
    if floor is not None and best["accuracy"] >= floor:
        sentences.append(
            f"It reaches {percent(best['accuracy'])} on validation, of {percent(floor)} asked for."
        )
    elif floor is not None:
        sentences.append(
            f"No fully trained student reaches the {percent(floor)} asked for: this one, the most accurate, has {percent(best['accuracy'])} on validation."
        )
    return " ".join(sentences)


def _amount(value: float) -> str:
    """4132 -> "4,132"; 1.8342 -> "1.834"."""
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
