"""What a surrogate models: the objective, or only its unknown part.

Where the objective is f = R_c R_a of the papers, parameters and so R_c = C (2 - C) are exact before any training. Then only the
accuracy ratio R_a is modelled, and what is known of f follows from it ("composite").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from raysearch.errors import ConfigError
from searchers.algorithm import Observation

if TYPE_CHECKING:
    from raysearch.architecture import EditsBatch, SearchSpace

NEEDED = frozenset({"accuracy", "teacher_accuracy", "compression"})
"""Metrics that the composite form needs."""

LEAST_FACTOR = 1e-9
"""Stands for R_c = 0."""


@dataclass(frozen=True)
class Targets:
    """The modelled quantity a of f = c a.

    Attributes:
        space: where the students come from.
        composite: a is the accuracy ratio and c = R_c; else a is the objective and c = 1.
    """

    space: SearchSpace
    composite: bool

    @classmethod
    def of(cls, space: SearchSpace, full: Sequence[Observation], composite: bool | None) -> Targets:
        """Decides the form.

        Args:
            space: where the students come from.
            full: observations of full trainings.
            composite: None: where the space has no budget and the observed values are f of the observed metrics.

        Raises:
            ConfigError: composite is wanted and the metrics are not there.
        """
        if composite and not all(one.metrics.keys() >= NEEDED for one in full):
            raise ConfigError(
                f"search.options.composite is true, but a trial did not report all of {', '.join(sorted(NEEDED))}: set it to null"
            )
        if composite is None:
            composite = not space.limits and all(_is_f(observation) for observation in full)
        return cls(space, composite)

    def values(self, full: Sequence[Observation]) -> np.ndarray:
        """a of each observation: [n] float64."""
        return np.array([ratio(one) if self.composite else one.value for one in full], float)

    def factor(self, batch: EditsBatch) -> np.ndarray:
        """c of each student: [n] float64, positive."""
        if not self.composite:
            return np.ones(len(batch))
        compression = 1 - self.space.num_params(batch) / self.space.teacher.num_params
        # a student as large as the teacher has R_c = 0; the floor keeps the logarithm finite
        return np.maximum(compression * (2 - compression), LEAST_FACTOR)

    def true_factor(self, batch: EditsBatch) -> np.ndarray:
        """c of each student, without the floor: the size alone may make f zero. [n] float64."""
        factor = self.factor(batch)
        factor[factor <= LEAST_FACTOR] = 0.0
        return factor


def check_composite(value: object) -> bool | None:
    """Returns the option `composite` after checking it.

    Raises:
        ConfigError: neither a boolean nor None.
    """
    if value is None or isinstance(value, bool):
        return value
    raise ConfigError(f"search.options.composite must be true, false or null, got {value!r}")


def ratio(observation: Observation) -> float:
    """R_a, the student's accuracy over the teacher's."""
    return observation.metrics["accuracy"] / observation.metrics["teacher_accuracy"]


def _is_f(observation: Observation) -> bool:
    """Whether the value is f = C (2 - C) A / A_teacher of the metrics."""
    metrics = observation.metrics
    if not metrics.keys() >= NEEDED:
        return False
    if metrics["teacher_accuracy"] <= 0 or observation.value is None:
        return False
    compression = metrics["compression"]
    f = compression * (2 - compression) * ratio(observation)
    return bool(np.isclose(observation.value, f, rtol=1e-3, atol=1e-6))
