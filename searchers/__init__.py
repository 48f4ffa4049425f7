"""Search algorithms over student architectures, and their adapter to Ray Tune.

The names below load their modules on first use, so that `import searchers` stays instant.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from searchers.algorithm import Algorithm, Exhausted, Observation, Proposal
    from searchers.methods import (
        EvolutionSearch,
        GPSearch,
        OptunaSearch,
        RandomSearch,
        UniformSearch,
    )
    from searchers.registry import METHODS, make_algorithm
    from searchers.tune import TuneSearcher

_HOMES = {
    "Algorithm": "algorithm",
    "Exhausted": "algorithm",
    "Observation": "algorithm",
    "Proposal": "algorithm",
    "METHODS": "registry",
    "make_algorithm": "registry",
    "EvolutionSearch": "methods",
    "GPSearch": "methods",
    "OptunaSearch": "methods",
    "RandomSearch": "methods",
    "TuneSearcher": "tune",
    "UniformSearch": "methods",
}

__all__ = [
    "METHODS",
    "Algorithm",
    "EvolutionSearch",
    "Exhausted",
    "GPSearch",
    "Observation",
    "OptunaSearch",
    "Proposal",
    "RandomSearch",
    "TuneSearcher",
    "UniformSearch",
    "make_algorithm",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
