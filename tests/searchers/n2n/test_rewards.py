"""Which reward a rollout gets, from which outcome, and what a missed constraint costs."""

from __future__ import annotations

import pytest

from raysearch.architecture import SearchSpace
from searchers.algorithm import Observation
from searchers.n2n.algorithm import N2NAlgorithm
from searchers.testing import make_chain_space, run
from tests.architecture.conftest import resnet
from tests.searchers.n2n.conftest import full, make_space, rewards_of


def test_rewards_follow_the_rules():
    space = make_space()
    algorithm = N2NAlgorithm(space, num_trials=50, rollouts=20)
    proposals = [algorithm.ask() for _ in range(4)]
    algorithm.tell(full(proposals[1], 0.5))
    algorithm.tell(Observation(proposals[3].architecture, None, 0.2, "failed"))
    algorithm.tell(Observation(proposals[0].architecture, 0.9, 0.2, "stopped"))
    known = [reward for reward in rewards_of(algorithm) if reward not in (-1.0,)]
    assert known == [0.5]  # the early-stopped one is dropped
    assert len(algorithm._open) == 1 + algorithm._num_followers
    algorithm.tell(full(proposals[2], 0.25))
    assert 0.25 in rewards_of(algorithm)
    assert not algorithm._open


def test_a_degenerate_student_costs_no_trial():
    space = SearchSpace(resnet(input_shape=(3, 8, 8)))
    algorithm = N2NAlgorithm(space, num_trials=1000, refit=True, rollouts=1000)
    for _ in range(30):
        algorithm.ask()
    degenerate = [one for one in algorithm._controllers["remove"].batch if one.architecture is None]
    assert {one.reward for one in degenerate} <= {-1.0}
    assert len(degenerate) == algorithm._num_rollouts - 30 - algorithm._num_followers


def test_known_students_are_answered_and_students_in_training_waited_for():
    space = make_chain_space((4, 4), grouping="by_size", operations=("remove",))
    algorithm = N2NAlgorithm(space, num_trials=1000, rollouts=3)
    proposals = []
    while (proposal := algorithm.ask()) is not None:
        proposals.append(proposal)  # until three wait for students that are in training
    assert algorithm._num_followers == 3
    assert len({space.architecture_id(one.architecture) for one in proposals}) == len(proposals)
    for number, proposal in enumerate(proposals):
        algorithm.tell(full(proposal, number / 10))
    assert not algorithm._open
    updates = algorithm._controllers["remove"].iteration
    assert 3 * updates + len(rewards_of(algorithm)) == algorithm._num_rollouts


def test_results_of_others_enter_no_gradient_but_answer_what_is_sampled_later():
    space = make_space()
    foreseen = [one.architecture for one in run(N2NAlgorithm(space, num_trials=50), space, 3)]
    algorithm = N2NAlgorithm(space, num_trials=50)
    for text in foreseen:
        algorithm.tell(Observation(text, 0.6, 1.0, "full", extra={"rollout": 0}))
    assert not algorithm._controllers
    algorithm.ask()
    assert rewards_of(algorithm).count(0.6) >= 1


def test_a_result_closes_the_rollout_of_its_architecture_whoever_trained_it():
    space = make_space()
    algorithm = N2NAlgorithm(space, num_trials=50, rollouts=50)
    proposal = algorithm.ask()
    algorithm.tell(Observation(proposal.architecture, 0.6, 1.0, "full"))
    assert rewards_of(algorithm)[-1] == 0.6
    algorithm.tell(Observation(proposal.architecture, 0.6, 1.0, "full"))
    assert rewards_of(algorithm).count(0.6) == 1


def test_constraints_are_hard_or_soft():
    space = make_space()
    outcomes = {}
    for constraint in ("hard", "soft"):
        algorithm = N2NAlgorithm(
            space,
            stages="shrink",
            rollouts=1,
            num_trials=50,
            constraints=["accuracy >= 0.9"],
            constraint=constraint,
            soft_iterations=4,
        )
        for accuracy in (0.95, 0.5, 0.5, 0.5, 0.5):
            algorithm.tell(full(algorithm.ask(), 0.6, accuracy=accuracy))
        outcomes[constraint] = [row["mean_reward"] for row in algorithm.history()]
    assert outcomes["hard"] == pytest.approx([0.6, -1, -1, -1, -1])
    soft = [(1 - t / 4) ** 4 * 1.6 - 1 for t in (1, 2, 3, 4)]
    assert outcomes["soft"] == pytest.approx([0.6, *soft])


def test_a_student_that_misses_a_constraint_is_not_what_stage_two_begins_with():
    space = make_space()
    algorithm = N2NAlgorithm(
        space, num_trials=10, removal_share=0.2, constraints=["accuracy >= 0.9"], constraint="soft"
    )
    first, second = algorithm.ask(), algorithm.ask()
    algorithm.tell(full(first, 0.9, accuracy=0.5))
    algorithm.tell(full(second, 0.3, accuracy=0.95))
    edits = space.parse(algorithm.ask().architecture)
    assert edits.remove == space.parse(second.architecture).remove


def test_no_failure_is_worth_more_than_a_student_whatever_the_metric_s_scale():
    """A loss of some units, minimised: values below -1."""
    space = make_space()
    options = {"constraints": ["accuracy >= 0.9"], "constraint": "soft", "soft_iterations": 4}
    algorithm = N2NAlgorithm(space, stages="shrink", rollouts=1, num_trials=50, **options)
    algorithm.tell(full(algorithm.ask(), -3.0, accuracy=0.95))
    algorithm.tell(Observation(algorithm.ask().architecture, None, 0.0, "failed"))
    algorithm.tell(full(algorithm.ask(), -2.0, accuracy=0.5))
    rewards = [row["mean_reward"] for row in algorithm.history()]
    assert rewards == pytest.approx([-3, -3, (1 - 2 / 4) ** 4 * (-2 + 3) - 3])


def test_students_that_miss_a_constraint_are_not_admitted():
    space = make_space()
    algorithm = N2NAlgorithm(
        space, num_trials=10, constraints=["accuracy >= 0.9"], constraint="soft"
    )
    proposal = algorithm.ask()
    assert algorithm.admits(full(proposal, 0.5, accuracy=0.9))
    assert not algorithm.admits(full(proposal, 0.9, accuracy=0.89))
    assert N2NAlgorithm(space, num_trials=10).admits(full(proposal, 0.5))
