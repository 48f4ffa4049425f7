"""Students that are given, not searched: each is proposed once, in its order, and then the search ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from searchers.algorithm import Exhausted, Observation, Proposal
from searchers.ledger import Ledger, check_version

if TYPE_CHECKING:
    from raysearch.architecture import SearchSpace


class GivenAlgorithm:
    """Who derives from it names the students (`given`); nothing is random, and outcomes change nothing.

    Args:
        space: of the students.
    """

    def __init__(self, space: SearchSpace) -> None:
        self.space = space
        self._ledger = Ledger(space)

    def given(self) -> Sequence[Proposal]:
        """All students, in their order; the same ones at each call."""
        raise NotImplementedError

    def ask(self) -> Proposal | None:
        for student in self.given():
            if self._ledger.is_new(student.architecture):
                return self._ledger.propose(student.architecture, **student.extra)
        raise Exhausted

    def tell(self, observation: Observation) -> None:
        self._ledger.record(observation)

    def state_dict(self) -> dict[str, Any]:
        return {"version": 1, "ledger": self._ledger.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        check_version(state, 1)
        self._ledger.load_state_dict(state["ledger"])
