"""Structured pruning: the teacher without its least important channels, one student for each form of importance."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from raysearch.errors import ConfigError
from searchers.algorithm import Exhausted, Observation, Proposal
from searchers.ledger import Ledger, check_version

if TYPE_CHECKING:
    from raysearch.architecture import SearchSpace

DEFAULT_FORMS = ("l2", "taylor")


class PruneAlgorithm:
    """Proposes pruned students in the order of their forms, and ends.

    Who prunes needs the teacher's weights, which no algorithm has: a run hands the students in.

    Args:
        space: the students within the budget.
        pruned: forms -> their students, each with the trial's key `channels` in its `extra`, which names the teacher's channels that it
            keeps; None: there is no teacher, and asking is an error.
        seed: unused; every method takes one.
        forms: which students (`raysearch.models.pruned.FORMS`).
    """

    def __init__(
        self,
        space: SearchSpace,
        pruned: Callable[[Sequence[str]], Sequence[Proposal]] | None = None,
        *,
        seed: int = 0,
        forms: Sequence[str] = DEFAULT_FORMS,
    ) -> None:
        from raysearch.models.pruned import check_forms

        del seed
        self.space = space
        self.forms = check_forms("search.options.forms", forms)
        self._students = None if pruned is None else list(pruned(self.forms))
        self._ledger = Ledger(space)

    def ask(self) -> Proposal | None:
        if self._students is None:
            raise ConfigError(
                "search.method 'prune' needs the teacher's weights, which only a run has; use `raysearch run` or raysearch.compress"
            )
        for student in self._students:
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
