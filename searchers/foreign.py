"""Somebody else's Ray Tune searcher as an algorithm, so that it gets our adapter's retries, cache and budget. Needs no Ray itself."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from raysearch.errors import ConfigError
from searchers.algorithm import Algorithm, Exhausted, Observation, Proposal
from searchers.ledger import check_version
from searchers.tracking import ARCHITECTURE, ARCHITECTURE_ID

if TYPE_CHECKING:
    from raysearch.architecture import SearchSpace

METRIC = "reward"


def algorithm_of(searcher: Any, space: SearchSpace) -> Algorithm:
    """The algorithm inside one of our own searchers, or a searcher of other make wrapped as one."""
    inner = getattr(searcher, "algorithm", None)
    return inner if isinstance(inner, Algorithm) else SearcherAlgorithm(searcher, space)


class SearcherAlgorithm:
    """A `ray.tune.search.Searcher` whose suggestions hold `architecture`, the edits' text.

    Its trials end with the observation's value as its metric; failed ones end with `error=True`. Outcomes of students that it did
    not propose are not passed on, because a searcher has no general way to take them.
    """

    def __init__(self, searcher: Any, space: SearchSpace) -> None:
        self.searcher = searcher
        self.space = space
        if searcher.metric is None:
            searcher.set_search_properties(METRIC, "max", {})
        self._metric = searcher.metric or METRIC
        self._num_asked = 0
        self._pending: dict[str, list[str]] = {}  # text -> trial ids

    def ask(self) -> Proposal | None:
        trial_id = f"{self._num_asked:08x}"
        suggestion = self.searcher.suggest(trial_id)
        if suggestion is None:
            return None
        if not isinstance(suggestion, dict):
            raise Exhausted
        self._num_asked += 1
        if not isinstance(suggestion.get(ARCHITECTURE), str):
            raise ConfigError(
                f"search.method {type(self.searcher).__name__} suggested {suggestion!r}: "
                f"a suggestion needs {ARCHITECTURE!r}, the text of edits of the space"
            )
        text = suggestion[ARCHITECTURE]
        self._pending.setdefault(text, []).append(trial_id)
        ours = (ARCHITECTURE, ARCHITECTURE_ID)
        return Proposal(text, {key: suggestion[key] for key in suggestion if key not in ours})

    def tell(self, observation: Observation) -> None:
        trial_ids = self._pending.get(observation.architecture)
        if not trial_ids:
            return
        trial_id = trial_ids.pop(0)
        failed = observation.status == "failed" or observation.value is None
        sign = -1 if self.searcher.mode == "min" else 1
        value = float("nan") if observation.value is None else sign * observation.value
        result = {
            **observation.metrics,
            self._metric: value,
            "training_iteration": max(len(observation.curve), 1),
            "done": True,
        }
        self.searcher.on_trial_complete(
            trial_id=trial_id, result=None if failed else result, error=failed
        )

    def state_dict(self) -> dict[str, Any]:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "searcher"
            self.searcher.save(str(path))
            saved = np.frombuffer(path.read_bytes(), dtype=np.uint8)
        return {
            "version": 1,
            "searcher": saved,
            "num_asked": self._num_asked,
            "pending": {text: list(ids) for text, ids in self._pending.items() if ids},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        check_version(state, 1)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "searcher"
            path.write_bytes(state["searcher"].tobytes())
            self.searcher.restore(str(path))
        self._num_asked = state["num_asked"]
        self._pending = {text: list(ids) for text, ids in state["pending"].items()}
