"""Structured pruning: the teacher without its least important channels, one student for each form of importance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from raysearch.errors import ConfigError
from searchers.algorithm import Proposal
from searchers.given import GivenAlgorithm

if TYPE_CHECKING:
    from raysearch.architecture import SearchSpace

DEFAULT_FORMS = ("l2", "taylor")


class PruneAlgorithm(GivenAlgorithm):
    """Proposes pruned students in the order of their forms, and ends.

    Who prunes needs the teacher's weights, which no algorithm has: a run hands the students in.

    Args:
        space: the students within the budget.
        pruned: forms -> their students, each with the trial's key `channels` in its `extra`, which names the teacher's channels that it
            keeps; None: there is no teacher, and asking is an error.
        seed: unused; every method takes one.
        forms: which students: "l2", "taylor" (torch-pruning's), "ours-l1", "ours-taylor" (`raysearch.models.pruned.FORMS`).
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
        super().__init__(space)
        self.forms = check_forms("search.options.forms", forms)
        self._students = None if pruned is None else list(pruned(self.forms))

    def given(self) -> Sequence[Proposal]:
        if self._students is None:
            raise ConfigError(
                "search.method 'prune' needs the teacher's weights, which only a run has; use `raysearch run` or raysearch.compress"
            )
        return self._students
