"""The one adapter between search algorithms and Ray Tune.

Tune calls a searcher from its control loop, in one process and one thread. Measured habits of Ray 2.60 that shape this file:

* an exception in `save`, `suggest`, `on_trial_result` or `on_trial_complete` aborts the whole run, and one in `restore` silently
  starts a new run; so none leaves a hook, except from `suggest` after a restore that failed;
* the result that ends a trial reaches only `on_trial_complete`, and a trial that is stopped while it waits brings no result at
  all; so the last one is kept;
* failed trials that are restarted by the user come back under unknown ids, and failures while an actor is reset are never
  reported; so unknown trials are adopted from their config, and lost ones are found again;
* a snapshot is copied file by file while the next one is written, so the trials and the searcher that a crash leaves behind can be of
  two moments; so a restored search is compared with Tune's own books;
* `set_search_properties` is not called for an empty `param_space`, and a `ConcurrencyLimiter` reads `metric` before it is called.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Container, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
from ray.tune.search import Searcher
from ray.tune.search.variant_generator import parse_spec_vars

from raysearch.errors import ConfigError, InvalidArchitecture, RunError
from searchers.algorithm import (
    Algorithm,
    Exhausted,
    Observation,
    Proposal,
    check_int,
    is_busy,
)
from searchers.books import Books
from searchers.ledger import Identifier, check_version
from searchers.snapshot import SnapshotTrial, read_trials
from searchers.state import dump_state, load_state
from searchers.tracking import KEYS, LiveTrial, architecture_in, suggestion_of

if TYPE_CHECKING:
    from raysearch.architecture import SearchSpace

logger = logging.getLogger(__name__)

DEFAULT_METRIC, DEFAULT_MODE = "reward", "max"
UNTOLD = "%s was given no metric and mode, and Tune hands over TuneConfig's only with a param_space: %r is optimised (%s); pass both to it"
STATE_VERSION = 1

ANSWERS_PER_CALL = 20
"""Proposals that may be answered from known results within one call, so that Tune's loop is not held up."""
ANSWERS_IN_A_ROW = 1000
"""Known proposals in a row after which the search counts as exhausted."""
POLL_S, POLLS = 0.95, 30
"""Tune asks once a second only while nothing of it runs; that many such calls in a row mean that our live trials are lost."""


class TuneSearcher(Searcher):
    """Runs any `Algorithm` inside any `ray.tune.Tuner`.

    Concurrency is managed here: a `ConcurrencyLimiter` (also the one that `max_concurrent_trials` makes) only sets the number.

    Args:
        algorithm: who proposes.
        space: gives architectures their ids; None: the algorithm's own `space`.
        metric: the objective's key in results; None: TuneConfig's, which Tune hands over only where `param_space` is not empty, else
            "reward".
        mode: "max" or "min"; None: TuneConfig's, likewise, else "max".
        num_trials: students to evaluate before the search ends, retries and answers from the cache not counted (use Tune's
            `num_samples=-1`); None: Tune's `num_samples` decides.
        max_concurrent: trials at a time; None: no limit of ours.
        max_retries: restarts of a student whose trial crashed. A trial that reports `status` invalid or diverged is not retried.
        cache: architecture id -> outcome of earlier evaluations: such a proposal is answered at once.

    Attributes:
        error: what made the algorithm fail, or the user's mistake that only a result could show; proposing has ended then.
        restore_error: why the saved state could not be read; `suggest` raises it.
        num_failed_saves: snapshots that could not be written; the previous one stays.
    """

    def __init__(
        self,
        algorithm: Algorithm,
        *,
        space: SearchSpace | None = None,
        metric: str | None = None,
        mode: str | None = None,
        num_trials: int | None = None,
        max_concurrent: int | None = None,
        max_retries: int = 2,
        cache: Mapping[str, Observation] | None = None,
    ) -> None:
        if mode not in (None, "max", "min"):
            raise ConfigError(f"mode must be 'max' or 'min', got {mode!r}")
        space = space if space is not None else getattr(algorithm, "space", None)
        if space is None:
            raise ConfigError(f"{type(algorithm).__name__} has no attribute space: pass space=")
        super().__init__(metric=metric, mode=mode)
        self.algorithm = algorithm
        self.num_trials = None if num_trials is None else check_int("num_trials", num_trials, 1)
        self.max_concurrent = max_concurrent
        self.max_retries = check_int("max_retries", max_retries, 0)
        self.error: Exception | None = None
        self.restore_error: Exception | None = None
        self.num_failed_saves = 0
        self._identify = Identifier(space)
        self._cache = dict(cache or {})
        self._books = Books()
        self._num_answered = 0  # since the last proposal that became a trial
        self._seen_metric = False
        self._num_polls, self._last_call_s = 0, float("inf")
        self._to_compare: Sequence[SnapshotTrial] | None = None

    @property
    def observations(self) -> list[Observation]:
        """The outcomes of this search's own trials, in the order of telling; values are signed, higher is better."""
        return self._books.observations

    # What Tune sets

    def set_search_properties(
        self, metric: str | None, mode: str | None, config: dict[str, Any], **spec: Any
    ) -> bool:
        """Takes metric and mode where the constructor left them open; refuses a `param_space` with open domains."""
        del spec
        self._metric = self._metric or metric
        self._mode = self._mode or mode
        _, domains, grids = parse_spec_vars(config)
        return not (domains or grids)

    def set_max_concurrency(self, max_concurrent: int) -> bool:
        """Takes the limit over; the limiter then does nothing itself."""
        self.max_concurrent = max_concurrent
        return True

    def warm_up(self) -> None:
        """Imports what the algorithm loads lazily, off the critical path; safe to call from a thread before the run."""
        prepare = getattr(self.algorithm, "warm_up", None)
        if prepare is not None:
            prepare()

    # Proposals

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        """The config of a new trial, None (not now), or "FINISHED".

        Raises:
            RunError: the saved state could not be restored.
        """
        if self.restore_error is not None:
            raise self.restore_error
        # settled only now: a ConcurrencyLimiter must read None before Tune has set its own
        self._settle()
        self._compare()
        self._watch_polls()
        if trial_id not in self._books.live:
            limit = self.max_concurrent
            if limit is not None and self._books.num_occupied >= limit:
                return None
            trial = self._books.retries.popleft() if self._books.retries else self._next_trial()
            if trial is None:
                if self._books.live or not self._ended:
                    return None
                return Searcher.FINISHED  # pyright: ignore[reportReturnType]  # Ray's annotation omits it
            self._books.live[trial_id] = trial
        trial = self._books.live[trial_id]
        return suggestion_of(trial.proposal, trial.architecture_id)

    def _settle(self) -> None:
        """Takes the defaults for what nobody gave, and says so: without a `param_space` Tune keeps TuneConfig's to itself."""
        if self._metric is None or self._mode is None:
            self._metric, self._mode = self._metric or DEFAULT_METRIC, self._mode or DEFAULT_MODE
            logger.warning(UNTOLD, type(self).__name__, self._metric, self._mode)

    @property
    def _ended(self) -> bool:
        """No new student will be proposed."""
        spent = self.num_trials is not None and self._books.num_started >= self.num_trials
        return spent or self._books.exhausted or self.error is not None

    def _next_trial(self) -> LiveTrial | None:
        """Asks until a proposal needs a trial; answers those with a known outcome at once."""
        for _ in range(ANSWERS_PER_CALL):
            if self._ended:
                return None
            trial = self._guarded(self._ask)
            if trial is None:
                return None
            identity = trial.key
            known = self._books.known.get(identity) or self._cache.get(identity)
            if known is not None:
                self._tell(_answer(known, trial.proposal))
            elif self._books.is_running(identity):
                self._books.followers.setdefault(identity, []).append(trial.proposal)
            else:
                self._books.num_started += 1
                self._num_answered = 0
                return trial
            self._num_answered += 1
            if self._num_answered >= ANSWERS_IN_A_ROW:
                logger.warning("%d proposals in a row were known: ending", ANSWERS_IN_A_ROW)
                self._books.exhausted = True
        return None

    def _ask(self) -> LiveTrial | None:
        # Tune asks again while trials run; a caller without Ray may not
        if self._books.live and ray.is_initialized() and is_busy(self.algorithm):
            return None
        try:
            proposal = self.algorithm.ask()
        except Exhausted:
            self._books.exhausted = True
            return None
        if proposal is None:
            return None
        return LiveTrial(proposal, self._identify(proposal.architecture))

    # Results

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Keeps the last value and the curve; Tune does not call this for the last result."""
        self._compare()
        self._num_polls = 0
        trial = self._books.live.get(trial_id) or self._adopt(trial_id, result)
        if trial is not None:
            self._update(trial, result)

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Tells the outcome, or queues a crashed student again."""
        self._compare()
        self._num_polls = 0
        trial = self._books.live.get(trial_id) or self._adopt(trial_id, result or {})
        if trial is None:
            return
        del self._books.live[trial_id]
        if error:
            self._retry(trial)
            return
        if result:
            self._update(trial, result)
        self._record(trial, trial.observation(finished=bool(result)))

    def on_pause(self, trial_id: str) -> None:
        """A paused trial occupies no slot (HyperBandForBOHB calls this on any searcher)."""
        if trial_id in self._books.live:
            self._books.live[trial_id].paused = True

    def on_unpause(self, trial_id: str) -> None:
        """The trial runs again."""
        if trial_id in self._books.live:
            self._books.live[trial_id].paused = False

    def requeue_lost(self, alive: Container[str] = ()) -> None:
        """Queues live trials again: all, or those that are not among `alive`; for a caller that knows that they run no more."""
        lost = [trial_id for trial_id in self._books.live if trial_id not in alive]
        for trial_id in lost:
            self._retry(self._books.live.pop(trial_id))

    def _compare(self) -> None:
        """Brings a restored search up to what Tune knows of its trials; not in `restore`, where metric and mode may still be open."""
        trials, self._to_compare = self._to_compare, None
        if trials is None:
            return
        self.requeue_lost(alive={trial.trial_id for trial in trials})
        told = Counter(self._books.keys)
        for trial in trials:
            if trial.trial_id not in self._books.live and not self._catch_up(trial, told):
                continue
            if trial.status == "ERROR":
                self.on_trial_complete(trial.trial_id, error=True)
            elif trial.status == "TERMINATED":
                self.on_trial_complete(trial.trial_id, trial.result if trial.reported else None)

    def _catch_up(self, trial: SnapshotTrial, told: Counter[str]) -> bool:
        """Takes a trial that began after our state was saved; False for one whose outcome we have."""
        if trial.status == "ERROR" or (trial.status == "TERMINATED" and not trial.reported):
            return False
        stranger = self._recognise(trial.trial_id, trial.result)
        if stranger is None:
            return False
        if told[stranger.key] > 0:
            told[stranger.key] -= 1
            return False
        if self._books.adopt(trial.trial_id, stranger) is stranger:
            self._books.num_started += 1
        return True

    def _update(self, trial: LiveTrial, result: Mapping[str, Any]) -> None:
        metric = self._metric or DEFAULT_METRIC
        self._seen_metric = self._seen_metric or metric in result
        if not self._seen_metric:
            names = ", ".join(sorted(key for key in result if not key.startswith("config/")))
            self._give_up(
                ConfigError(f"metric is {metric!r}, but a trial reported {names}: pass metric=")
            )
        trial.update(result, metric, -1 if self._mode == "min" else 1)

    def _adopt(self, trial_id: str, result: Mapping[str, Any]) -> LiveTrial | None:
        """Takes a trial that we did not start, or started in another life."""
        stranger = self._recognise(trial_id, result)
        return None if stranger is None else self._books.adopt(trial_id, stranger)

    def _recognise(self, trial_id: str, result: Mapping[str, Any]) -> LiveTrial | None:
        """What a trial evaluates, by the architecture in its config; None where it is not of this search."""
        text = architecture_in(result)
        if text is None:
            return None
        try:
            identity = self._identify(text)
        except InvalidArchitecture as error:
            logger.warning("Trial %s is not of this search: %s", trial_id, error)
            return None
        extra = {key: value for key in KEYS if (value := result.get(f"config/{key}")) is not None}
        return LiveTrial(Proposal(text, extra), identity)

    def _retry(self, trial: LiveTrial) -> None:
        if trial.attempts > self.max_retries:
            self._record(trial, trial.failure())
            return
        again = LiveTrial(trial.proposal, trial.architecture_id, trial.attempts + 1)
        self._books.retries.append(again)

    def _record(self, trial: LiveTrial, observation: Observation) -> None:
        """Enters the outcome of a trial and tells it, also for the proposals that waited for it."""
        identity = trial.key
        if identity in self._books.known:
            return  # a second run of a student, adopted: its first outcome stands
        waiting = self._books.enter(identity, observation)
        self._tell(observation)
        for proposal in waiting:
            self._tell(_answer(observation, proposal))

    def _tell(self, observation: Observation) -> None:
        if self.error is None:
            self._guarded(lambda: self.algorithm.tell(observation))

    # Trouble

    def _guarded(self, action: Callable[[], Any]) -> Any:
        """Calls the algorithm; its error ends the proposing, not the trials that run."""
        try:
            return action()
        except Exception as error:  # noqa: BLE001 - whatever a user's algorithm raises would abort the run
            self._give_up(error)
            return None

    def _give_up(self, error: Exception) -> None:
        if self.error is None:
            self.error = error
            logger.error("The search stops proposing: %s", error, exc_info=error)

    def _watch_polls(self) -> None:
        """Counts the calls that only an idle Tune makes, and acts when its idleness contradicts our books."""
        now = time.monotonic()
        self._num_polls = self._num_polls + 1 if now - self._last_call_s >= POLL_S else 0
        self._last_call_s = now
        if self._num_polls < POLLS:
            return
        self._num_polls = 0
        if self._books.live:
            logger.warning(
                "Tune lost %d trials without a word: starting again", len(self._books.live)
            )
            self.requeue_lost()
        elif not self._books.retries and not self._ended:
            self._give_up(RunError("the algorithm proposes nothing while nothing is running"))

    # State

    def get_state(self) -> dict[str, Any]:
        """Everything but the constructor's arguments, as JSON-native values and numpy arrays."""
        return {
            "version": STATE_VERSION,
            "algorithm_class": type(self.algorithm).__name__,
            "algorithm": self.algorithm.state_dict(),
            **self._books.to_dict(),
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Inverts `get_state`.

        Raises:
            ValueError: of another version, or of another algorithm.
        """
        check_version(state, STATE_VERSION)
        mine = type(self.algorithm).__name__
        if state["algorithm_class"] != mine:
            raise ValueError(f"it belongs to {state['algorithm_class']}, not to {mine}")
        self.algorithm.load_state_dict(state["algorithm"])
        self._books = Books.from_dict(state)

    def save(self, checkpoint_path: str) -> None:
        """Writes the state; on failure logs, counts, and leaves the file as it was."""
        part = Path(f"{checkpoint_path}.part")
        try:
            part.write_text(dump_state(self.get_state()), encoding="utf-8")
            os.replace(part, checkpoint_path)
        except Exception as error:
            self.num_failed_saves += 1
            logger.warning("The search's state could not be saved: %s", error, exc_info=error)
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)

    def restore(self, checkpoint_path: str) -> None:
        """Reads the state; never raises: `suggest` does, because Tune would silently start a new run."""
        path = Path(checkpoint_path)
        try:
            self.set_state(load_state(path.read_text(encoding="utf-8")))
        except Exception as error:  # noqa: BLE001 - kept, and raised by suggest
            self._refuse(checkpoint_path, error)
            return
        self._to_compare = read_trials(path.parent)

    def restore_from_dir(self, checkpoint_dir: str) -> None:
        """Reads the newest state of a folder; never raises, like `restore`."""
        try:
            super().restore_from_dir(checkpoint_dir)
        except RuntimeError as error:
            self._refuse(checkpoint_dir, error)

    def _refuse(self, place: str, error: Exception) -> None:
        self.restore_error = RunError(
            f"the search's state in {place} cannot be restored ({error}): start a new run"
        )
        self.restore_error.__cause__ = error

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_last_call_s": float("inf")}  # another process has another clock


def _answer(known: Observation, proposal: Proposal) -> Observation:
    """A known outcome as the answer to another proposal of the same architecture."""
    return dataclasses.replace(
        known, architecture=proposal.architecture, extra=dict(proposal.extra)
    )
