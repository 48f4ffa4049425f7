"""The teacher scaled down evenly: one proposal, the answer that every search has to beat."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from searchers.algorithm import Proposal
from searchers.given import GivenAlgorithm

if TYPE_CHECKING:
    from raysearch.architecture import SearchSpace


class UniformAlgorithm(GivenAlgorithm):
    """Proposes the uniformly scaled student and ends."""

    def __init__(self, space: SearchSpace, *, seed: int = 0) -> None:
        del seed  # nothing is random here; every method takes one
        super().__init__(space)

    def given(self) -> Sequence[Proposal]:
        return [Proposal(str(self.space.uniform()), {"origin": "uniform"})]
