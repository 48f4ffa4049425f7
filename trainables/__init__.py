"""How a student is trained: Tune trainables, and the plain PyTorch loops that they wrap.

The names below load their modules on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from raysearch.lazy import lazy_names

if TYPE_CHECKING:
    from trainables.bayesnas.trainable import BayesCompressionTrainable, BayesNASTrainable
    from trainables.context import DistillationContext
    from trainables.distillation import DistillationTrainable
    from trainables.recipe import Recipe
    from trainables.replay import ReplayTrainable
    from trainables.training import Training

__all__ = [
    "BayesCompressionTrainable",
    "BayesNASTrainable",
    "DistillationContext",
    "DistillationTrainable",
    "Recipe",
    "ReplayTrainable",
    "Training",
]

__getattr__ = lazy_names(
    __name__,
    {
        "BayesCompressionTrainable": "bayesnas.trainable",
        "BayesNASTrainable": "bayesnas.trainable",
        "DistillationContext": "context",
        "DistillationTrainable": "distillation",
        "Recipe": "recipe",
        "ReplayTrainable": "replay",
        "Training": "training",
    },
)
