"""Regularised evolution by hand on a toy."""

from __future__ import annotations

import numpy as np
import pytest

from raysearch.architecture import Architecture, Edits, Layer, SearchSpace
from searchers.algorithm import Observation
from searchers.evolution import EvolutionAlgorithm
from searchers.optuna import TPEAlgorithm
from searchers.random import RandomAlgorithm


@pytest.fixture
def parents(toy_space, monkeypatch):
    """The texts whose mutations are asked for."""
    asked = []
    mutate = toy_space.mutate

    def watch(batch, rng, num_edits=(1, 4)):
        asked.append(str(batch[0]))
        return mutate(batch, rng, num_edits)

    monkeypatch.setattr(toy_space, "mutate", watch)
    return asked


def full(text, value):
    return Observation(text, value, 1.0, "full")


def test_with_a_tournament_of_all_the_parent_is_the_best_living_member(toy_space, texts, parents):
    algorithm = EvolutionAlgorithm(toy_space, population=3, tournament=3)
    for text, value in zip(texts, [0.9, 0.1, 0.5, 0.3], strict=False):
        algorithm.tell(full(text, value))
    algorithm.ask()
    assert parents[0] == texts[2]  # the first one was better, but died of age


def test_a_failed_student_ages_others_but_is_no_parent(toy_space, texts, parents):
    algorithm = EvolutionAlgorithm(toy_space, population=2, tournament=2)
    algorithm.tell(full(texts[0], 0.9))
    algorithm.tell(full(texts[1], 0.1))
    algorithm.tell(Observation(texts[2], None, 0.0, "failed"))
    algorithm.ask()
    assert parents[0] == texts[1]


def test_a_stopped_student_neither_ages_others_nor_is_a_parent(toy_space, texts, parents):
    algorithm = EvolutionAlgorithm(toy_space, population=2, tournament=2)
    algorithm.tell(full(texts[0], 0.9))
    algorithm.tell(full(texts[1], 0.1))
    algorithm.tell(Observation(texts[2], 2.0, 0.5, "stopped"))
    algorithm.ask()
    assert parents[0] == texts[0]


def test_while_nothing_has_a_value_students_are_random(toy_space, texts, parents):
    algorithm = EvolutionAlgorithm(toy_space, population=2, tournament=2)
    for text in texts[:4]:
        algorithm.tell(Observation(text, None, 0.0, "failed"))
    assert algorithm.ask().extra["origin"] == "sample"
    assert parents == []


def test_the_first_students_are_random_until_the_population_is_full(toy_space):
    algorithm = EvolutionAlgorithm(toy_space, population=4, tournament=2)
    origins = []
    for step in range(6):
        proposal = algorithm.ask()
        origins.append(proposal.extra["origin"])
        algorithm.tell(full(proposal.architecture, float(step)))
    assert origins == ["sample"] * 4 + ["mutation"] * 2


def test_it_finds_better_students_than_random_search(make_toy_space, accuracy):
    """Eight seeds, 250 evaluations each; the means are almost five standard errors apart. Seeds are fixed."""
    space = make_toy_space((12,) * 6)
    best = {}
    for algorithm_class in (RandomAlgorithm, EvolutionAlgorithm):
        best[algorithm_class] = []
        for seed in range(8):
            algorithm, values = algorithm_class(space, seed=seed), []
            for _ in range(250):
                text = algorithm.ask().architecture
                values.append(accuracy(space, text))
                algorithm.tell(full(text, values[-1]))
            best[algorithm_class].append(max(values))
    gap = np.mean(best[EvolutionAlgorithm]) - np.mean(best[RandomAlgorithm])
    error = np.sqrt(sum(np.var(values, ddof=1) / 8 for values in best.values()))
    assert gap > 3 * error


@pytest.mark.parametrize("kind", [EvolutionAlgorithm, TPEAlgorithm])
def test_children_of_a_student_that_keeps_some_inputs_have_all(kind):
    """Only a compression chooses single inputs; whoever varies widths would choose among others."""
    layers = [Layer("x", "input", shape=(9,))]
    for name, source, into, out in (("a", "x", 9, 8), ("b", "a", 8, 6), ("c", "b", 6, 4)):
        attrs = {"in_features": into, "out_features": out, "bias": True}
        layers.append(Layer(name, "linear", ((source,),), attrs, (out,)))
    space = SearchSpace(Architecture((9,), tuple(layers), "c"), budget={"params": 0.7})
    algorithm = kind(space, seed=0)
    for kept in range(1, 13):
        edits = Edits((), (8, 1 + kept % 6), (), ((1, tuple(range(kept % 8 + 1))),))
        algorithm.tell(full(str(edits), kept / 20))
    for _ in range(4):
        proposal = algorithm.ask()
        assert not space.parse(proposal.architecture).inputs
        algorithm.tell(full(proposal.architecture, 0.5))
