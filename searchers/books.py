"""What is known of a search's trials: which run, which wait to be tried again, and what came out of those that ended. Ray is unknown here."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from searchers.algorithm import Observation, Proposal
from searchers.tracking import LiveTrial


@dataclass
class Books:
    """Trials by what they evaluate (`LiveTrial.key`).

    Attributes:
        observations: the outcomes of this search's own trials, in the order of telling.
        keys: of the observations.
        known: key -> the outcome, of full trainings alone.
        live: Tune's id of a trial -> the trial.
        retries: students whose trial crashed or was lost, to be started again.
        followers: key -> proposals that wait for the outcome of a running trial.
        num_started: students that became trials; retries are not counted.
        exhausted: the algorithm has no more to propose.
    """

    observations: list[Observation] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    known: dict[str, Observation] = field(default_factory=dict)
    live: dict[str, LiveTrial] = field(default_factory=dict)
    retries: deque[LiveTrial] = field(default_factory=deque)
    followers: dict[str, list[Proposal]] = field(default_factory=dict)
    num_started: int = 0
    exhausted: bool = False

    @property
    def num_occupied(self) -> int:
        """Slots that are taken; a paused trial takes none."""
        return sum(not trial.paused for trial in self.live.values())

    def is_running(self, key: str) -> bool:
        """Whether a trial of it runs or waits to be started again."""
        return any(trial.key == key for trial in (*self.live.values(), *self.retries))

    def enter(self, key: str, observation: Observation) -> list[Proposal]:
        """Writes an outcome down; returns the proposals that waited for it."""
        self.observations.append(observation)
        self.keys.append(key)
        if observation.status == "full":
            self.known[key] = observation
        return self.followers.pop(key, [])

    def adopt(self, trial_id: str, stranger: LiveTrial) -> LiveTrial:
        """Takes a trial that we did not start for the one that waits to be started again, if there is one."""
        queued = [trial for trial in self.retries if trial.key == stranger.key]
        for trial in queued:
            self.retries.remove(trial)
        self.live[trial_id] = queued[0] if queued else stranger
        return self.live[trial_id]

    def to_dict(self) -> dict[str, Any]:
        """JSON-native form; `from_dict` inverts it."""
        return {
            "observations": [observation.to_dict() for observation in self.observations],
            "ids": list(self.keys),
            "live": {trial_id: trial.to_dict() for trial_id, trial in self.live.items()},
            "retries": [trial.to_dict() for trial in self.retries],
            "followers": {
                key: [asdict(proposal) for proposal in proposals]
                for key, proposals in self.followers.items()
            },
            "num_started": self.num_started,
            "exhausted": self.exhausted,
        }

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> Books:
        """Reads what `to_dict` wrote; other keys are left alone."""
        observations = [Observation.from_dict(values) for values in state["observations"]]
        outcomes = zip(state["ids"], observations, strict=True)
        return cls(
            observations=observations,
            keys=list(state["ids"]),
            known={key: outcome for key, outcome in outcomes if outcome.status == "full"},
            live={key: LiveTrial.from_dict(trial) for key, trial in state["live"].items()},
            retries=deque(LiveTrial.from_dict(trial) for trial in state["retries"]),
            followers={
                key: [Proposal(**values) for values in proposals]
                for key, proposals in state["followers"].items()
            },
            num_started=state["num_started"],
            exhausted=state["exhausted"],
        )
