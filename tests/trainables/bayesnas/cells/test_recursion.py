"""The recursion on whole super-networks against another form of it: for each factor, forward, by the squares of dense Jacobians.

A factor adds to what the loss is curved by, at each output z it multiplies, u = z^2; a layer with the Jacobian J makes u into (J o J) u,
and at the logits the curvature is sum_k p_k (1 - p_k) u_k.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pytest
import torch
from torch import nn
from torch.func import jacrev

from raysearch.bayesnas.cells import SuperNetSettings
from trainables.bayesnas.cells.network import Cell, CellNetwork
from trainables.bayesnas.cells.operations import FactorizedReduce
from trainables.bayesnas.cells.recursion import SwitchRecursion
from trainables.bayesnas.cells.supernet import SuperNet, make_super_net
from trainables.bayesnas.cells.trees import Tree, TreeNetwork

Pair = tuple[torch.Tensor, torch.Tensor]
"""x of one image [1, C, H, W], and u for each factor [C H W, F]."""


def through(module: nn.Module, pair: Pair) -> Pair:
    """A module of layers."""
    if isinstance(module, nn.Sequential):
        for layer in module:
            pair = through(layer, pair)
        return pair
    if isinstance(module, FactorizedReduce):
        x, u = through(module.relu, pair)
        places = torch.arange(x.numel()).view_as(x)
        height, width = (2 * ((side + 1) // 2) for side in x.shape[2:])
        moved = torch.zeros(1, x.shape[1], height, width).to(x)
        sources = torch.full(moved.shape, -1)
        for row in range(x.shape[2] - 1):
            for column in range(x.shape[3] - 1):
                moved[0, :, row, column] = x[0, :, row + 1, column + 1]
                sources[0, :, row, column] = places[0, :, row + 1, column + 1]
        sources = sources.flatten()
        of_moved = torch.where(sources[:, None] >= 0, u[sources.clamp(min=0)], 0.0)
        halves = [through(module.even, (x, u)), through(module.odd, (moved, of_moved))]
        return through(module.bn, beside(halves))
    x, u = pair
    written = module(x)
    dense = jacrev(module)(x).reshape(written.numel(), x.numel())
    return written, dense.square() @ u


def added(pairs: Iterable[Pair]) -> Pair:
    xs, us = zip(*pairs, strict=True)
    return sum(xs[1:], xs[0]), sum(us[1:], us[0])


def beside(pairs: Iterable[Pair]) -> Pair:
    """Concatenated channels."""
    xs, us = zip(*pairs, strict=True)
    return torch.cat(xs, dim=1), torch.cat(us)


def gated(pair: Pair, values: torch.Tensor, which: int) -> Pair:
    """Multiplied by the factor of a number."""
    z, u = pair
    scaled = values[which] ** 2 * u
    scaled[:, which] += z.flatten() ** 2
    return values[which] * z, scaled


Numbers = Sequence[int | None]
"""The number of each path's factor in the vector of all; None: the path is off."""


def of_cell(cell: Cell, before: Sequence[Pair], numbers: Numbers, values: torch.Tensor) -> Pair:
    nodes = {int(name): through(shrink, before[int(name)]) for name, shrink in cell.inputs.items()}
    for target in range(2, 6):
        terms = []
        for path, number in zip(cell.paths, numbers, strict=True):
            if path.target == target and number is not None:
                operation = cell.operations[f"{path.source}_{path.target}_{path.operation}"]
                terms.append(gated(through(operation, nodes[path.source]), values, number))
        nodes[target] = added(terms)
    return beside(nodes[target] for target in range(2, 6))


def of_cells(
    network: CellNetwork, start: Pair, groups: Sequence[Numbers], values: torch.Tensor
) -> Pair:
    stem = through(network.stem, start)
    before = [stem, stem]
    for place in range(network.num_cells):
        cell = network.cells[str(place)]
        assert isinstance(cell, Cell)
        numbers = groups[int(place in network.reductions)]
        before = [before[1], of_cell(cell, before, numbers, values)]
    return before[1]


def of_tree(tree: Tree, root: Pair, numbers: Numbers, values: torch.Tensor) -> Pair:
    into: dict[int, list[Pair]] = {0: [root]}
    for path, number in zip(tree.paths, numbers, strict=True):
        if number is not None:
            operation = tree.operations[f"{path.source}_{path.target}_{path.operation}"]
            found = gated(through(operation, added(into[path.source])), values, number)
            into.setdefault(path.target, []).append(found)
    return added(into[4])


def of_trees(
    network: TreeNetwork, start: Pair, groups: Sequence[Numbers], values: torch.Tensor
) -> Pair:
    pair = through(network.stem, start)
    for block, numbers in zip(network.blocks, groups, strict=True):
        x, u = through(block.halve, pair)
        empty = torch.zeros(1, block.missing, *x.shape[2:]).to(x)
        shortcut = beside([(x, u), (empty, u.new_zeros(empty.numel(), u.shape[1]))])
        pair, before = shortcut, pair
        if any(number is not None for number in numbers):
            inside = of_tree(block.tree, through(block.before, before), numbers, values)
            pair = added([through(block.after, inside), shortcut])
    return pair


def forward_recursion(
    net: SuperNet, image: torch.Tensor, on: Sequence[Sequence[bool]], values: torch.Tensor
) -> torch.Tensor:
    """The curvature of each factor: [F]."""
    places = iter(range(len(values)))
    groups = [[next(places) if there else None for there in group] for group in on]
    start = image, image.new_zeros(image.numel(), len(values))
    network = net.network
    if isinstance(network, CellNetwork):
        features = of_cells(network, start, groups, values)
    else:
        assert isinstance(network, TreeNetwork)
        features = of_trees(network, start, groups, values)
    x, u = through(network.head, features)
    logits, u = through(network.classifier, (x.flatten(1), u))
    p = logits.softmax(1)[0]
    return (p * (1 - p)) @ u


SETTINGS = {
    "cells": SuperNetSettings(channels=2, num_cells=3),
    "proxyless": SuperNetSettings(kind="proxyless", width=4, alpha=6, blocks=1),
}
SHAPE = (1, 5, 6)


@pytest.fixture(params=list(SETTINGS))
def net(request: pytest.FixtureRequest) -> SuperNet:
    torch.manual_seed(0)
    net = make_super_net(SETTINGS[request.param], SHAPE, 3)
    net.network.double()
    for layer in net.network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            assert layer.running_mean is not None
            assert layer.running_var is not None
            layer.running_mean.normal_(std=0.3)
            layer.running_var.uniform_(0.2, 2)
            if layer.affine:
                nn.init.uniform_(layer.weight, 0.5, 2)
    return net


def test_the_graph_gives_the_recursion_of_the_whole_super_network(net: SuperNet) -> None:
    layout, names = net.layout, net.layout.names
    net.network.eval()
    generator = torch.Generator().manual_seed(1)
    switches = torch.empty(len(names), dtype=torch.float64).uniform_(0.3, 1.5, generator=generator)
    on = [[place % 5 != 4 for place in range(len(layout.paths))] for _ in layout.groups]
    if len(on) == 3:
        on[1] = [False] * len(layout.paths)  # the block's shortcut alone
    images = torch.randn(2, *SHAPE, dtype=torch.float64, generator=generator)
    found = SwitchRecursion(net, on).diagonal(images, torch.tensor([0, 2]), switches)
    assert found.ge(0).all()

    values, owners = [], []  # of the factors that are there: w_ii' w_i'j, and the places of both
    for group, there in zip(layout.groups, on, strict=True):
        for path, is_on in zip(layout.paths, there, strict=True):
            if is_on:
                zero = f"{group}/{path.source}->{path.target}/zero"
                own = [names.index(f"{group}/{path.name}")]
                own += [names.index(zero)] if zero in names else []
                values.append(switches[own].prod())
                owners.append(own)
    with torch.no_grad():
        each = [forward_recursion(net, one[None], on, torch.stack(values)) for one in images]
    wanted = torch.zeros_like(switches)
    for curvature, own in zip(torch.stack(each).mean(0), owners, strict=True):
        for place in own:
            others = [switches[other] for other in own if other != place]
            wanted[place] += curvature * (others[0] ** 2 if others else 1)
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=0)
    read = {place for own in owners for place in own}
    assert all((float(found[place]) > 0) == (place in read) for place in range(len(names)))
