"""What losing a channel or an input would cost, and what it would save: which of them go first where a budget asks for more than the prior does.

A group of weights at the fixed point of the iteration dies when lambda exceeds about H w^2 / 2 per weight. So the units that would die next as lambda
grows are those of the least quadratic loss for what they take of the budget; taking them away in this order is raising lambda. A budget compares units of different
layers, for which the loss of a unit as a whole is needed (`gates`, `Coherence`); the fixed point itself is by the diagonal, as the thesis has it.
"""

from __future__ import annotations

import math
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
        loss: what losing it would cost.
        saved: what it takes of the budget now, > 0.
    """

    groups: np.ndarray
    loss: float
    saved: float

    @property
    def price(self) -> float:
        """The loss for what it saves; the least goes first."""
        return self.loss / max(self.saved, 1e-30)


def quadratic_loss(
    weights: Mapping[str, torch.Tensor], hessian: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """H w^2 / 2 of every weight: the change of the loss if it alone were zero (Optimal Brain Damage)."""
    return {key: hessian[key] * weights[key].detach().square() / 2 for key in hessian}


def group_worth(groups: Groups, losses: Mapping[str, torch.Tensor]) -> np.ndarray:
    """[G] the quadratic loss of each group."""
    return groups.sums({key: losses[key] for key in groups.keys}).double().numpy()


@dataclass(frozen=True, eq=False)
class Coherence:
    """What channels and inputs lose as a whole, over the sum of what their weights would lose alone (`gates`).

    Attributes:
        channels: [channels].
        inputs: layer -> [in].
    """

    channels: np.ndarray
    inputs: Mapping[str, np.ndarray]


def coherence(
    places: Places,
    losses: Mapping[str, torch.Tensor],
    channels: np.ndarray,
    inputs: Mapping[str, np.ndarray],
) -> Coherence:
    """By the losses of whole channels [channels] and inputs (layer -> [in]), and the `quadratic_loss` of the same weights; 1 where these have none."""
    tables = _tables(places, losses)
    alone = _channel_losses(places, tables)
    ratios = {
        name: _ratio(inputs[name], table.sum(0))
        for name, table in tables.items()
        if name in inputs and table.shape[1] == len(inputs[name])
    }
    return Coherence(_ratio(channels, alone), ratios)


def units(
    places: Places,
    groups: Groups,
    structure: Structure,
    losses: Mapping[str, torch.Tensor],
    weight_costs: Mapping[str, float],
    together: Coherence | None = None,
) -> list[Unit]:
    """The kept channels, and the inputs that are read by columns of their own, in the order in which they go.

    Args:
        losses: `quadratic_loss` of the living weights (zero for the dead).
        weight_costs: layer -> what one of its weights takes of the budget.
        together: what their weights lose together; None: as much as alone.
    """
    tables = _tables(places, losses)
    cost = np.zeros(places.num_channels)
    inputs: list[Unit] = []
    for filters in places.filters:
        layer = filters.layer
        table = tables.get(layer.name)
        if table is None:
            continue
        each = weight_costs[layer.name] * math.prod(layer.param_shapes["weight"][2:])
        rows = structure.kept[filters.rows]
        if filters.columns is None:
            np.add.at(cost, filters.rows, np.full(len(rows), each * table.shape[1]))
            continue
        read = structure.inputs.get(layer.name, np.ones(len(filters.columns), bool))
        there = read & structure.kept[filters.columns]
        np.add.at(cost, filters.rows, np.full(len(rows), each * there.sum()))
        np.add.at(cost, filters.columns, each * rows.sum() * there)
        loss = table.sum(0)
        if together is not None and layer.name in together.inputs:
            loss = loss * together.inputs[layer.name]
        inputs += _columns(groups, layer.name, filters.spread, there, loss, each * rows.sum())
    loss = _channel_losses(places, tables)
    if together is not None:
        loss = loss * together.channels
    made_by = groups.filter_group
    able = structure.kept & (cost > 0) & (made_by != NO_GROUP)
    # named by the group that creates a channel: what dies with it follows
    found = [
        Unit(made_by[channel : channel + 1], float(loss[channel]), float(cost[channel]))
        for channel in np.flatnonzero(able).tolist()
    ]
    return sorted([*found, *inputs], key=lambda unit: unit.price)


def _tables(places: Places, losses: Mapping[str, torch.Tensor]) -> dict[str, np.ndarray]:
    """Layer -> [out, in] the losses of its weights, kernels summed."""
    found: dict[str, np.ndarray] = {}
    for filters in places.filters:
        key = filters.layer.params.get("weight", f"{filters.layer.name}.weight")
        if key in losses:
            loss = losses[key].double()
            table = loss.flatten(2).sum(2) if loss.ndim > 2 else loss
            found[filters.layer.name] = table.cpu().numpy()
    return found


def _channel_losses(places: Places, tables: Mapping[str, np.ndarray]) -> np.ndarray:
    """[channels] the mean over the layers that create or read a channel of the losses of their weights."""
    loss, sides = np.zeros(places.num_channels), np.zeros(places.num_channels)
    for filters in places.filters:
        table = tables.get(filters.layer.name)
        if table is None:
            continue
        np.add.at(loss, filters.rows, table.sum(1))
        sides[np.unique(filters.rows)] += 1
        if filters.columns is not None:
            np.add.at(loss, filters.columns, table.sum(0))
            sides[np.unique(filters.columns)] += 1
    return loss / np.maximum(sides, 1)


def _ratio(whole: np.ndarray, parts: np.ndarray) -> np.ndarray:
    return np.divide(whole, parts, out=np.ones_like(parts), where=(parts > 0) & (whole > 0))


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
        Unit(np.concatenate([ids[place] for ids in kinds]), float(losses[place]), cost)
        for place in np.flatnonzero(there & spread)
    ]
