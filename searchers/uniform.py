"""The teacher scaled down evenly: one proposal, the answer that every search has to beat."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from searchers.algorithm import Exhausted, Observation, Proposal
from searchers.ledger import Ledger, check_version

if TYPE_CHECKING:
    from raysearch.architecture import SearchSpace


class UniformAlgorithm:
    """Proposes the uniformly scaled student and ends."""

    def __init__(self, space: SearchSpace, *, seed: int = 0) -> None:
        del seed  # nothing is random here; every method takes one
        self.space = space
        self._ledger = Ledger(space)

    def ask(self) -> Proposal | None:
        if not self._ledger.is_new(uniform := self.space.uniform()):
            raise Exhausted
        return self._ledger.propose(uniform, origin="uniform")

    def tell(self, observation: Observation) -> None:
        self._ledger.record(observation)

    def state_dict(self) -> dict[str, Any]:
        return {"version": 1, "ledger": self._ledger.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        check_version(state, 1)
        self._ledger.load_state_dict(state["ledger"])
