"""The candidates that an acquisition function chooses from: changes of the best students, and fresh ones.

Within a budget of a few per cent a random student is far worse than the evenly scaled one (most of its BatchNorms and activations are
gone). So half of the fresh candidates there are variations of the scaled one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from searchers.ledger import repeat, unmeasured

if TYPE_CHECKING:
    from raysearch.architecture import EditsBatch, SearchSpace


@dataclass(frozen=True)
class CandidatePool:
    """Draws candidates.

    Attributes:
        space: where they come from.
        size: how many.
        mutation_share: the share that is made of good students, half by mutation and half by variation; the rest are fresh.
        num_parents: how many of the best predicted students they are made of.
        num_edits: the fewest and the most edits of one mutation.
    """

    space: SearchSpace
    size: int = 1000
    mutation_share: float = 0.75
    num_parents: int = 10
    num_edits: tuple[int, int] = (1, 4)

    def draw(
        self, evaluated: EditsBatch, predicted: np.ndarray, rng: np.random.Generator
    ) -> EditsBatch:
        """Mutations and variations of the best predicted students, then fresh ones.

        Args:
            evaluated: n students.
            predicted: [n] what the model makes of their objective.
            rng: draws.
        """
        options = unmeasured(self.space)
        best = np.argsort(-predicted, kind="stable")[: self.num_parents]
        num_made = round(self.mutation_share * self.size)
        num_fresh = self.size - num_made
        num_scaled = num_fresh // 2 if self.space.limits else 0

        def parents(count: int) -> EditsBatch:
            return evaluated[best[rng.integers(len(best), size=count)]]

        def mutated(count: int) -> EditsBatch:
            return self.space.mutate(parents(count), rng, self.num_edits, **options)

        def varied(count: int) -> EditsBatch:
            return self.space.vary(parents(count), rng, **options)

        def scaled(count: int) -> EditsBatch:
            return scaled_variations(self.space, count, rng)

        def sampled(count: int) -> EditsBatch:
            return self.space.sample(count, rng, **options)

        plan = (
            (mutated, num_made - num_made // 2),
            (varied, num_made // 2),
            (scaled, num_scaled),
            (sampled, num_fresh - num_scaled),
        )
        return type(evaluated).concatenate([make(count) for make, count in plan if count])


def scaled_variations(space: SearchSpace, size: int, rng: np.random.Generator) -> EditsBatch:
    """Variations of the uniformly scaled student."""
    return space.vary(repeat(space.uniform(), size), rng, **unmeasured(space))
