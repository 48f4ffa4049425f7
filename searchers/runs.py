"""Methods whose students come out of runs: trainings of their own (a compression of the teacher, a super-network), each with a lambda.

Such a method has two faces. `ask_run` and `tell_run` are of the runs, which somebody must make (`raysearch.runs_stage` in a run of ours, with
the trainable that the attribute `trainable` names); `ask` and `tell` are those of `searchers.algorithm.Algorithm`, and give the students
that the runs found.

The order of the students: in turn over the runs, the best run first, and of each run the best by its own reward first. While other runs are
outstanding, a run gives no more than its share of the trials, so that the first one to end does not take them all. Runs that a
scheduler stopped, or that failed, come after the whole ones. A student that several runs have found by then begins with the weights of the
run in which its own reward is the highest.
"""

from __future__ import annotations

import importlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

from raysearch.errors import ConfigError
from searchers.algorithm import Exhausted, Observation, Proposal, check_choice, check_int
from searchers.lambdas import make_chooser
from searchers.ledger import Ledger, check_version

if TYPE_CHECKING:
    from raysearch.architecture import SearchSpace

STATE_VERSION = 1

_RANKS = {"full": 0, "stopped": 1, "failed": 2}


class Settings(Protocol):
    """What an engine may be told, checked where it is made: a frozen dataclass, JSON-native through `to_dict` and `from_dict`.

    Attributes:
        epochs: of a whole run, unless a property `epochs_target` says otherwise.
    """

    @property
    def epochs(self) -> int: ...

    def to_dict(self) -> dict[str, Any]: ...


@runtime_checkable
class MakesRuns(Protocol):
    """The face of a method that is of its runs.

    Attributes:
        num_runs: in all, as far as that is known.
        run_epochs: of a whole run.
    """

    @property
    def num_runs(self) -> int: ...
    @property
    def run_epochs(self) -> int: ...

    def ask_run(self) -> Proposal | None:
        """The next run, `run` (its number) in its `extra`; None: not before something more is told.

        Raises:
            Exhausted: no run will ever come again.
        """
        ...

    def tell_run(self, observation: Observation) -> None:
        """Takes the outcome of a run."""
        ...

    def repeat_run(self, proposal: Proposal) -> None:
        """Takes a run back that was cut."""
        ...


class RunsAlgorithm:
    """Proposes runs, and the students that they found; a subclass names the engine.

    Args:
        space: what the students' texts mean; its limits are those of the runs too.
        seed: of TPE; runs take theirs from the run's context.
        num_trials: students that are going to be evaluated; None: not known.
        warm_start: refused; no method of runs can begin with another search.
        lambda_search: `grid`, or `tpe`: Optuna over log lambda, which maximises the runs' rewards.
        lambdas: of the grid, explicitly.
        lambda_range: the smallest and the largest lambda, for `tpe` and for a grid without `lambdas`.
        num_runs: how many runs; with `lambdas` their number.
        settings: the engine's own, by the names of its settings' fields.

    Raises:
        ConfigError: an option that nobody knows, a bad value, or a budget that a run cannot hold.
    """

    method: ClassVar[str]
    settings_class: ClassVar[str]
    """`package.module:Class` of the engine's settings."""
    trainable: ClassVar[str]
    """`package.module:Class` of what makes the runs and trains the students."""
    default_range: ClassVar[tuple[float, float]]
    default_num_runs: ClassVar[int] = 5

    def __init__(
        self,
        space: SearchSpace,
        *,
        seed: int = 0,
        num_trials: int | None = None,
        warm_start: str | None = None,
        lambda_search: str = "grid",
        lambdas: Sequence[float] | None = None,
        lambda_range: Sequence[float] | None = None,
        num_runs: int | None = None,
        **settings: Any,
    ) -> None:
        if warm_start is not None:
            raise ConfigError(
                f"search.warm_start is {warm_start!r}, but the method {self.method!r} cannot begin with another search: set it to null"
            )
        if "latency_ms" in space.limits:
            raise ConfigError(
                f"budget.latency_ms is set, but a run of the method {self.method!r} holds params, macs and memory only: limit one of these"
            )
        if lambdas is not None and lambda_range is not None:
            raise ConfigError(
                f"search.options.lambda_range is {lambda_range!r}, but search.options.lambdas lists them already: leave one of them out"
            )
        self.space = space
        self.num_trials = num_trials
        self.chooser = make_chooser(
            lambdas=lambdas,
            lambda_search=check_choice(
                "search.options.lambda_search", lambda_search, ("grid", "tpe")
            ),
            lambda_range=self.default_range if lambda_range is None else lambda_range,
            num_runs=self._check_num_runs(num_runs, lambdas),
            seed=seed,
        )
        self.settings = self._make_settings(settings)
        self._ledger = Ledger(space)
        self._runs: dict[int, Observation] = {}
        self._running: dict[int, Proposal] = {}
        self._again: list[Proposal] = []
        self._has_runs = False

    def _check_num_runs(self, num_runs: int | None, lambdas: Sequence[float] | None) -> int:
        if num_runs is None:
            return self.default_num_runs
        number = check_int("search.options.num_runs", num_runs, 1)
        if lambdas is not None and isinstance(lambdas, Sequence) and len(lambdas) != number:
            raise ConfigError(
                f"search.options.num_runs is {number}, but search.options.lambdas lists {len(lambdas)}: leave num_runs out"
            )
        return number

    def _make_settings(self, options: Mapping[str, Any]) -> Settings:
        module, _, name = self.settings_class.partition(":")
        kind = getattr(importlib.import_module(module), name)
        known = [field.name for field in fields(kind)]
        for option in options:
            if option not in known:
                mine = ("lambda_search", "lambdas", "lambda_range", "num_runs")
                raise ConfigError(
                    f"search.options.{option} is not an option of the method {self.method!r}: valid are {', '.join((*mine, *known))}"
                )
        return kind.from_dict(options)

    # Runs

    @property
    def run_epochs(self) -> int:
        """The epochs of a whole run."""
        return int(getattr(self.settings, "epochs_target", self.settings.epochs))

    @property
    def num_runs(self) -> int:
        """Runs in all."""
        tried = self._tried
        return len(tried) + self.chooser.num_left(tried)

    def ask_run(self) -> Proposal | None:
        """The next run: the teacher's architecture, and in `extra` its number, its lambda and the engine's settings.

        Raises:
            Exhausted: no run will ever come again.
        """
        self._has_runs = True
        if self._again:
            proposal = self._again.pop(0)
        else:
            lam = self.chooser.choose(self._tried)
            if lam is None:
                raise Exhausted
            index = max((*self._runs, *self._running), default=-1) + 1
            extra = {"run": index, "lam": lam, "settings": self.settings.to_dict()}
            proposal = Proposal(str(self.space.largest()), extra)
        self._running[proposal.extra["run"]] = proposal
        return proposal

    def repeat_run(self, proposal: Proposal) -> None:
        """Queues a run that was cut, unless its outcome is known: it is asked for first, with its number and its lambda."""
        index = proposal.extra["run"]
        queued = [one.extra["run"] for one in self._again]
        if index not in self._runs and index not in self._running and index not in queued:
            self._again.append(proposal)

    def tell_run(self, observation: Observation) -> None:
        """Takes the outcome of a run, and its students (`students` in its details: mappings with `architecture` and `reward`, or JSON of these)."""
        self._has_runs = True
        observation = with_students(observation)
        index = observation.extra["run"]
        self._running.pop(index, None)
        self._runs.setdefault(index, observation)

    @property
    def _tried(self) -> list[tuple[float, Observation | None]]:
        """The lambdas so far, by the numbers of their runs."""
        queued = {one.extra["run"]: one for one in (*self._again, *self._running.values())}
        tried: dict[int, tuple[float, Observation | None]] = {
            index: (proposal.extra["lam"], None) for index, proposal in queued.items()
        }
        tried |= {index: (lambda_of(outcome), outcome) for index, outcome in self._runs.items()}
        return [tried[index] for index in sorted(tried)]

    @property
    def _runs_may_come(self) -> bool:
        outstanding = bool(self._running or self._again)
        return outstanding or self.chooser.num_left(self._tried) > 0

    # Students

    def ask(self) -> Proposal | None:
        if not self._has_runs:
            raise ConfigError(
                f"search.method {self.method!r} finds its students in trainings of its own, which only a run makes; use `raysearch run` or "
                f"raysearch.compress, or give {self.trainable.partition(':')[2]} a Tuner of your own"
            )
        for index, student in self._in_turn():
            if self._ledger.is_new(student["architecture"]):
                index, student = self._best_like(index, student)
                extra = {"start": "run", "from_run": index, "origin": "run"}
                if isinstance(student.get("epoch"), int):
                    extra["found_epoch"] = student["epoch"]
                return self._ledger.propose(student["architecture"], **extra)
        if self._runs_may_come:
            return None
        raise Exhausted

    def tell(self, observation: Observation) -> None:
        self._ledger.record(observation)

    def _in_turn(self) -> Iterator[tuple[int, Mapping[str, Any]]]:
        """Run and student, in the order of the module's docstring."""
        order = sorted(self._runs, key=lambda index: _run_order(index, self._runs[index]))
        found = {index: students_of(self._runs[index]) for index in order}
        rounds = max(map(len, found.values()), default=0)
        if self._runs_may_come and self.num_trials is not None:
            rounds = min(rounds, math.ceil(self.num_trials / self.num_runs))
        for place in range(rounds):
            for index in order:
                if place < len(found[index]):
                    yield index, found[index][place]

    def _best_like(self, index: int, student: Mapping[str, Any]) -> tuple[int, Mapping[str, Any]]:
        """The run, and the student as it found it, whose own reward is the highest among those that found this network; else those given."""
        identity = self._ledger.identify(student["architecture"])
        same = [
            (number, one)
            for number, outcome in self._runs.items()
            for one in students_of(outcome)
            if self._ledger.identify(one["architecture"]) == identity
        ]
        return min([(index, student), *same], key=lambda found: _student_order(found[1]))

    # State

    def state_dict(self) -> dict[str, Any]:
        return {
            "version": STATE_VERSION,
            "ledger": self._ledger.state_dict(),
            "runs": {str(index): outcome.to_dict() for index, outcome in self._runs.items()},
            "running": [asdict(proposal) for proposal in self._running.values()],
            "again": [asdict(proposal) for proposal in self._again],
            "has_runs": self._has_runs,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        check_version(state, STATE_VERSION)
        self._ledger.load_state_dict(state["ledger"])
        self._runs = {
            int(index): Observation.from_dict(outcome) for index, outcome in state["runs"].items()
        }
        running = [Proposal(**values) for values in state["running"]]
        self._running = {proposal.extra["run"]: proposal for proposal in running}
        self._again = [Proposal(**values) for values in state["again"]]
        self._has_runs = state["has_runs"]


def lambda_of(observation: Observation) -> float:
    """A run's lambda; where a log gave the observation back, it stands among the numbers."""
    return float(observation.extra.get("lam", observation.metrics.get("lam", math.nan)))


def with_students(observation: Observation) -> Observation:
    """A run's outcome whose `students` are a list: a trial reports them as JSON."""
    found = observation.details.get("students")
    if not isinstance(found, str):
        return observation
    return replace(observation, details={**observation.details, "students": json.loads(found)})


def students_of(observation: Observation) -> list[Mapping[str, Any]]:
    """What a run found, the best by its own reward first, equals in the order in which they were found; those without a reward last."""
    details = with_students(observation).details
    found = details.get("students", observation.extra.get("students", []))
    return sorted(found, key=_student_order)


def _student_order(student: Mapping[str, Any]) -> float:
    reward = student.get("reward")
    return -reward if isinstance(reward, int | float) and math.isfinite(reward) else math.inf


def _run_order(index: int, outcome: Observation) -> tuple[int, float, int]:
    value = -math.inf if outcome.value is None else outcome.value
    return _RANKS[outcome.status], -value, index
