"""Random search: every proposal is a fresh sample of the space, never one that was seen before."""

from __future__ import annotations

from searchers.algorithm import Proposal
from searchers.ledger import LedgerAlgorithm, fresh_draws


class RandomAlgorithm(LedgerAlgorithm):
    """Draws students that fill the budget (Bergstra and Bengio, 2012, is why this is the baseline)."""

    def ask(self) -> Proposal | None:
        edits = self._ledger.draw_new(*fresh_draws(self.space, self._rng))
        return self._ledger.propose(edits, origin="sample")
