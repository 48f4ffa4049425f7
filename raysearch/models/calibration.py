"""BatchNorm's running statistics, computed anew: those of a sliced or freshly trained student are not its own."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


@torch.no_grad()
def recalibrate(module: nn.Module, batches: Iterable[torch.Tensor]) -> None:
    """Replaces BatchNorm's running statistics by their average over some batches.

    Weights and all other state stay as they are, and so does the module's mode. Doing it twice with the same batches changes
    nothing more. About 20 batches of training images are enough.

    Args:
        batches: inputs of the module, [B, C, H, W] each, on its device; without any, nothing is done.
    """
    norms = [
        part
        for part in module.modules()
        if isinstance(part, _BatchNorm) and part.track_running_stats
    ]
    modes = {part: part.training for part in module.modules()}
    momenta = [norm.momentum for norm in norms]
    module.eval()
    try:
        for number, images in enumerate(batches if norms else ()):
            if number == 0:
                _start(norms)
            module(images)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        for part, training in modes.items():
            part.training = training


def _start(norms: list[_BatchNorm]) -> None:
    """Only BatchNorm itself trains: dropout would change what it sees."""
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a cumulative average
        norm.train()
