"""The reward against the papers' own numbers, and the Pareto front against brute force."""

import numpy as np
import pytest

from raysearch.errors import BudgetError
from raysearch.objective import (
    Measurement,
    accuracy_reward,
    constrained_reward,
    f_reward,
    floor_reward,
    naive_reward,
    pareto_front,
    parse_floor,
    resolve_objective,
    smallest_reward,
)


def measured(accuracy_ratio=1.0, compression=0.0, loss=0.5, floor=None):
    return Measurement(
        accuracy=0.8 * accuracy_ratio,
        loss=loss,
        num_params=round(1_000_000 * (1 - compression)),
        teacher_accuracy=0.8,
        teacher_num_params=1_000_000,
        floor=floor,
    )


@pytest.mark.parametrize(("ratio", "compression", "reward"), [(1, 0.25, 0.4375), (0.25, 1, 0.25)])
def test_f_has_the_two_values_of_n2n_appendix_11_1(ratio, compression, reward):
    assert f_reward(measured(ratio, compression)) == pytest.approx(reward)


def test_a_student_larger_than_the_teacher_gets_minus_one():
    assert f_reward(measured(compression=-0.1)) == -1
    assert naive_reward(measured(compression=-0.1)) == -1


def test_f_rises_with_accuracy_and_with_compression():
    ratios, compressions = np.linspace(0.1, 1, 10), np.linspace(0, 0.99, 10)
    table = np.array([[f_reward(measured(r, c)) for c in compressions] for r in ratios])
    assert (np.diff(table, axis=0) >= 0).all()
    assert (np.diff(table, axis=1) >= 0).all()


def test_the_naive_reward_is_the_product():
    assert naive_reward(measured(0.5, 0.5)) == pytest.approx(0.25)


def test_the_accuracy_reward_is_the_geometric_mean_probability_of_the_right_class():
    probabilities = np.array([0.9, 0.5, 0.7])
    loss = float(-np.log(probabilities).mean())
    expected = float(np.prod(probabilities) ** (1 / 3))
    assert accuracy_reward(measured(loss=loss)) == pytest.approx(expected)


def test_no_trained_student_is_below_the_floor():
    assert floor_reward("accuracy") <= accuracy_reward(measured(loss=1e9))
    assert floor_reward("f") <= f_reward(measured(0, -1))


def test_with_a_floor_any_student_that_reaches_it_beats_any_that_does_not():
    reached = [smallest_reward(measured(r, c, floor=0.6)) for r in (0.75, 1) for c in (0, 0.9)]
    missed = [smallest_reward(measured(r, c, floor=0.6)) for r in (0, 0.7) for c in (0, 0.9)]
    assert min(reached) >= 1 > max(missed)
    assert min(missed) >= floor_reward("smallest")


def test_with_a_floor_the_smaller_student_wins_and_below_it_the_more_accurate():
    compressions, ratios = np.linspace(0, 0.99, 10), np.linspace(0, 0.74, 10)
    above = [smallest_reward(measured(1.0, c, floor=0.6)) for c in compressions]
    assert above == pytest.approx(1 + compressions)
    below = [smallest_reward(measured(r, 0.5, floor=0.6)) for r in ratios]
    assert (np.diff(below) > 0).all()


def test_a_floor_is_an_accuracy_or_a_share_of_the_teacher():
    assert parse_floor(0.95).accuracy(0.5) == 0.95
    assert parse_floor(1).accuracy(0.5) == 1.0
    assert parse_floor("98%").accuracy(0.5) == pytest.approx(0.49)


@pytest.mark.parametrize(
    "value", [0, -0.1, 1.01, 98, "0.9", "0%", "101%", "x%", True, None, float("nan")]
)
def test_another_floor_is_refused(value):
    with pytest.raises(BudgetError, match=r"budget\.accuracy is .*0, 1"):
        parse_floor(value)


def test_auto_is_accuracy_within_a_budget_and_f_without():
    assert resolve_objective("auto", has_budget=True) == "accuracy"
    assert resolve_objective("auto", has_budget=False) == "f"
    assert resolve_objective("naive", has_budget=True) == "naive"
    assert resolve_objective("auto", has_budget=True, has_floor=True) == "smallest"
    assert resolve_objective("f", has_budget=True, has_floor=True) == "f"


@pytest.mark.parametrize("seed", range(20))
def test_the_pareto_front_equals_brute_force(seed):
    rng = np.random.default_rng(seed)
    points = [
        (int(p), float(a)) for p, a in np.c_[rng.integers(1, 9, 30), rng.integers(0, 9, 30) / 9]
    ]

    def beaten(i):
        p, a = points[i]
        return any(
            (q <= p and b >= a and (q < p or b > a)) or ((q, b) == (p, a) and j < i)
            for j, (q, b) in enumerate(points)
            if j != i
        )

    assert pareto_front(points) == [i for i in range(len(points)) if not beaten(i)]


def test_an_empty_front_is_empty():
    assert pareto_front([]) == []


def test_a_hard_constraint_gives_minus_one_and_nothing_else_changes():
    assert constrained_reward(0.7, True) == -1
    assert constrained_reward(0.7, False) == 0.7
    assert constrained_reward(0.7, False, 20) == 0.7


@pytest.mark.parametrize("reward", [-1.0, 0.0, 0.4375, 1.1])
def test_a_soft_constraint_leaves_f_at_first_falls_and_is_hard_from_t_c_on(reward):
    values = [constrained_reward(reward, True, t, 15) for t in range(40)]
    assert values[0] == pytest.approx(reward)
    assert (np.diff(values) <= 0).all()
    assert values[15:] == [-1] * 25
    assert values[5] == pytest.approx((2 / 3) ** 4 * (reward + 1) - 1)
