"""The pruned students of a run: made once, when the teacher is known, and kept in the run's folder."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from raysearch.models.build import State
from raysearch.models.depgraph import prune_to_budget
from raysearch.models.importance import Batch
from raysearch.models.keep import Scores
from raysearch.models.pruned import TORCH_PRUNING_FORMS, Pruned, pruned_student
from raysearch.models.scores import channel_scores, load_edits, load_scores, save_scores
from raysearch.models.states import state_of
from raysearch.problem import Problem
from searchers.algorithm import Proposal


class PrunedStudents:
    """Makes pruned students by the names of their forms (`raysearch.models.pruned.FORMS`).

    Args:
        problem: the checked run; its teacher is trained by the first call.
        folder: where they are kept, so that a run that is continued finds the same ones; None: nowhere.
        batches: training images and labels, for Taylor importance.

    Attributes:
        rankings: by the name that a trial's config holds as `channels`, the channels that the students made so far keep.
    """

    def __init__(
        self, problem: Problem, folder: Path | None, batches: Callable[[], Iterable[Batch]]
    ) -> None:
        self._problem, self._folder, self._batches = problem, folder, batches
        self._made: dict[str, Pruned] = {}

    def __call__(self, forms: Sequence[str]) -> list[Proposal]:
        """The students of some forms.

        Raises:
            WeightsError, MissingPackageError: torch-pruning does not understand the teacher, or is not installed.
            BudgetError: torch-pruning cannot meet the budget.
        """
        return [
            Proposal(str(self._student(form).edits), {"origin": name, "channels": name})
            for form, name in ((form, channels_name(form)) for form in forms)
        ]

    @property
    def rankings(self) -> dict[str, Scores]:
        return {channels_name(form): made.scores for form, made in self._made.items()}

    def _student(self, form: str) -> Pruned:
        if form not in self._made:
            self._made[form] = self._read(form) or self._make(form)
        return self._made[form]

    def _file(self, form: str) -> Path | None:
        return None if self._folder is None else self._folder / f"{channels_name(form)}.safetensors"

    def _read(self, form: str) -> Pruned | None:
        file, space = self._file(form), self._problem.space
        scores = None if file is None else load_scores(file, space.teacher)
        if file is None or scores is None:
            return None
        return Pruned(space.parse(load_edits(file)), scores)

    def _make(self, form: str) -> Pruned:
        space = self._problem.space
        if form in TORCH_PRUNING_FORMS:
            made = prune_to_budget(space, self._state, form, self._batches)
        else:
            ranking = form.removeprefix("ours-")
            scores = channel_scores(ranking, space.teacher, self._state, self._batches)
            assert scores is not None, f"{ranking} gives scores"
            made = Pruned(pruned_student(space, scores), scores)
        file = self._file(form)
        if file is not None:
            arrays = [np.asarray(values) for values in made.scores]
            save_scores(file, space.teacher, arrays, edits=str(made.edits))
        return made

    @cached_property
    def _state(self) -> State:
        return state_of(self._problem.teacher)


def channels_name(form: str) -> str:
    """The name of the channels that a form's student keeps."""
    return f"prune-{form}"
