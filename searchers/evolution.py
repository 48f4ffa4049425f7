"""Regularised evolution (Real, Aggarwal, Huang and Le, "Regularized Evolution for Image Classifier Architecture Search", 2019).

Algorithm 1 of the paper, without its barrier: the population is the last P full evaluations; each new student is a mutation of
the best of S members drawn at random; the oldest member dies, not the worst.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from searchers.algorithm import Observation, Proposal, check_int, check_num_edits
from searchers.ledger import LedgerAlgorithm, fresh_draws, repeat, unmeasured

if TYPE_CHECKING:
    from raysearch.architecture import Edits, EditsBatch, SearchSpace


class EvolutionAlgorithm(LedgerAlgorithm):
    """Regularised evolution with the edits' own mutations.

    Under a budget the first student is the uniformly scaled teacher. A failed student enters the population, and ages others out of it, but is
    never a parent; an early-stopped one does not enter, because its value is not comparable.

    Args:
        space: where the students come from.
        seed: of the one generator.
        population: P, the last so many students. DEVIATION: the paper's 100 is for 20,000 evaluations; ours are tens to hundreds.
        tournament: S, the members of which the best is the parent. DEVIATION: the paper takes 25 of 100, so that a parent is of the best few in a hundred; with a small
            population that takes most of it.
        num_edits: the fewest and the most edits of one mutation. DEVIATION: the paper makes one; ours are smaller steps.
    """

    def __init__(
        self,
        space: SearchSpace,
        *,
        seed: int = 0,
        population: int = 12,
        tournament: int = 8,
        num_edits: tuple[int, int] | list[int] = (1, 4),
    ) -> None:
        super().__init__(space, seed=seed)
        self.population = check_int("search.options.population", population, 2)
        self.tournament = check_int("search.options.tournament", tournament, 1)
        self.num_edits = check_num_edits(num_edits)
        self._members: deque[tuple[str, float | None]] = deque(maxlen=self.population)

    def ask(self) -> Proposal | None:
        if (uniform := self._ledger.new_uniform()) is not None:
            return self._ledger.propose(uniform, origin="uniform")
        fresh = fresh_draws(self.space, self._rng)
        parent = self._select_parent() if self._ledger.num_students >= self.population else None
        if parent is None:
            return self._ledger.propose(self._ledger.draw_new(*fresh), origin="sample")

        def children(size: int) -> EditsBatch:
            return self.space.mutate(
                repeat(parent, size), self._rng, num_edits=self.num_edits, **unmeasured(self.space)
            )

        edits = self._ledger.draw_new(children, *fresh)
        return self._ledger.propose(edits, origin="mutation")

    def tell(self, observation: Observation) -> None:
        super().tell(observation)
        if observation.status != "stopped":
            value = observation.value if observation.status == "full" else None
            self._members.append((observation.architecture, value))

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "members": [list(member) for member in self._members]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        members = ((text, value) for text, value in state["members"])
        self._members = deque(members, maxlen=self.population)

    def _select_parent(self) -> Edits | None:
        """The best of `tournament` members drawn without replacement; None while there is no full evaluation."""
        able = [(value, text) for text, value in self._members if value is not None]
        if not able:
            return None
        drawn = self._rng.choice(len(able), size=min(self.tournament, len(able)), replace=False)
        best = max(drawn, key=lambda index: able[index][0])
        return self.space.parse(able[best][1])
