"""Checks of one setting each: what is wrong is said in one sentence with the option, its value, and what it must be."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any, TypeVar

from raysearch.errors import ConfigError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    Settings = TypeVar("Settings", bound=DataclassInstance)

FIELD = "search.options."


def wrong(name: str, value: object, wanted: str) -> ConfigError:
    """The error that says what `name` must be."""
    return ConfigError(f"{FIELD}{name} is {value!r}, but it must be {wanted}")


def check_integer(name: str, value: object, least: int) -> None:
    """Raises ConfigError unless the value is a whole number of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise wrong(name, value, f"a whole number of at least {least}")


def check_number(
    name: str, value: object, *, below: float = math.inf, above_zero: bool = False
) -> None:
    """Raises ConfigError unless the value is a finite number from 0, or above it, and less than `below`."""
    number = value if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
    if not 0 <= number < below or (above_zero and number == 0):
        limits = "above 0" if above_zero else "from 0"
        upper = "" if math.isinf(below) else f" and below {below:g}"
        raise wrong(name, value, f"a finite number {limits}{upper}")


def check_flag(name: str, value: object) -> None:
    """Raises ConfigError unless the value is a truth value."""
    if not isinstance(value, bool):
        raise wrong(name, value, "true or false")


def check_choice(name: str, value: object, choices: Sequence[str]) -> None:
    """Raises ConfigError unless the value is one of `choices`."""
    if value not in choices:
        raise wrong(name, value, f"one of {', '.join(choices)}")


def make_settings(settings: type[Settings], values: Mapping[str, Any], *, method: str) -> Settings:
    """Settings from the options of a search; absent ones take their defaults.

    Raises:
        ConfigError: `method` has no such option, or a value is wrong.
    """
    known = [field.name for field in fields(settings)]
    for name in values:
        if name not in known:
            raise ConfigError(
                f"{FIELD}{name} is not an option of {method}: valid are {', '.join(known)}"
            )
    return settings(**values)
