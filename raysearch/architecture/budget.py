"""Budgets: what a student may cost, in parameters, multiply-accumulates, bytes and milliseconds.

A value is a fraction of the teacher's cost (a float in (0, 1], "60%") or an absolute number (greater than 1, "1.2M", "800k"). Milliseconds
are a number. An accuracy, which is a floor and not a cost, limits nothing here (see `raysearch.objective`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from raysearch.architecture.graph import Architecture
from raysearch.errors import BudgetError
from raysearch.objective import parse_floor

METRICS = ("params", "macs")
"""The first columns of `CostModel`, in their order."""
KEYS = (*METRICS, "memory", "latency_ms", "accuracy")

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "b": 10**9}
_TEXT = re.compile(
    r"\s*([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(e[+-]?[0-9]{1,2})?\s*([%kmgb]?)\s*", re.IGNORECASE
)
_HELP = (
    "give a fraction of the teacher's in (0, 1], a number, or text such as '60%', '1.2M', '800k'"
)


def cost(network: Architecture, metric: str) -> int:
    """What a network costs: "params", "macs" or "memory"."""
    attribute = {"params": "num_params", "macs": "macs", "memory": "memory_bytes"}[metric]
    return getattr(network, attribute)


def teacher_costs(teacher: Architecture) -> dict[str, int]:
    """What fractions of a budget refer to."""
    return {metric: cost(teacher, metric) for metric in (*METRICS, "memory")}


def check_limit(metric: str, limit: float, smallest: Architecture, teacher: Architecture) -> None:
    """Raises BudgetError, which names the smallest student, where even that one is outside a limit."""
    least, whole = cost(smallest, metric), cost(teacher, metric)
    if least > limit:
        raise BudgetError(
            f"budget.{metric} of {limit:,} ({limit / whole:.3g} of the teacher's) cannot be met: the smallest possible "
            f"student has {least:,} ({least / whole:.3g}); raise the budget or allow more operations"
        )


def check_latency(limit: float, least: float, smallest: Architecture) -> None:
    """Raises BudgetError where the smallest student takes `least` milliseconds, which is too many."""
    if least > limit:
        raise BudgetError(
            f"budget.latency_ms of {limit:g} cannot be met: the smallest possible student, of {smallest.num_params:,} "
            f"parameters, takes {least:.4g} ms; raise the budget or allow more operations"
        )


def resolve_budget(
    budget: Mapping[str, object] | None, teacher: Mapping[str, int]
) -> dict[str, float]:
    """Turns a budget into absolute limits; a limit above the teacher's cost becomes the teacher's cost.

    Args:
        budget: by metric; None or {}: no limit.
        teacher: the teacher's cost by metric, latency excepted.

    Returns:
        Whole numbers by metric, of "latency_ms" milliseconds; an accuracy is checked and left out.

    Raises:
        BudgetError: an unknown metric, or a value that is none of the above.
    """
    if budget is None:
        return {}
    if not isinstance(budget, Mapping):
        raise BudgetError(f"budget is {budget!r}: give a mapping such as {{'params': 0.1}}")
    limits: dict[str, float] = {}
    for metric, value in budget.items():
        if metric not in KEYS:
            raise BudgetError(f"budget.{metric} is unknown: use {', '.join(KEYS)}")
        if metric == "accuracy":
            parse_floor(value)
        elif metric == "latency_ms":
            limits[metric] = _milliseconds(value)
        else:
            limits[str(metric)] = _resolve(str(metric), value, teacher[str(metric)])
    return limits


def _milliseconds(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise BudgetError(f"budget.latency_ms is {value!r}: give a positive number of milliseconds")
    return float(value)


def _resolve(metric: str, value: object, teacher: int) -> int:
    number = _parse_text(metric, value) if isinstance(value, str) else value
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise BudgetError(f"budget.{metric} is {value!r}: {_HELP}")
    if isinstance(number, float) and not math.isfinite(number):
        raise BudgetError(f"budget.{metric} is {value!r}: {_HELP}")
    if number <= 0:
        raise BudgetError(f"budget.{metric} is {value!r}, which is not positive: {_HELP}")
    if number <= 1:
        number = number * teacher
    return int(min(number, teacher))


def _parse_text(metric: str, text: str) -> float:
    match = _TEXT.fullmatch(text)
    if match is None:
        raise BudgetError(f"budget.{metric} is {text[:40]!r}: {_HELP}")
    number = float(match[1] + (match[2] or ""))
    unit = match[3].lower()
    if unit != "%":
        number *= _UNITS[unit]
        if unit and number <= 1:
            raise BudgetError(f"budget.{metric} is {text!r}, which is not a cost above 1: {_HELP}")
        return number
    if not 0 < number <= 100:
        raise BudgetError(f"budget.{metric} is {text!r}: a percentage lies in (0, 100]")
    return number / 100
