"""Bounds on what a trial reports, as N2N states them (section 3.3.1): any quantity A x <= b, also those that only training shows.

Written as text, one a constraint: `latency_ms <= 5`, `accuracy >= 0.9`, `class_accuracy/3 >= 0.8`, `power <= 2.5`, and for what a network
costs also as a share of the teacher's, `num_params <= 50%`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from raysearch.errors import ConfigError
from searchers.algorithm import Observation

Kind = Literal["at_most", "at_least"]

FIELD = "search.options.constraints"

_SIGNS: Mapping[str, Kind] = {"<=": "at_most", ">=": "at_least"}
_TEXT = re.compile(
    r"^\s*(?P<metric>[A-Za-z_][\w./-]*)\s*(?P<sign><=|>=)\s*(?P<bound>\S+?)\s*(?P<share>%?)\s*$"
)
_COSTS = ("num_params", "macs", "memory_bytes")
"""What the teacher's own value is known of, so that a share of it can be asked for."""
_ON_REQUEST = ("latency_ms", "class_accuracy")
"""What trials report where `distill.report` asks for it."""
_HELP = "write such as 'num_params <= 50%', 'latency_ms <= 5' or 'accuracy >= 0.9'"


@dataclass(frozen=True)
class Constraint:
    """One bound.

    Attributes:
        metric: the name of a number in a trial's results.
        bound: in the metric's own unit; a value on the bound is allowed.
        kind: "at_most" or "at_least".
    """

    metric: str
    bound: float
    kind: Kind

    def violated(self, metrics: Mapping[str, Any]) -> bool:
        """Whether a student misses the bound; what is not a number misses it too.

        Args:
            metrics: what its trial reported, see `reported`.

        Raises:
            ConfigError: the trial did not report the metric.
        """
        if self.metric not in metrics:
            known = ", ".join(sorted(metrics)) or "nothing"
            raise ConfigError(
                f"{FIELD}: {str(self)!r} needs {self.metric!r}, which no trial reports: {_remedy(self.metric)}; reported are {known}"
            )
        value = float(metrics[self.metric])
        return not (value <= self.bound if self.kind == "at_most" else value >= self.bound)

    def __str__(self) -> str:
        sign = "<=" if self.kind == "at_most" else ">="
        return f"{self.metric} {sign} {self.bound:.12g}"


def parse_constraints(
    value: object, teacher: Mapping[str, float] | None = None
) -> tuple[Constraint, ...]:
    """Reads `search.options.constraints`: null, or a list of texts (or of `Constraint`).

    Args:
        teacher: its `num_params`, `macs` and `memory_bytes` (see `costs_of`), for bounds such as `50%`.

    Raises:
        ConfigError: something else.
    """
    if value is None:
        return ()
    if not isinstance(value, list | tuple):
        raise ConfigError(f"{FIELD} must be a list of bounds, got {value!r}: {_HELP}")
    return tuple(_parse(one, teacher or {}) for one in value)


def _parse(one: object, teacher: Mapping[str, float]) -> Constraint:
    if isinstance(one, Constraint):
        return one
    found = _TEXT.match(one) if isinstance(one, str) else None
    bound = _number(found["bound"]) if found else math.nan
    if found is None or not math.isfinite(bound):
        raise ConfigError(f"{FIELD}: {one!r} is not a bound: {_HELP}")
    metric, kind = found["metric"], _SIGNS[found["sign"]]
    if found["share"]:
        if metric not in _COSTS or metric not in teacher:
            raise ConfigError(
                f"{FIELD}: {one!r} asks for a share of the teacher's, which is known of {', '.join(_COSTS)} only: give a number"
            )
        bound = bound / 100 * teacher[metric]
    return Constraint(metric, bound, kind)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _remedy(metric: str) -> str:
    name = metric.partition("/")[0]
    if name in _ON_REQUEST:
        return f"ask for it by distill.report: [{name}]" + (
            ", and name a class, such as class_accuracy/3" if name == "class_accuracy" else ""
        )
    return "correct the name, or report it by distill.metrics"


def costs_of(architecture: Any) -> dict[str, float]:
    """What a network costs, by the names that results use.

    Args:
        architecture: a `raysearch.architecture.Architecture`.
    """
    return {name: float(getattr(architecture, name)) for name in _COSTS}


def reported(observation: Observation) -> dict[str, float]:
    """The numbers that are known of a trained student: its trial's, and those that its proposal carried (a measured latency)."""
    carried = {
        key: float(value)
        for key, value in observation.extra.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
    return carried | dict(observation.metrics)


def check_reported(
    constraints: Iterable[Constraint], report: Collection[str], num_classes: int
) -> None:
    """Refuses, before any trial, bounds on what trials report on request only and are not asked for.

    Args:
        report: what is asked for, of `latency_ms` and `class_accuracy`.
        num_classes: of the data.

    Raises:
        ConfigError: naming the bound and the remedy.
    """
    for constraint in constraints:
        name, _, label = constraint.metric.partition("/")
        if name not in _ON_REQUEST:
            continue
        if name not in report:
            raise ConfigError(
                f"{FIELD}: {str(constraint)!r} needs {constraint.metric!r}, which no trial reports: {_remedy(name)}"
            )
        if name == "class_accuracy" and label not in map(str, range(num_classes)):
            raise ConfigError(
                f"{FIELD}: {str(constraint)!r} names no class of the data, whose classes are 0 to {num_classes - 1}: write class_accuracy/3"
            )


def any_violated(constraints: Iterable[Constraint], observation: Observation) -> bool:
    """Whether a trained student misses one of the bounds.

    Raises:
        ConfigError: its trial did not report a metric.
    """
    metrics = reported(observation)
    # all are looked at, so that a name that is never reported shows at the first result
    broken = [constraint for constraint in constraints if constraint.violated(metrics)]
    return bool(broken)
