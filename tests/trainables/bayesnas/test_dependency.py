"""Dependency of switches against a transcription of (3-5) and (3-6) term by term."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from trainables.bayesnas.dependency import Edge, SwitchGraph, SwitchGraphs


def inverse(x: float) -> float:
    return math.inf if x == 0 else 0.0 if math.isinf(x) else 1 / x


def joined(*values: float) -> float:
    """(1 / a + 1 / b + ...)^-1."""
    return inverse(sum(map(inverse, values)))


def transcription(graph: SwitchGraph, s: list[float]) -> list[float]:
    """Switch by switch, by loops over edges."""
    of_edge, place = [], 0
    for edge in graph.edges:
        operations = s[place : place + edge.operations]
        place += edge.operations
        of_edge.append((operations, s[place] if edge.zero else None))
        place += edge.zero
    gammas = []
    for (own, zero), edge in zip(of_edge, graph.edges, strict=True):
        reach = math.inf
        if edge.source >= graph.num_inputs:
            reach = 0.0
            for (before, before_zero), earlier in zip(of_edge, graph.edges, strict=True):
                if earlier.target != edge.source:
                    continue
                for value in before:
                    reach += value if before_zero is None else joined(before_zero, value)
        for value in own:
            gammas.append(joined(reach, value) if zero is None else joined(reach, zero, value))
        if zero is not None:
            gammas.append(joined(reach, zero))
    return gammas


def random_graph(rng: np.random.Generator) -> SwitchGraph:
    num_inputs = int(rng.integers(1, 3))
    num_nodes = num_inputs + int(rng.integers(1, 5))
    edges = [
        Edge(i, j, int(rng.integers(1, 4)), bool(rng.integers(2)))
        for j in range(num_inputs, num_nodes)
        for i in range(j)
        if rng.random() < 0.7
    ]
    rng.shuffle(edges)  # pyright: ignore[reportArgumentType]
    return SwitchGraph(num_inputs, tuple(edges))


def random_variances(rng: np.random.Generator, graph: SwitchGraph) -> torch.Tensor:
    s = np.exp(rng.normal(0, 3, graph.num_switches))
    s[rng.random(len(s)) < 0.15] = 0
    s[rng.random(len(s)) < 0.1] = np.inf
    return torch.from_numpy(s)


@pytest.mark.parametrize("seed", range(20))
def test_gamma_is_that_of_the_formulas_on_any_graph(seed: int) -> None:
    rng = np.random.default_rng(seed)
    graph = random_graph(rng)
    s = random_variances(rng, graph)
    expected = torch.tensor(transcription(graph, s.tolist()), dtype=torch.float64)
    torch.testing.assert_close(graph.dependent_variance(s), expected, rtol=1e-12, atol=0)


def test_the_printed_equation_by_hand() -> None:
    # 0 -> 1 by two operations, 1 -> 2 by one: (1 / (2 + 3) + 1 / 4)^-1
    graph = SwitchGraph(1, (Edge(0, 1, 2), Edge(1, 2, 1)))
    gamma = graph.dependent_variance(torch.tensor([2.0, 3.0, 4.0], dtype=torch.float64))
    assert gamma.tolist() == pytest.approx([2, 3, 20 / 9])
    # with a zero-node before the two: ((1/6 + 1/2)^-1 + (1/6 + 1/3)^-1 = 3.5; (1 / 3.5 + 1 / 4)^-1
    graph = SwitchGraph(1, (Edge(0, 1, 2, zero=True), Edge(1, 2, 1)))
    gamma = graph.dependent_variance(torch.tensor([2.0, 3.0, 6.0, 4.0], dtype=torch.float64))
    assert gamma.tolist() == pytest.approx([1.5, 2, 6, 28 / 15])


def test_without_predecessors_that_are_on_a_switch_is_worth_nothing() -> None:
    graph = SwitchGraph(2, (Edge(0, 2, 3, zero=True), Edge(1, 2, 3), Edge(2, 3, 3, zero=True)))
    s = torch.ones(11)
    s[[0, 1, 2, 4, 5, 6]] = 0  # all operations into node 2; its identity switch is still on
    assert graph.dependent_variance(s)[7:].eq(0).all()
    s = torch.ones(11)
    s[[3, 4, 5, 6]] = 0  # the identity switch in place of its operations
    assert graph.dependent_variance(s)[7:].eq(0).all()
    assert SwitchGraph(1, (Edge(1, 2, 1),)).dependent_variance(torch.ones(1)).item() == 0


@pytest.mark.parametrize("seed", range(5))
def test_gamma_rises_with_every_variance_and_stays_below_its_own(seed: int) -> None:
    rng = np.random.default_rng(seed)
    graph = random_graph(rng)
    s = random_variances(rng, graph)
    gamma = graph.dependent_variance(s)
    assert not gamma.isnan().any()
    assert (gamma <= s * (1 + 1e-12)).all()
    for place in range(len(s)):
        raised = s.clone()
        raised[place] = raised[place] * 2 + 0.1
        assert (graph.dependent_variance(raised) >= gamma * (1 - 1e-12)).all()


def test_graphs_side_by_side_do_not_mix() -> None:
    graph = SwitchGraph(1, (Edge(0, 1, 1), Edge(1, 2, 1)))
    s = torch.tensor([1.0, 1.0, 0.0, 1.0])
    assert SwitchGraphs((graph, graph)).dependent_variance(s).tolist() == [1.0, 0.5, 0.0, 0.0]
