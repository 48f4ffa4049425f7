"""What an update knows of the loss around a network's weights, from a sample of its training images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import fx

from raysearch.bayesnas.compression import CompressionSettings
from raysearch.data.batches import DeviceBatches
from trainables.bayesnas.compression.curvature import diagonal
from trainables.bayesnas.compression.gates import Gates
from trainables.bayesnas.compression.places import Places
from trainables.bayesnas.compression.saliency import Coherence, coherence, quadratic_loss
from trainables.bayesnas.recursion import recursive_diagonal

_BATCH = 64


@dataclass(frozen=True, eq=False)
class Estimate:
    """A sample's view.

    Attributes:
        hessian: parameter -> the diagonal of the Hessian for each weight, >= 0.
        together: what channels and inputs lose as a whole; None: the thesis's recursion knows nothing of that.
    """

    hessian: dict[str, torch.Tensor]
    together: Coherence | None


def estimate(
    module: fx.GraphModule,
    train: DeviceBatches,
    settings: CompressionSettings,
    places: Places,
    *,
    temperatures: Mapping[float, float],
    seed: int,
) -> Estimate:
    """From `settings.images` images that the seed draws.

    Args:
        module: the network under its masks, with running statistics that fit.
        temperatures: as in `curvature.diagonal`.
    """
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(train), generator=generator)[: settings.images].to(train.device)
    parts = order.split(_BATCH)
    if settings.hessian == "recursive":
        labelled = ((train.take(part), train.labels[part]) for part in parts)
        return Estimate(_named(recursive_diagonal(module, labelled)), None)
    gates = Gates(places)
    hessian = _named(
        diagonal(
            module,
            (train.take(part) for part in parts),
            draws=None if settings.hessian == "exact" else 1,
            temperatures=temperatures,
            generator=generator,
            observer=gates,
        )
    )
    losses = quadratic_loss(dict(module.named_parameters()), hessian)
    channels, inputs = gates.channels(len(order)), gates.inputs(len(order))
    return Estimate(hessian, coherence(places, losses, channels, inputs))


def _named(by_path: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """By parameter what is by layer."""
    return {f"{path}.weight": value for path, value in by_path.items()}
