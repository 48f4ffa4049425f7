"""A policy that learns from rollouts."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from searchers.n2n.rollouts import Rollout
from searchers.state import dump_state, load_state
from tests.searchers.n2n.conftest import make_controller, roll


def rollouts(kind, count, seed=0):
    """Random actions over four steps, and rewards."""
    rng = np.random.default_rng(seed)
    top = 2 if kind == "remove" else 10
    return [
        (
            Rollout(number, kind, 0, tuple(rng.integers(top, size=4).tolist()), "a", "a"),
            float(rng.normal()),
        )
        for number in range(count)
    ]


def test_the_better_arm_of_two_is_found():
    controller = make_controller(num_steps=1)
    roll(controller, 200 * 5, lambda actions: float(actions[0] == 0))
    assert controller.iteration == 200
    assert controller.table()[0]["keep"] < 0.05


def test_a_ratio_for_each_step_is_found():
    target = (2, 7, 4)
    controller = make_controller(num_steps=3, kind="shrink", lr=0.01, hidden=50)
    roll(
        controller,
        150 * 5,
        lambda actions: -sum(abs(a - b) for a, b in zip(actions, target, strict=True)) / 27,
    )
    means = [record["mean_reward"] for record in controller.history]
    assert np.mean(means[-20:]) > np.mean(means[:20]) + 0.1
    for row, wanted in zip(controller.table(), target, strict=True):
        assert row["ratio"] == pytest.approx((wanted + 1) / 10, abs=0.2)


@pytest.mark.parametrize("critic", [False, True])
def test_the_order_of_the_rewards_within_a_batch_does_not_matter(kind, critic):
    batch = rollouts(kind, 5)
    states = []
    for order in ([0, 1, 2, 3, 4], [4, 2, 0, 1, 3], [3, 4, 1, 0, 2]):
        controller = make_controller(kind=kind, actor_critic=critic, entropy=0.01)
        for number in order:
            controller.take(*batch[number])
        assert controller.iteration == 1
        states.append(dump_state(controller.state_dict()))
    assert len(set(states)) == 1


def test_an_update_takes_exactly_m_rewards(kind):
    controller = make_controller(kind=kind, rollouts=3)
    before = dump_state(controller.weights())
    for number, (rollout, reward) in enumerate(rollouts(kind, 7)):
        controller.take(rollout, reward)
        assert controller.iteration == (number + 1) // 3
        assert len(controller.batch) == (number + 1) % 3
        assert (dump_state(controller.weights()) == before) is (number < 2)


def test_a_batch_of_equal_rewards_moves_nothing_at_first(kind):
    controller = make_controller(kind=kind)
    before = controller.weights()
    for rollout, _ in rollouts(kind, 5):
        controller.take(rollout, -1.0)
    for name, value in controller.weights().items():
        np.testing.assert_array_equal(value, before[name])
    assert controller.history[0]["baseline"] == -1.0


@pytest.mark.parametrize("critic", [False, True])
def test_a_saved_state_continues_bit_for_bit_from_any_point_of_a_batch(kind, critic):
    options = {"kind": kind, "forced": (1,), "rollouts": 4, "actor_critic": critic}

    def reward_of(actions):
        return float(np.sin(actions).sum())

    for cut in range(9):
        controller, whole = make_controller(**options), make_controller(**options)
        roll(controller, cut, reward_of)
        roll(whole, cut, reward_of)
        text = dump_state(controller.state_dict())
        restored = make_controller(**{**options, "seed": 5})
        restored.load_state_dict(load_state(text))
        assert dump_state(restored.state_dict()) == text
        roll(restored, 6, reward_of)
        roll(whole, 6, reward_of)
        assert dump_state(restored.state_dict()) == dump_state(whole.state_dict())


def test_history_and_table_say_what_was_learned():
    controller = make_controller(num_steps=3, forced=(1,), rollouts=2)
    for number, reward in enumerate((0.2, 0.6, -1.0, 0.0)):
        controller.take(Rollout(number, "remove", 0, (1, 1, 0), "a", "a"), reward)
    first, second = controller.history
    assert (first["stage"], first["iteration"], second["iteration"]) == ("remove", 0, 1)
    assert (first["mean_reward"], first["max_reward"]) == pytest.approx((0.4, 0.6))
    assert (first["baseline"], second["baseline"]) == pytest.approx((0.4, 0.4))
    assert 0 < second["entropy"] <= np.log(2) + 1e-6
    rows = controller.table()
    assert [row["layer"] for row in rows] == ["layer0", "layer2"]
    assert all(0 < row["keep"] < 1 and row["type"] == "conv" for row in rows)


def test_the_table_of_shrinkage_is_the_expectation_along_the_most_probable_path():
    controller = make_controller(num_steps=3, forced=(0,), kind="shrink")
    x, policy = controller._x, controller.policy
    actions = torch.tensor([[9, 0, 0]])
    for step in (1, 2):
        actions[0, step] = policy(x, actions)[0][0, step].argmax()
    chances = policy(x, actions)[0][0].softmax(-1).detach().numpy()
    ratios = [row["ratio"] for row in controller.table()]
    expected = [sum((a + 1) / 10 * chances[step, a] for a in range(10)) for step in (1, 2)]
    assert ratios == pytest.approx(expected, rel=1e-5)


def test_the_gradient_is_taken_at_the_weights_of_the_update_not_of_the_sampling():
    """Rollouts sampled before an update may enter the next one: then their log-probabilities are computed anew."""
    batch = rollouts("remove", 10)
    controller, other = make_controller(), make_controller()
    for rollout, reward in batch:
        controller.take(rollout, reward)
    for rollout, reward in batch:
        other.take(replace(rollout, iteration=rollout.id // 5), reward)
    for name, value in controller.weights().items():
        np.testing.assert_array_equal(value, other.weights()[name])


def test_no_thread_setting_is_left_behind(kind):
    torch.set_num_threads(2)
    try:
        controller = make_controller(kind=kind)
        roll(controller, 5, lambda actions: 0.0)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


def test_all_removals_of_a_small_teacher_are_reached():
    controller = make_controller(num_steps=3)
    seen = {tuple(controller.sample().actions.tolist()) for _ in range(300)}
    assert seen == set(itertools.product((0, 1), repeat=3))


def test_a_batch_of_known_students_spreads_the_probabilities_and_one_with_a_new_one_does_not():
    def entropy_after(known, explore):
        controller = make_controller(num_steps=1, explore=explore)
        roll(controller, 40 * 5, lambda actions: float(actions[0] == 0))
        for number in range(150):
            one = Rollout(number, "remove", 0, (0,), "0", "0", known=number % 5 != known)
            controller.take(one, 1.0)
        return controller.history[-1]["entropy"]

    repeats, with_a_new_one, plain = (entropy_after(k, e) for k, e in ((5, 0.1), (2, 0.1), (5, 0)))
    assert repeats > plain + 0.05
    assert with_a_new_one == plain
