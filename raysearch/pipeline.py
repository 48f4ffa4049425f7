"""The stages of a run as the one algorithm that Tune's searcher asks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from raysearch.stages import Stage
from searchers.algorithm import Exhausted, Observation, Proposal


class Pipeline:
    """Stages in the order of their priority, as one ask/tell algorithm (`searchers.algorithm.Algorithm`)."""

    def __init__(
        self, stages: Sequence[Stage], on_change: Callable[[], None] = lambda: None
    ) -> None:
        self.stages = list(stages)
        self._on_change = on_change
        self._num_running = 0

    def ask(self) -> Proposal | None:
        """A student of the first stage that has one; None while all stages wait.

        While students train, a stage whose next one is still being computed is passed over: Tune asks again, ten times a second.

        Raises:
            Exhausted: when every stage is done.
        """
        proposal = self._ask_stages(wait=False)
        if proposal is None and not self._num_running:
            proposal = self._ask_stages(wait=True)
        if proposal is not None:
            self._num_running += 1
            self._on_change()
            return proposal
        if self.done:
            raise Exhausted
        return None

    def _ask_stages(self, *, wait: bool) -> Proposal | None:
        for stage in self.stages:
            if (proposal := stage.ask(wait=wait)) is not None:
                return Proposal(proposal.architecture, {**proposal.extra, "stage": stage.name})
        return None

    def tell(self, observation: Observation) -> None:
        """Passes the result on to the stage that asked for it."""
        name = observation.extra.get("stage", self.stages[0].name)
        self._num_running = max(0, self._num_running - 1)
        next(stage for stage in self.stages if stage.name == name).tell(observation)
        self._on_change()

    @property
    def done(self) -> bool:
        return all(stage.done for stage in self.stages)

    @property
    def num_finished(self) -> int:
        """What all stages have, answers that cost no trial of their own included."""
        return sum(stage.num_finished for stage in self.stages)

    @property
    def num_total(self) -> int:
        """What all stages are going to have, as far as that is known by now."""
        return sum(stage.num_total for stage in self.stages)

    @property
    def epochs_left(self) -> float:
        """Of everything that is not finished, as far as that is known by now."""
        return sum(stage.epochs_left for stage in self.stages)

    def __getitem__(self, name: str) -> Stage:
        return next(stage for stage in self.stages if stage.name == name)

    def __getstate__(
        self,
    ) -> dict[str, Any]:  # Tune pickles its searcher; stages hold files and displays
        return {"stages": [], "_on_change": None}

    def state_dict(self) -> dict[str, Any]:
        """Empty: a pipeline is rebuilt from the logs of the run's folder."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Nothing to restore (see `state_dict`)."""
