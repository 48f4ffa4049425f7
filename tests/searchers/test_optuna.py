"""Optuna sees the students that were trained, in the states that they ended in."""

from __future__ import annotations

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from searchers.algorithm import Observation
from searchers.optuna import TPEAlgorithm
from searchers.random import RandomAlgorithm
from searchers.testing import make_chain_space


@pytest.fixture
def space():
    return make_chain_space((8, 8, 8), budget={"params": 0.4})


def test_outcomes_reach_optuna_in_their_own_states(space):
    algorithm = TPEAlgorithm(space)
    texts = [algorithm.ask().architecture for _ in range(4)]
    algorithm.tell(Observation(texts[0], 0.8, 1.0, "full", (0.5, 0.8)))
    algorithm.tell(Observation(texts[1], 0.4, 0.5, "stopped", (0.4,)))
    algorithm.tell(Observation(texts[2], None, 0.0, "failed"))
    trials = algorithm.study().trials
    assert [trial.state for trial in trials] == [
        TrialState.COMPLETE,
        TrialState.PRUNED,
        TrialState.FAIL,
        TrialState.RUNNING,
    ]
    assert [trial.value for trial in trials] == [0.8, None, None, None]
    assert trials[0].intermediate_values == {1: 0.5, 2: 0.8}
    assert trials[1].intermediate_values == {1: 0.4}
    assert [trial.user_attrs["architecture"] for trial in trials] == texts


def test_optuna_is_told_the_repaired_student(space):
    algorithm = TPEAlgorithm(space, num_initial=1)
    algorithm.tell(Observation(algorithm.ask().architecture, 0.5, 1.0, "full"))
    text = algorithm.ask().architecture
    params = algorithm.study().trials[-1].params
    edits = space.parse(text)
    for index, group in enumerate(space.groups):
        assert params[f"width_{index}"] * group.size == pytest.approx(edits.widths[index])
    removed = tuple(layer for layer in space.removable if params[f"remove_{layer}"])
    assert removed == edits.remove
    assert space.within_budget(edits).all()


def test_the_uniform_student_comes_first_and_the_model_after_the_initial_ones(space):
    algorithm = TPEAlgorithm(space, num_initial=3)
    origins = []
    for step in range(5):
        proposal = algorithm.ask()
        origins.append(proposal.extra["origin"])
        algorithm.tell(Observation(proposal.architecture, float(step), 1.0, "full"))
    assert origins[:3] == ["uniform", "sample", "sample"]
    assert set(origins[3:]) <= {"model", "mutation"}


def test_more_skips_than_slots_are_kept_in_the_student(space):
    edits = space.largest()
    edits = type(edits)(edits.remove, edits.widths, tuple(range(len(space.skip_pairs))))
    algorithm = TPEAlgorithm(space, num_skips=1)
    algorithm.tell(Observation(str(edits), 0.5, 1.0, "full"))
    assert algorithm.study().trials[0].params["skip_0"] == 1


def test_optunas_verbosity_is_left_as_it_was(space):
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    TPEAlgorithm(space).study()
    assert optuna.logging.get_verbosity() == optuna.logging.ERROR
    optuna.logging.set_verbosity(optuna.logging.INFO)


def test_it_finds_better_students_than_random_search(make_toy_space, accuracy):
    """Six seeds, 40 evaluations; means are compared, seeds are fixed."""
    space = make_toy_space((12,) * 6)
    best = {}
    for algorithm_class in (RandomAlgorithm, TPEAlgorithm):
        best[algorithm_class] = []
        for seed in range(6):
            algorithm, values = algorithm_class(space, seed=seed), []
            for _ in range(40):
                text = algorithm.ask().architecture
                values.append(accuracy(space, text))
                algorithm.tell(Observation(text, values[-1], 1.0, "full"))
            best[algorithm_class].append(max(values))
    gap = np.mean(best[TPEAlgorithm]) - np.mean(best[RandomAlgorithm])
    error = np.sqrt(sum(np.var(values, ddof=1) / 6 for values in best.values()))
    assert gap > 2 * error
