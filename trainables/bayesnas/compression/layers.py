"""What a state of the pruning leaves of each layer, in numbers for the report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from trainables.bayesnas.compression.structure import Builder

Tensors = Mapping[str, torch.Tensor]


def count_weights(builder: Builder, weights: Tensors, masks: Tensors) -> dict[str, tuple[int, int]]:
    """Layer -> (its weights, how many of them the masks leave), of the layers that have groups."""
    found = {}
    for filters in builder.places.filters:
        key = filters.layer.params.get("weight", f"{filters.layer.name}.weight")
        weight = weights[key]
        mask = masks[key].expand_as(weight) if key in masks else weight
        found[filters.layer.name] = (weight.numel(), int((mask != 0).sum()))
    return found


def describe(
    builder: Builder,
    counts: Mapping[str, tuple[int, int]],
    living: torch.Tensor,
    gamma: torch.Tensor,
) -> dict[str, dict[str, Any]]:
    """Each layer's groups and weights, and the quartiles of its gammas; JSON-native.

    Args:
        builder: of the groups.
        counts: from `count_weights`.
        living: [G] bool.
        gamma: [G].
    """
    ids: dict[str, list[torch.Tensor]] = {}
    for member in builder.groups.members:
        ids.setdefault(member.layer, []).append(member.ids.flatten())
    found: dict[str, dict[str, Any]] = {}
    for layer, (total, kept) in counts.items():
        if layer not in ids:
            continue
        own = torch.cat(ids[layer]).unique()
        quantiles = torch.quantile(gamma[own].double(), torch.linspace(0, 1, 5).double())
        found[layer] = {
            "groups": len(own),
            "active": int(living[own].sum()),
            "weights": total,
            "kept": kept,
            "gamma": quantiles.tolist(),
        }
    return found
