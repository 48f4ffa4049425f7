"""What losing a channel or an input would cost, and what it would save: which of them go first where a budget asks for more than the prior does.

A group of weights at the fixed point of the iteration dies when lambda exceeds about H w^2 / 2 per weight. So the units that would die next as lambda
grows are those of the least quadratic loss for what they take of the budget; taking them away in this order is raising lambda.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from trainables.bayesnas.compression.groups import NO_GROUP, Groups
from trainables.bayesnas.compression.places import Places
from trainables.bayesnas.compression.structure import Structure


@dataclass(frozen=True, eq=False)
class Unit:
    """What can be taken away alone.

    Attributes:
        groups: [n] the groups of weights that die with it.
        price: the loss for what it saves; the least goes first.
    """

    groups: np.ndarray
    price: float


def quadratic_loss(
    weights: Mapping[str, torch.Tensor], hessian: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """H w^2 / 2 of every weight: the change of the loss if it alone were zero (Optimal Brain Damage)."""
    return {key: hessian[key] * weights[key].detach().square() / 2 for key in hessian}


def group_worth(groups: Groups, losses: Mapping[str, torch.Tensor]) -> np.ndarray:
    """[G] the quadratic loss of each group."""
    return groups.sums({key: losses[key] for key in groups.keys}).double().numpy()


def units(
    places: Places,
    groups: Groups,
    structure: Structure,
    losses: Mapping[str, torch.Tensor],
    weight_costs: Mapping[str, float],
) -> list[Unit]:
    """The kept channels, and the inputs that are read by columns of their own, in the order in which they go.

    Args:
        losses: `quadratic_loss` of the living weights (zero for the dead).
        weight_costs: layer -> what one of its weights takes of the budget.
    """
    channels = places.num_channels
    loss, sides, cost = np.zeros(channels), np.zeros(channels), np.zeros(channels)
    inputs: list[Unit] = []
    for filters in places.filters:
        layer = filters.layer
        key = layer.params.get("weight", f"{layer.name}.weight")
        if key not in losses:
            continue
        flat = losses[key].double().flatten(2).sum(2) if losses[key].ndim > 2 else losses[key]
        table = flat.double().cpu().numpy()  # [out, in]
        each = weight_costs[layer.name] * (losses[key][0, 0].numel() if losses[key].ndim > 2 else 1)
        rows = structure.kept[filters.rows]
        made = np.unique(filters.rows)
        np.add.at(loss, filters.rows, table.sum(1))
        sides[made] += 1
        if filters.columns is None:
            np.add.at(cost, filters.rows, np.full(len(rows), each * table.shape[1]))
            continue
        read = structure.inputs.get(layer.name, np.ones(len(filters.columns), bool))
        there = read & structure.kept[filters.columns]
        np.add.at(cost, filters.rows, np.full(len(rows), each * there.sum()))
        np.add.at(cost, filters.columns, each * rows.sum() * there)
        np.add.at(loss, filters.columns, table.sum(0))
        sides[np.unique(filters.columns)] += 1
        inputs += _columns(
            groups, layer.name, filters.spread, there, table.sum(0), each * rows.sum()
        )
    made_by = groups.filter_group
    able = structure.kept & (cost > 0) & (sides > 0) & (made_by != NO_GROUP)
    price = loss / np.maximum(sides, 1) / np.maximum(cost, 1e-30)
    # named by the group that creates a channel: what dies with it follows
    found = [
        Unit(made_by[channel : channel + 1], float(price[channel]))
        for channel in np.flatnonzero(able).tolist()
    ]
    return sorted([*found, *inputs], key=lambda unit: unit.price)


def _columns(
    groups: Groups,
    name: str,
    spread: np.ndarray,
    there: np.ndarray,
    losses: np.ndarray,
    cost: float,
) -> list[Unit]:
    """The single columns of a linear layer behind a flatten, which can be lost without their channel."""
    kinds = groups.reading.get(name, ())
    if not kinds or cost <= 0:
        return []
    return [
        Unit(np.concatenate([ids[place] for ids in kinds]), float(losses[place] / cost))
        for place in np.flatnonzero(there & spread)
    ]
