"""Random search: every proposal is a fresh sample of the space, never one that was seen before."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from searchers.algorithm import Observation, Proposal
from searchers.ledger import Ledger, check_version, fresh_draws

if TYPE_CHECKING:
    from raysearch.architecture import SearchSpace


class RandomAlgorithm:
    """Draws students that fill the budget (Bergstra and Bengio, 2012, is why this is the baseline)."""

    def __init__(self, space: SearchSpace, *, seed: int = 0) -> None:
        self.space = space
        self._ledger = Ledger(space)
        self._rng = np.random.default_rng(seed)

    def ask(self) -> Proposal | None:
        edits = self._ledger.draw_new(*fresh_draws(self.space, self._rng))
        return self._ledger.propose(edits, origin="sample")

    def tell(self, observation: Observation) -> None:
        self._ledger.record(observation)

    def state_dict(self) -> dict[str, Any]:
        return {
            "version": 1,
            "ledger": self._ledger.state_dict(),
            "rng": self._rng.bit_generator.state,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        check_version(state, 1)
        self._ledger.load_state_dict(state["ledger"])
        self._rng.bit_generator.state = state["rng"]
