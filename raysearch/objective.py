"""The reward of a student, shared by all methods (N2N section 3.3, ESNAC equation 6).

Notation
    C    compression 1 - #params(student) / #params(teacher), in [0, 1)
    R_c  C (2 - C)
    R_a  accuracy of the student / accuracy of the teacher
    f    R_c R_a

With an accuracy floor the smallest student that reaches it is wanted: it is rewarded with 1 + C, and all that miss the floor with the
share of it that they reach, which is below 1. So the values of a search tell its model two things: below 1 how accuracy depends on
the architecture, above 1 how small the students are that do. A short training reaches less than the full one: the search errs on
the large side, and the ranking after the full training decides.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from raysearch.errors import BudgetError

ObjectiveName = Literal["f", "naive", "accuracy", "smallest"]

DEGENERATE_REWARD = -1.0
"""N2N's reward of a student that is not smaller than its teacher."""


@dataclass(frozen=True)
class Measurement:
    """What is known of one trained student.

    Attributes:
        accuracy, teacher_accuracy: on the validation part, in [0, 1].
        loss: validation cross-entropy in nats.
        num_params, teacher_num_params: trainable parameters, or another size that C is asked of.
        floor: the accuracy that is wanted at least; None: none.
    """

    accuracy: float
    loss: float
    num_params: int
    teacher_accuracy: float
    teacher_num_params: int
    floor: float | None = None

    @property
    def compression(self) -> float:
        """C = 1 - p / p_t."""
        return compression(self.num_params, self.teacher_num_params)


def compression(num_params: int, teacher_num_params: int) -> float:
    """C = 1 - p / p_t; negative for a student that is larger than its teacher."""
    return 1.0 - num_params / teacher_num_params


def f_reward(m: Measurement) -> float:
    """f = C (2 - C) A / A_t; -1 for a student larger than its teacher."""
    c = m.compression
    return DEGENERATE_REWARD if c < 0 else c * (2 - c) * m.accuracy / m.teacher_accuracy


def naive_reward(m: Measurement) -> float:
    """C A / A_t (N2N appendix 11.1), offered to reproduce the comparison."""
    c = m.compression
    return DEGENERATE_REWARD if c < 0 else c * m.accuracy / m.teacher_accuracy


SOFT_ITERATIONS = 15
"""T_c of the soft constraints, as in N2N's code."""


def softness(iteration: int, soft_iterations: int = SOFT_ITERATIONS) -> float:
    """eps_t = max(0, 1 - t / T_c)^4: 1 at first, falling, 0 from T_c on.

    DEVIATION: N2N's code clips (1 - t / T_c)^4 to [0, 1], which rises again after T_c, because 4 is even; the paper asks for a
    monotone schedule.
    """
    return max(0.0, 1.0 - iteration / soft_iterations) ** 4


def constrained_reward(
    reward: float,
    violated: bool,
    iteration: int | None = None,
    soft_iterations: int = SOFT_ITERATIONS,
    *,
    worst: float = DEGENERATE_REWARD,
) -> float:
    """The reward under constraints (N2N section 3.3.1).

    Args:
        reward: f, or another reward that is at least `worst`.
        violated: whether the student misses a constraint.
        iteration: None: hard, a violation gives `worst`; t from 0 on: soft, it gives eps_t (reward - worst) + worst.
        soft_iterations: T_c, from which on soft is hard.
        worst: the paper's -1, which is below every f.
    """
    if not violated:
        return reward
    eps = 0.0 if iteration is None else softness(iteration, soft_iterations)
    return eps * (reward - worst) + worst


def accuracy_reward(m: Measurement) -> float:
    """exp(-validation cross-entropy), the geometric mean of the probability given to the right class.

    Inside a hard budget all students have one size, and the accuracy of a short training does not rank them; the cross-entropy does.
    """
    return math.exp(-m.loss)


def smallest_reward(m: Measurement) -> float:
    """1 + C where the floor is reached, else the share of the floor that is."""
    floor = m.floor or 0.0
    if m.accuracy >= floor:
        return 1.0 + m.compression
    return m.accuracy / floor


@dataclass(frozen=True)
class Floor:
    """The accuracy that a student must reach: an accuracy in (0, 1], or a share of the teacher's."""

    value: float
    of_teacher: bool = False

    def accuracy(self, teacher_accuracy: float) -> float:
        """The absolute accuracy, in [0, 1]."""
        return self.value * teacher_accuracy if self.of_teacher else self.value


def parse_floor(value: object) -> Floor:
    """Reads `budget.accuracy`: a number in (0, 1] is an accuracy, text such as "98%" a share of the teacher's.

    Raises:
        BudgetError: it is neither.
    """
    help_text = "give an accuracy in (0, 1], or a share of the teacher's such as '98%'"
    if isinstance(value, str) and value.strip().endswith("%"):
        try:
            share = float(value.strip()[:-1])
        except ValueError:
            share = math.nan
        if 0 < share <= 100:
            return Floor(share / 100, of_teacher=True)
    elif isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= 1:
        return Floor(float(value))
    raise BudgetError(f"budget.accuracy is {value!r}: {help_text}")


REWARDS: dict[ObjectiveName, Callable[[Measurement], float]] = {
    "f": f_reward,
    "naive": naive_reward,
    "accuracy": accuracy_reward,
    "smallest": smallest_reward,
}


def resolve_objective(
    objective: str, *, has_budget: bool, has_floor: bool = False
) -> ObjectiveName:
    """`auto` is `smallest` with an accuracy floor, `accuracy` within another budget, and f without one."""
    if objective == "auto" and has_floor:
        return "smallest"
    if objective == "auto":
        return "accuracy" if has_budget else "f"
    for name in REWARDS:
        if name == objective:
            return name
    raise ValueError(f"unknown objective {objective!r}")


def floor_reward(objective: ObjectiveName) -> float:
    """The reward of a student that could not be trained: no trained one is below it."""
    return 0.0 if objective in ("accuracy", "smallest") else DEGENERATE_REWARD


def final_order(
    objective: ObjectiveName,
    *,
    accuracy: float,
    loss: float,
    reward: float,
    size: float,
    floor: float | None,
) -> tuple[float, ...]:
    """What fully trained students are sorted by, the best first.

    With a floor the smallest student that reaches it comes first, and those that miss it by their accuracy. Within another budget
    the cross-entropy counts, which is less of a lottery than the accuracy on some hundred images; without one the reward.

    Args:
        accuracy, loss, reward: on the validation part.
        size: what is made small with a floor.
        floor: the accuracy that is asked for, in [0, 1]; None: none is.
    """
    if floor is not None and accuracy >= floor:
        return (0, size, loss)
    if floor is not None:
        return (1, -accuracy, loss)
    if objective == "accuracy":
        return (loss, -accuracy)
    return (-reward, loss)


def pareto_front(points: Iterable[Sequence[float]]) -> list[int]:
    """The positions of the points (num_params, accuracy) that no other point beats in both: smaller is better, then higher.

    Of equal points the first stays.
    """
    indexed = sorted(enumerate(points), key=lambda item: (item[1][0], -item[1][1], item[0]))
    front, best = [], -math.inf
    for position, point in indexed:
        if point[1] > best:
            front.append(position)
            best = point[1]
    return sorted(front)
