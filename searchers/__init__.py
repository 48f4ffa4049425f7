"""Search algorithms over student architectures, and their adapter to Ray Tune.

The names below load their modules on first use, so that `import searchers` stays instant.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from raysearch.lazy import lazy_names

if TYPE_CHECKING:
    from searchers.algorithm import Algorithm, Exhausted, Observation, Proposal
    from searchers.methods import (
        EmbeddingGradientSearch,
        EvolutionSearch,
        GPSearch,
        MultiKernelBOSearch,
        N2NSearch,
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
    "EmbeddingGradientSearch": "methods",
    "EvolutionSearch": "methods",
    "GPSearch": "methods",
    "MultiKernelBOSearch": "methods",
    "N2NSearch": "methods",
    "OptunaSearch": "methods",
    "RandomSearch": "methods",
    "TuneSearcher": "tune",
    "UniformSearch": "methods",
}

__all__ = [
    "METHODS",
    "Algorithm",
    "EmbeddingGradientSearch",
    "EvolutionSearch",
    "Exhausted",
    "GPSearch",
    "MultiKernelBOSearch",
    "N2NSearch",
    "Observation",
    "OptunaSearch",
    "Proposal",
    "RandomSearch",
    "TuneSearcher",
    "UniformSearch",
    "make_algorithm",
]

__getattr__ = lazy_names(__name__, _HOMES)
