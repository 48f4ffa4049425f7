"""Which lambdas the runs of a method get: a given list, a list that is even in their logarithm, or Optuna's TPE. Ray is unknown here.

A chooser has no state: what it gives follows from the lambdas that there are and, for TPE, from what became of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from raysearch.errors import ConfigError
from searchers.algorithm import Observation

Tried = tuple[float, Observation | None]
"""A lambda, and what became of its run; None: it is still going."""

NUM_INITIAL = 4
"""Lambdas that TPE's model does not choose yet: 1/2, 1/4, 3/4 and 1/8 of the range's logarithm."""

_SAME = 1e-9  # relative: lambdas come back from JSON and from Tune
_STATES = {"full": "COMPLETE", "stopped": "PRUNED", "failed": "FAIL"}


class Chooser(Protocol):
    """Chooses the lambda of the next run."""

    def num_left(self, tried: Sequence[Tried]) -> int:
        """How many runs there are to be yet."""
        ...

    def choose(self, tried: Sequence[Tried]) -> float | None:
        """The next lambda; None: all runs are made, or are going."""
        ...


@dataclass(frozen=True)
class Grid:
    """Given lambdas, in their order; those that were tried are left out, so that a longer list extends a shorter one."""

    lambdas: tuple[float, ...]

    def num_left(self, tried: Sequence[Tried]) -> int:
        return len(self._left(tried))

    def choose(self, tried: Sequence[Tried]) -> float | None:
        return next(iter(self._left(tried)), None)

    def _left(self, tried: Sequence[Tried]) -> list[float]:
        return [
            lam
            for lam in self.lambdas
            if not any(math.isclose(lam, other, rel_tol=_SAME) for other, _ in tried)
        ]


@dataclass(frozen=True)
class TreeParzen:
    """Optuna's TPE over the logarithm of lambda, which maximises the runs' rewards.

    Runs that a scheduler stopped are told as pruned, with their curves; failed ones as failed; running ones as running.

    Attributes:
        low, high: of lambda.
        num_runs: in all.
        seed: of the sampler, with the number of the run.
    """

    low: float
    high: float
    num_runs: int
    seed: int = 0

    def num_left(self, tried: Sequence[Tried]) -> int:
        return max(0, self.num_runs - len(tried))

    def choose(self, tried: Sequence[Tried]) -> float | None:
        number = len(tried)
        if number >= self.num_runs:
            return None
        if number < NUM_INITIAL:
            share = van_der_corput(number + 1)
            return float(self.low ** (1 - share) * self.high**share)
        return self._sample(tried)

    def _sample(self, tried: Sequence[Tried]) -> float:
        import optuna
        from optuna.distributions import FloatDistribution
        from optuna.trial import TrialState, create_trial

        from searchers.optuna import quiet

        space: dict[str, Any] = {"lam": FloatDistribution(self.low, self.high, log=True)}
        words = np.random.SeedSequence([self.seed, len(tried)]).generate_state(1)
        sampler = optuna.samplers.TPESampler(seed=int(words[0]), n_startup_trials=0)
        with quiet():
            study = optuna.create_study(direction="maximize", sampler=sampler)
            for lam, outcome in tried:
                study.add_trial(
                    create_trial(
                        state=TrialState[_STATES[outcome.status] if outcome else "RUNNING"],
                        value=outcome.value if outcome and outcome.status == "full" else None,
                        params={"lam": min(max(lam, self.low), self.high)},
                        distributions=space,
                        intermediate_values=dict(enumerate(outcome.curve, 1)) if outcome else {},
                    )
                )
            return float(study.ask(space).params["lam"])


def make_chooser(
    *,
    lambdas: Sequence[float] | None,
    lambda_search: str,
    lambda_range: Sequence[float],
    num_runs: int,
    seed: int,
) -> Chooser:
    """The chooser that the options of a method ask for.

    Args:
        lambdas: of a grid, in the order of their runs; None: `num_runs` of the range, the middle ones first.
        lambda_search: "grid" or "tpe".
        lambda_range: the smallest and the largest lambda.
        num_runs: how many there are.
        seed: of TPE.

    Raises:
        ConfigError: lambdas that are no positive numbers, that stand there twice, or that TPE is given.
    """
    low, high = check_range(lambda_range)
    if lambda_search == "tpe":
        if lambdas is not None:
            raise ConfigError(
                f"search.options.lambdas is {lambdas!r}, but search.options.lambda_search is 'tpe', which chooses them itself: "
                "leave one of them out"
            )
        return TreeParzen(low, high, num_runs, seed)
    if lambdas is not None:
        return Grid(check_lambdas(lambdas))
    return Grid(log_spaced(low, high, num_runs))


def log_spaced(low: float, high: float, count: int) -> tuple[float, ...]:
    """Lambdas that are even in their logarithm, ends included; the middle ones first, because the ends are the most likely to give nothing."""
    if count == 1:
        return (math.sqrt(low * high),)
    values = [float(value) for value in np.geomspace(low, high, count)]
    middle = (count - 1) / 2
    order = sorted(range(count), key=lambda place: (abs(place - middle), place))
    return tuple(values[place] for place in order)


def van_der_corput(number: int) -> float:
    """The `number`-th of 1/2, 1/4, 3/4, 1/8, 5/8, ..., which are evenly spread however many there are."""
    share, digit = 0.0, 0.5
    while number:
        share += digit * (number % 2)
        number, digit = number // 2, digit / 2
    return share


def is_positive(value: object) -> bool:
    """Whether a value is a finite number above 0."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return 0 < value < math.inf


def check_lambdas(value: object) -> tuple[float, ...]:
    """Returns the option `lambdas` after checking it.

    Raises:
        ConfigError: no list of different positive numbers.
    """
    given = list(value) if isinstance(value, list | tuple) else []
    if not given or not all(map(is_positive, given)) or len(set(given)) < len(given):
        raise ConfigError(
            f"search.options.lambdas must list different numbers above 0, such as [0.01, 0.03], got {value!r}"
        )
    return tuple(float(lam) for lam in given)


def check_range(value: object) -> tuple[float, float]:
    """Returns the option `lambda_range` after checking it.

    Raises:
        ConfigError: not two positive numbers in ascending order.
    """
    given = list(value) if isinstance(value, list | tuple) else []
    if len(given) != 2 or not all(map(is_positive, given)) or not given[0] < given[1]:
        raise ConfigError(
            f"search.options.lambda_range must be the smallest and the largest lambda, such as [0.001, 0.1], got {value!r}"
        )
    return float(given[0]), float(given[1])
