"""The options of the method, checked, and without what imports torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from raysearch.errors import ConfigError
from searchers.algorithm import check_bool, check_int

if TYPE_CHECKING:
    from raysearch.architecture import SearchSpace

KINDS = ("remove", "shrink")
"""The stages, in their order."""
NOUNS: Mapping[str, str] = {"remove": "removal", "shrink": "shrinkage"}
"""What options of a stage are called after."""
STAGES = ("both", *KINDS)
CONSTRAINT = ("hard", "soft")
EXPLORE = 0.1
"""Weight of the entropy bonus in a batch of known students only, unless `faithful`."""
LITTLE = 0.05
"""Without a budget stage one is left out where all removals together save a smaller share of the parameters: no reward of it, at most
C (2 - C), could reach a tenth of what shrinking gives. (Channels that are coupled one by one leave convolutions in place.)"""


@dataclass(frozen=True)
class PolicyOptions:
    """What decides how one stage's policy looks and learns.

    Attributes:
        kind: "remove" or "shrink".
        hidden: H of its LSTM (of each direction).
        lr: of Adam.
        rollouts: m.
        baseline_decay: of the moving average.
        entropy: weight of the entropy bonus.
        explore: its weight, where that is more, in a batch without a new student.
        actor_critic: rewards are compared with a learned value instead of the moving average.
        raw_features: layers are read as raw integers.
        seed: of its weights and actions.
    """

    kind: str
    hidden: int
    lr: float
    rollouts: int
    baseline_decay: float
    entropy: float
    explore: float
    actor_critic: bool
    raw_features: bool
    seed: int


def stage_seed(seed: int, kind: str) -> int:
    """The seed of one stage's policy."""
    return int(np.random.SeedSequence((seed, KINDS.index(kind))).generate_state(1)[0])


def check_number(field: str, value: object, *, positive: bool) -> float:
    """Returns an option that is a finite number, above zero or not below it.

    Raises:
        ConfigError: it is not.
    """
    number = math.nan
    if isinstance(value, int | float) and not isinstance(value, bool):
        number = float(value)
    if not math.isfinite(number) or number < 0 or (positive and number == 0):
        least = "above 0" if positive else "of at least 0"
        raise ConfigError(f"{field} must be a number {least}, got {value!r}")
    return number


def check_iterations(iterations: object, num_trials: int | None, default: int) -> int | None:
    """Updates of each stage at most; None: no limit, as the number of evaluations is one."""
    if iterations is None:
        return default if num_trials is None else None
    return check_int("search.options.iterations", iterations, 1)


def check_implied(name: str, value: object, faithful: bool) -> bool:
    """Returns an option that `faithful` implies; None: as `faithful`.

    Raises:
        ConfigError: it is no boolean, or denies what is implied.
    """
    if value is None:
        return faithful
    if faithful and value is False:
        raise ConfigError(
            f"search.options.{name} is false, but search.options.faithful true implies it: leave {name} out"
        )
    return check_bool(f"search.options.{name}", value)


def shape_of(options: Mapping[str, PolicyOptions]) -> dict[str, Any]:
    """What decides which weights there are, by the names of the search's options."""
    one = options["remove"]
    hidden = {f"hidden_{NOUNS[kind]}": options[kind].hidden for kind in KINDS}
    return {**hidden, "actor_critic": one.actor_critic, "raw_features": one.raw_features}


def check_shape(mine: Mapping[str, Any], stored: Mapping[str, Any]) -> None:
    """Refuses the state of a search whose policies or actions are others; rates, weights of the loss and m may change.

    Raises:
        ValueError: naming the option.
    """
    for key, value in mine.items():
        if stored[key] != value:
            raise ValueError(
                f"it was written with search.options.{key} {stored[key]!r}, and now it is {value!r}: leave {key} as it was"
            )


def check_actions(space: SearchSpace, stages: str | None, *, refit: bool, windows: bool) -> str:
    """The stages that a search goes through: those that were asked for, as far as the space has what they need.

    Args:
        stages: None: both, unless removal saves hardly anything.

    Raises:
        ConfigError: options do not go together, with each other or with the space.
    """
    if windows and not refit:
        raise ConfigError(
            "search.options.windows is true, but kernels are no edits of the space: set search.options.refit to true too"
        )
    if refit and space.limits:
        raise ConfigError(
            f"search.options.refit is true, but its students cannot be repaired to a budget ({', '.join(space.limits)}): "
            "set budget to null, and search.options.constraints such as ['num_params <= 5%']"
        )
    possible = [kind for kind in KINDS if refit or kind in space.operations]
    if not possible:
        raise ConfigError(
            "search.method 'n2n' removes layers or shrinks them, but space.operations has neither: add remove or shrink"
        )
    if stages in KINDS and stages not in possible:
        raise ConfigError(
            f"search.options.stages is {stages!r}, but space.operations lacks it: add {stages}"
        )
    saving = 1.0 if refit or space.limits else removable_share(space)
    if stages == "remove" and not saving:
        raise ConfigError(
            "search.options.stages is 'remove', but the layers that this space can remove have no parameters: "
            "set space.grouping to by_size, or search.options.refit to true"
        )
    if stages in KINDS:
        return stages
    if len(possible) == 1:
        return possible[0]
    return "shrink" if stages is None and saving < LITTLE else "both"


def removable_share(space: SearchSpace) -> float:
    """The share of the teacher's parameters that goes with all removable layers."""
    smallest = replace(space.largest(), remove=space.removable)
    return 1 - float(space.num_params(smallest)[0]) / space.teacher.num_params
