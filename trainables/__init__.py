"""How a student is trained: Tune trainables, and the plain PyTorch loops that they wrap.

The names below load their modules on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainables.distillation import DistillationContext, DistillationTrainable
    from trainables.recipe import Recipe
    from trainables.training import Training

_HOMES = {
    "DistillationContext": "distillation",
    "DistillationTrainable": "distillation",
    "Recipe": "recipe",
    "Training": "training",
}

__all__ = ["DistillationContext", "DistillationTrainable", "Recipe", "Training"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
