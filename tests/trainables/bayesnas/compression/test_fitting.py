"""Cuts to a limit: what is left fits, fills it, and no cheaper cut was passed over."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from raysearch.architecture import SearchSpace
from raysearch.models import trace
from trainables.bayesnas.compression.fitting import Fitter
from trainables.bayesnas.compression.groups import make_groups
from trainables.bayesnas.compression.places import find_places
from trainables.bayesnas.compression.saliency import group_worth
from trainables.bayesnas.compression.structure import Builder, Structure


def _net() -> nn.Module:
    """Four wide units, each of 60 parameters, and eight narrow ones of 9 behind them."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(50, 4), nn.ReLU(), nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 2)
    )  # fmt: skip


def _losses(module: nn.Module, first: list[float], second: list[float]) -> dict[str, torch.Tensor]:
    """A unit's own weights lose what is given, spread evenly; what reads it loses as much."""
    losses = {f"{n}.weight": torch.full_like(m.weight, 1e3) for n, m in module.named_modules() if isinstance(m, nn.Linear)}  # fmt: skip
    for name, reader, values in (("0", "2", first), ("2", "4", second)):
        made, read = losses[f"{name}.weight"], losses[f"{reader}.weight"]
        made[:] = (torch.tensor(values) / made.shape[1])[:, None]
        if reader == "4":
            read[:] = (torch.tensor(values) / read.shape[0])[None]
    return losses


def _cut(limit: float, first: list[float], second: list[float]) -> tuple[Fitter, Structure]:
    module = _net()
    architecture = trace(module, (50,))
    places = find_places(architecture)
    groups = make_groups(places, ("filter",), ("row",))
    space = SearchSpace(architecture, budget={"params": limit}, divisor=1)
    builder = Builder(space, places, groups)
    fitter = Fitter(builder, space)
    losses = _losses(module, first, second)
    found = fitter.within(
        builder.whole(), space.limits, losses=losses, worth=group_worth(groups, losses)
    )
    return fitter, found


def _widths(fitter: Fitter, structure: Structure) -> tuple[int, ...]:
    return tuple(fitter._builder.edits(structure).widths)


def test_a_large_unit_stays_where_small_ones_are_enough() -> None:
    """A wide unit is the cheapest for what it saves, but costs more than the two narrow ones that are enough."""
    total = sum(p.numel() for p in _net().parameters())
    # 59 parameters for a loss of 3, against 9 for .5 each: per parameter the wide one is cheaper
    fitter, found = _cut(total - 18, [3.0] * 4, [0.5] * 8)
    assert _widths(fitter, found) == (4, 6, 4)
    assert fitter.cost("params", found) == total - 18
    # where much is asked for the wide one goes
    fitter, found = _cut(total - 54, [3.0] * 4, [0.5] * 8)
    assert _widths(fitter, found)[0] == 3


@pytest.mark.parametrize("seed", range(4))
def test_what_is_left_fits_and_the_cut_is_near_the_cheapest(seed: int) -> None:
    """Against all choices of units by brute force, whose losses add up."""
    rng = np.random.default_rng(seed)
    total = sum(p.numel() for p in _net().parameters())
    first, second = rng.uniform(1, 6, 4).tolist(), rng.uniform(0.1, 1, 8).tolist()
    limit = total - float(rng.integers(5, 15))
    fitter, found = _cut(limit, first, second)
    assert fitter.cost("params", found) <= limit
    wide, narrow, _ = _widths(fitter, found)
    lost = sum(sorted(first)[: 4 - wide]) + sum(sorted(second)[: 8 - narrow])
    least = min(
        sum(sorted(first)[:a]) + sum(sorted(second)[:b])
        for a, b in itertools.product(range(4), range(8))
        if total - a * (51 + 8) - b * (4 + 1 + 4) + a * b <= limit
    )
    assert lost <= 1.25 * least
