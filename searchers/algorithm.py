"""The ask/tell contract between search algorithms and whatever runs their proposals. Ray is unknown here.

Who calls: exactly one process holds an algorithm (the driver), from one thread. `ask` is called whenever a student could be
started, so proposals may be outstanding when it is called again; `tell` is called once for each finished student, in the order in
which they finish, and also for students that the algorithm never proposed (a warm start, another run's results).
An algorithm is deterministic: its seed and the order of its calls determine every proposal.

What runs it looks for more, where an algorithm has it: `busy` (see `is_busy`); `keeps_state = True` where being told all outcomes again would not
give what was learned, so that its state must be kept (`raysearch.search_state`); `write_knowledge(folder)`, called at a run's end;
`insight()` (`searchers.insight`).
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args, runtime_checkable

from raysearch.errors import ConfigError

Status = Literal["full", "stopped", "failed"]


class Exhausted(Exception):
    """No proposal will ever come again: the space, or the algorithm's own plan, is at its end."""


@dataclass(frozen=True)
class Proposal:
    """A student to evaluate.

    Attributes:
        architecture: the edits' text, or that of a whole network (`Architecture.to_compact`): what `SearchSpace.apply` takes.
        extra: what else the trial's config shall hold; JSON-native (Tune's state turns tuples into lists and int keys into text).
    """

    architecture: str
    extra: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.architecture, str):
            raise TypeError(
                f"architecture must be a text, got {type(self.architecture).__name__}: pass str(edits)"
            )
        object.__setattr__(self, "extra", dict(self.extra))
        if json.loads(json.dumps(self.extra)) != self.extra:
            raise TypeError(f"extra must survive JSON unchanged, got {self.extra!r}")


@dataclass(frozen=True)
class Observation:
    """What became of one student.

    Attributes:
        architecture: the edits' text.
        value: the objective, higher is better; None where there is none (always None for `failed`).
        fidelity: the share of the planned training that was done, in [0, 1].
        status: `full`: trained as planned; `stopped`: ended early by a scheduler, its value is not comparable with full ones;
            `failed`: crashed, diverged, could not be built, or gave no number.
        curve: the objective after each epoch.
        metrics: the last reported numbers (`accuracy`, `teacher_accuracy`, `compression`, ...).
        extra: the proposal's own `extra`.
        details: what else was reported last, text and lists (`trial_id`, `reason`, `accuracy_curve`, ...).
    """

    architecture: str
    value: float | None
    fidelity: float
    status: Status
    curve: tuple[float, ...] = ()
    metrics: Mapping[str, float] = dataclasses.field(default_factory=dict)
    extra: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    details: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.status not in get_args(Status):
            raise ValueError(f"status must be one of {get_args(Status)}, got {self.status!r}")
        usable = self.value is not None and math.isfinite(self.value)
        if self.status == "full" and not usable:
            raise ValueError(
                f"a full observation needs a finite value, got {self.value}: tell it as failed"
            )

    def to_dict(self) -> dict[str, Any]:
        """JSON-native form; `from_dict` inverts it."""
        return dataclasses.asdict(self) | {"curve": list(self.curve)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Observation:
        """Reads what `to_dict` wrote."""
        return cls(**{**values, "curve": tuple(values["curve"])})


@runtime_checkable
class Algorithm(Protocol):
    """A search algorithm; see the module's docstring for who calls it and when."""

    def ask(self) -> Proposal | None:
        """The next student; None: not before something more is told.

        Raises:
            Exhausted: no proposal will ever come again.
        """
        ...

    def tell(self, observation: Observation) -> None:
        """Takes one outcome; clears the student from the outstanding ones whatever its status."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Everything that `load_state_dict` needs to continue identically: JSON-native values and numpy arrays."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues where `state_dict` was taken; options and seed stay those of the constructor."""
        ...


def is_busy(algorithm: Algorithm) -> bool:
    """Whether `ask` would wait for a proposal that is being computed in the background.

    An algorithm that works ahead says so by an attribute `busy`; reading it also starts the work where that is due.
    """
    return bool(getattr(algorithm, "busy", False))


def check_int(field: str, value: object, minimum: int) -> int:
    """Returns an integer option after checking it.

    Raises:
        ConfigError: not an integer, or below `minimum`.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
        raise ConfigError(f"{field} must be an integer of at least {minimum}, got {value!r}")
    return value


def check_bool(field: str, value: object) -> bool:
    """Returns an option that is true or false after checking it.

    Raises:
        ConfigError: it is neither.
    """
    if not isinstance(value, bool):
        raise ConfigError(f"{field} must be true or false, got {value!r}")
    return value


def check_choice(field: str, value: object, choices: Sequence[str]) -> str:
    """Returns an option that is one of some words after checking it.

    Raises:
        ConfigError: it is none of them.
    """
    if not isinstance(value, str) or value not in choices:
        raise ConfigError(f"{field} must be one of {', '.join(choices)}, got {value!r}")
    return value


def check_share(field: str, value: object) -> float:
    """Returns an option that is a share in [0, 1] after checking it.

    Raises:
        ConfigError: not a number in [0, 1].
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ConfigError(f"{field} must be a number between 0 and 1, got {value!r}")
    return float(value)


def check_num_edits(value: object) -> tuple[int, int]:
    """Returns a method's option `num_edits`, the fewest and the most edits of one mutation, after checking it.

    Raises:
        ConfigError: not two integers in ascending order, from 1 on.
    """
    pair = tuple(value) if isinstance(value, list | tuple) else ()
    whole = all(isinstance(edits, int) and not isinstance(edits, bool) for edits in pair)
    if len(pair) != 2 or not whole or not 1 <= pair[0] <= pair[1]:
        raise ConfigError(
            f"search.options.num_edits must be the fewest and the most edits, such as [1, 4], got {value!r}"
        )
    return pair[0], pair[1]
