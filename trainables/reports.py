"""What trials report beside rewards and sizes: on request the accuracy of each class, and a user's own measurements.

A user's own: a function of `package.module:callable` that gets a trained student, (module, architecture), and returns numbers by name, such
as the power that it draws on some device. It is called in the trial's process, once for each student that was trained to its end, and
once before the search with an untrained one, to see whether it works.
"""

from __future__ import annotations

import importlib
import math
import resource
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from torch import nn

from raysearch.architecture import Architecture
from raysearch.errors import ConfigError, RunError

FIELD = "distill.metrics"
CLASS_ACCURACY = "class_accuracy"
REPORTED = frozenset(
    {
        "reward",
        "accuracy",
        "loss",
        "teacher_accuracy",
        "num_params",
        "macs",
        "compression",
        "epochs_done",
        "epochs_target",
        "status",
    }
)
"""What each result of any trial holds."""

Metrics = Callable[[nn.Module, Architecture], Mapping[str, float]]


def load_metrics(path: str) -> Metrics:
    """Imports a user's function.

    Raises:
        ConfigError: there is none.
    """
    module_name, _, attribute = path.partition(":")
    if not module_name or not attribute:
        raise ConfigError(f"{FIELD}: {path!r} is no function: give package.module:callable")
    try:
        found: Metrics | None = getattr(importlib.import_module(module_name), attribute, None)
    except Exception as error:
        raise ConfigError(
            f"{FIELD}: {module_name} cannot be imported ({_sentence(error)}): is its folder on PYTHONPATH?"
        ) from error
    if not callable(found):
        raise ConfigError(f"{FIELD}: {module_name} has no callable {attribute!r}: check {path!r}")
    return found


def own_metrics(
    path: str, module: nn.Module, architecture: Architecture, taken: Collection[str]
) -> dict[str, float]:
    """What a user's function says of a trained student.

    Args:
        path: of the function.
        module: in evaluation mode when the function gets it, whatever it is now.
        taken: names that results hold already.

    Raises:
        RunError: the function raises, or does not return finite numbers by new names.
    """
    function = load_metrics(path)
    was_training = module.training
    try:
        found = function(module.eval(), architecture)
    except Exception as error:
        raise RunError(f"{FIELD}: {path} raises {_sentence(error)}") from error
    finally:
        module.train(was_training)
    if not isinstance(found, Mapping):
        raise RunError(f"{FIELD}: {path} gives a {type(found).__name__}, not numbers by name")
    return {_checked_name(path, name, taken): _number(path, name, found[name]) for name in found}


def _checked_name(path: str, name: object, taken: Collection[str]) -> str:
    if not isinstance(name, str) or not name:
        raise RunError(f"{FIELD}: {path} names a number {name!r}, which is not text")
    if name in taken:
        raise RunError(f"{FIELD}: {path} gives {name!r}, which results hold already: rename it")
    return name


def _number(path: str, name: str, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise RunError(f"{FIELD}: {path} gives {name!r} as {value!r}, which is no finite number")
    return number


def by_class(accuracies: Sequence[float | None]) -> dict[str, float]:
    """The accuracy of each class by its number, as text; classes without images are left out."""
    return {str(k): value for k, value in enumerate(accuracies) if value is not None}


def peak_memory_bytes() -> int:
    """The peak resident memory of this process."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _sentence(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
