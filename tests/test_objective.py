"""The reward against the papers' own numbers, and the Pareto front against brute force."""

import numpy as np
import pytest

from raysearch.objective import (
    Measurement,
    accuracy_reward,
    f_reward,
    floor_reward,
    naive_reward,
    pareto_front,
    resolve_objective,
)


def measured(accuracy_ratio=1.0, compression=0.0, loss=0.5):
    return Measurement(
        accuracy=0.8 * accuracy_ratio,
        loss=loss,
        num_params=round(1_000_000 * (1 - compression)),
        teacher_accuracy=0.8,
        teacher_num_params=1_000_000,
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


def test_auto_is_accuracy_within_a_budget_and_f_without():
    assert resolve_objective("auto", has_budget=True) == "accuracy"
    assert resolve_objective("auto", has_budget=False) == "f"
    assert resolve_objective("naive", has_budget=True) == "naive"


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
