"""Derived networks: the same as the super-network's paths, read by `trace`, exported, and within their budget."""

from __future__ import annotations

import json
from pathlib import Path as FilePath

import numpy as np
import pytest
import torch
from torch import nn

from raysearch.architecture import Architecture, SearchSpace
from raysearch.architecture.budget import cost
from raysearch.bayesnas.cells import SuperNetSettings
from raysearch.errors import BudgetError, InvalidArchitecture
from raysearch.models import build
from trainables.bayesnas.cells.derivation import cell_paths, kept_in_tree, without_weakest
from trainables.bayesnas.cells.derived import Sizing, costliest_cells, derive
from trainables.bayesnas.cells.genotype import (
    CellGenotype,
    Path,
    TreeGenotype,
    all_paths,
    genotype_from_dict,
)
from trainables.bayesnas.cells.network import live_cells
from trainables.bayesnas.cells.supernet import make_super_net
from trainables.bayesnas.cells.trees import OUTPUT, tree_paths

SHAPE = (1, 8, 8)


def random_cell(rng: np.random.Generator, paths: int = 2) -> tuple[Path, ...]:
    found = []
    for node in range(2, 6):
        into = [path for path in all_paths() if path.target == node]
        found += [into[k] for k in rng.choice(len(into), paths, replace=False)]
    return tuple(found)


def random_genotype(seed: int, paths: int = 2) -> CellGenotype:
    rng = np.random.default_rng(seed)
    return CellGenotype(random_cell(rng, paths), random_cell(rng, paths))


def random_trees(seed: int) -> TreeGenotype:
    rng = np.random.default_rng(seed)
    blocks = []
    for _ in range(3):
        values = rng.random(12).tolist()
        blocks.append(kept_in_tree(tree_paths(), values, output=OUTPUT))
    return TreeGenotype((blocks[0], (), blocks[2]), 1.5, 2)


def sizing(**budget: int) -> Sizing:
    return Sizing(SHAPE, 10, 4, 3, 2, budget)


def weaken(genotype: CellGenotype | TreeGenotype) -> CellGenotype | None:
    assert isinstance(genotype, CellGenotype)
    rest = without_weakest(genotype.normal, [0.0] * len(genotype.normal), spare=True)
    if rest is not None:
        return CellGenotype(rest, genotype.reduction)
    rest = without_weakest(genotype.reduction, [0.0] * len(genotype.reduction), spare=True)
    return None if rest is None else CellGenotype(genotype.normal, rest)


@pytest.mark.parametrize("kind", ["cells", "proxyless"])
def test_a_derived_network_is_the_super_network_with_the_other_switches_at_zero(kind: str) -> None:
    settings = SuperNetSettings.from_dict(
        {"kind": kind, "channels": 4, "num_cells": 3, "blocks": 1, "width": 4, "alpha": 6}
    )
    torch.manual_seed(0)
    net = make_super_net(settings, SHAPE, 10)
    genotype = random_genotype(0) if kind == "cells" else random_trees(0)
    kept = net.kept(genotype)
    switches = net.layout.mask(kept).float()
    derived = derive(genotype, 4, 3, SHAPE, 10)
    own = {**derived.state_dict(), **net.network.state_dict()}
    derived.load_state_dict({name: own[name] for name in derived.state_dict()})
    images = torch.randn(3, *SHAPE)
    expected = derived.eval()(images)
    net.network.eval()
    masked = net.layout.factors(switches, [[True] * len(net.layout.paths)] * len(kept))
    on = [[path in set(paths) for path in net.layout.paths] for paths in kept]
    left_out = net.layout.factors(switches, on)
    # a block that lost its paths is not the same as one whose paths give zero: its last BatchNorm has a shift
    if kind == "cells":
        torch.testing.assert_close(net.logits(images, masked), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(net.logits(images, left_out), expected, rtol=1e-4, atol=1e-5)
    copies = net.layout.factors(switches.expand(3, -1), on)
    torch.testing.assert_close(net.logits(images, copies), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("genotype", [random_genotype(1, 1), random_trees(1)])
def test_a_derived_network_is_traced_counted_built_and_read_back(
    genotype: CellGenotype | TreeGenotype,
) -> None:
    size = sizing()
    sized = size.at(genotype, 4, 3)
    architecture = size.architecture(sized)
    assert not [layer for layer in architecture.layers if layer.op == "opaque"]
    assert architecture.num_params == sized.costs["params"]
    assert architecture.macs == sized.costs["macs"]
    module = build(architecture)
    assert module(torch.randn(2, *SHAPE)).shape == (2, 10)
    again = Architecture.from_compact(architecture.to_compact())
    assert again == architecture
    assert len(architecture.to_compact()) < 8_000
    teacher = size.architecture(size.at(random_genotype(2, 1), 4, 1))
    assert SearchSpace(teacher).apply(architecture.to_compact()) == architecture


def test_a_derived_network_is_exported(tmp_path: FilePath) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    network = derive(random_genotype(3, 1), 4, 2, (1, 7, 7), 10).eval()
    images = torch.randn(2, 1, 7, 7)
    torch.onnx.export(network, (images,), tmp_path / "net.onnx", dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx")
    (found,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
    torch.testing.assert_close(torch.from_numpy(found), network(images), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("seed", range(9))
def test_a_budget_is_kept_and_filled(seed: int) -> None:
    genotype = random_genotype(seed, 1 + seed % 3)
    rng = np.random.default_rng(seed)
    budget = {"params": int(rng.integers(4_000, 60_000)), "macs": int(rng.integers(300_000, 3e6))}
    size = Sizing(SHAPE, 10, 4, 3, 2, budget)
    sized = size.fit(genotype, weaken)
    assert sized is not None
    assert all(sized.costs[metric] <= limit for metric, limit in budget.items())
    wider = size.at(sized.genotype, sized.channels + 1, sized.num_cells)
    assert any(wider.costs[metric] > limit for metric, limit in budget.items())


def test_a_budget_of_memory_is_kept() -> None:
    size = sizing(memory=60_000)
    sized = size.fit(random_genotype(0, 1), weaken)
    assert sized is not None
    assert cost(size.architecture(sized), "memory") <= 60_000


def test_where_the_narrowest_is_too_large_paths_go() -> None:
    genotype = random_genotype(0, 3)
    one_path = sizing().at(costliest_cells(), 2, 1).costs["params"]
    size = Sizing(SHAPE, 10, 4, 1, 2, {"params": one_path})
    assert size.largest(genotype) is None
    sized = size.fit(genotype, weaken)
    assert sized is not None
    assert sized.genotype.num_paths < genotype.num_paths
    assert sized.costs["params"] <= one_path


def test_a_budget_that_cannot_be_kept_is_refused_with_what_is_needed() -> None:
    least = sizing().at(costliest_cells(), 2, 1).costs["params"]
    sizing(params=least).check(costliest_cells())
    with pytest.raises(BudgetError, match=f"needs {least:,}"):
        sizing(params=least - 1).check(costliest_cells())


def test_the_cell_that_is_derived() -> None:
    paths = all_paths()
    gamma = [0.0] * len(paths)
    place = {path: p for p, path in enumerate(paths)}
    chosen = [Path(0, 2, "sep_conv_3x3"), Path(1, 2, "identity"), Path(2, 3, "max_pool_3x3")]
    for path, value in zip(chosen, (0.5, 0.9, 0.06), strict=True):
        gamma[place[path]] = value
    gamma[place[Path(1, 3, "identity")]] = 0.058  # below .05855
    gamma[place[Path(3, 4, "avg_pool_3x3")]] = 0.01
    kept = cell_paths(paths, gamma)
    # nodes 4 and 5 have nothing that passes: the best path, and the first of equals
    assert set(kept) == {*chosen, Path(3, 4, "avg_pool_3x3"), Path(0, 5, "identity")}
    assert Path(0, 2, "sep_conv_3x3") not in cell_paths(paths, gamma, max_paths=1)


def test_branches_of_a_tree_without_root_or_leaves_go() -> None:
    paths = tree_paths()
    gamma = dict.fromkeys(paths, 0.0)
    gamma[Path(0, 1, "conv_3x3")] = 1.0  # no leaf
    gamma[Path(2, 4, "identity")] = 1.0  # no root
    assert kept_in_tree(paths, list(gamma.values()), output=OUTPUT) == ()
    gamma[Path(1, 4, "conv_3x3")] = 1.0
    found = kept_in_tree(paths, list(gamma.values()), output=OUTPUT)
    assert found == (Path(0, 1, "conv_3x3"), Path(1, 4, "conv_3x3"))


def test_cells_that_nothing_reads_are_left_out() -> None:
    skipping = tuple(Path(0, node, "identity") for node in range(2, 6))
    genotype = CellGenotype(skipping, skipping)
    assert live_cells(genotype, 5) == {4, 2, 0}
    network = derive(genotype, 4, 5, SHAPE, 10)
    images = torch.randn(2, *SHAPE)
    network(images).sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_genotypes_survive_json_and_wrong_ones_are_refused() -> None:
    for genotype in (random_genotype(0), random_trees(0)):
        assert genotype_from_dict(json.loads(json.dumps(genotype.to_dict()))) == genotype
    for wrong in (
        {"kind": "rings"},
        {"kind": "cells", "normal": 3, "reduction": []},
        {"kind": "cells", "normal": [[0, 9, "identity"]], "reduction": []},
        {"kind": "cells", "normal": [[0, 2, "identity"]], "reduction": []},
        {"kind": "proxyless", "blocks": [[[1, 0, "identity"]]]},
    ):
        with pytest.raises(InvalidArchitecture, match="genotype"):
            genotype_from_dict(wrong)


def test_the_thesis_count_of_paths() -> None:
    assert len(all_paths()) == 14 * 7
    assert isinstance(derive(random_genotype(0), 4, 8, (3, 32, 32), 10), nn.Module)
