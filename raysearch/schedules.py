"""Who stops weak trials early: one Tune scheduler a stage, behind one that hands each trial to its own.

Trials of different stages are never compared: a search's trials train a short recipe, finalists the full one, and the random baseline
must not be judged by the search's rungs.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from typing import Any

from ray.tune.schedulers import (
    AsyncHyperBandScheduler,
    FIFOScheduler,
    MedianStoppingRule,
    TrialScheduler,
)

from raysearch.config import Config, ScheduleConfig
from raysearch.errors import ConfigError

TIME_ATTR = "epochs_done"
"""Our own count: Tune's training_iteration restarts with a trial that is restarted without a checkpoint."""

HALVING_FROM = 4
"""From so many finalists on, successive halving shares the full trainings out."""


class StageScheduler(FIFOScheduler):
    """Dispatches on the `stage` of a trial's config; stages that are not named run to their end."""

    def __init__(self, schedulers: Mapping[str, TrialScheduler]) -> None:
        super().__init__()
        self._schedulers = dict(schedulers)
        self._fallback = FIFOScheduler()

    def _of(self, trial: Any) -> TrialScheduler:
        return self._schedulers.get(trial.config.get("stage"), self._fallback)

    def set_search_properties(self, metric: str | None, mode: str | None, **spec: Any) -> bool:
        for scheduler in self._schedulers.values():
            scheduler.set_search_properties(metric, mode, **spec)
        return super().set_search_properties(metric, mode, **spec)

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        self._of(trial).on_trial_add(tune_controller, trial)

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        self._of(trial).on_trial_error(tune_controller, trial)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        return self._of(trial).on_trial_result(tune_controller, trial, result)

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        self._of(trial).on_trial_complete(tune_controller, trial, result)

    def on_trial_remove(self, tune_controller: Any, trial: Any) -> None:
        self._of(trial).on_trial_remove(tune_controller, trial)

    def stops(self, stage: str) -> bool:
        """Whether trials of a stage may be stopped before their end."""
        return type(self._schedulers.get(stage, self._fallback)) is not FIFOScheduler

    def debug_string(self) -> str:
        return ", ".join(f"{name}: {s.debug_string()}" for name, s in self._schedulers.items())


def stage_scheduler(config: Config, run_epochs: int | None = None) -> StageScheduler:
    """The schedulers of a run.

    Args:
        config: of the run.
        run_epochs: of a whole one of the runs that students come out of; None: the method makes none.

    Raises:
        ConfigError: as `make_scheduler` does.
    """
    # a handful of pruned students is no field to stop anybody in
    searching = ("random",) if config.search.method == "prune" else ("search", "random")
    stages = {
        stage: make_scheduler(config.schedule, epochs=config.distill.epochs) for stage in searching
    }
    if run_epochs is not None:
        stages["runs"] = run_scheduler(config.schedule, run_epochs)
    if config.finish.halving and config.finish.students >= HALVING_FROM:
        stages |= {
            stage: halving_scheduler(config.finish.epochs) for stage in ("finish", "random_finish")
        }
    return StageScheduler(stages)


def run_scheduler(schedule: ScheduleConfig, epochs: int) -> TrialScheduler:
    """The scheduler of the runs that students come out of: the kind that is asked for, on rungs of their own.

    Options count the epochs of a student's trial, so they are not passed on, except to a callable of the user's.
    """
    own = ":" in schedule.name
    return make_scheduler(schedule if own else ScheduleConfig(name=schedule.name), epochs=epochs)


def make_scheduler(schedule: ScheduleConfig, *, epochs: int) -> TrialScheduler:
    """The scheduler of one stage.

    Args:
        schedule: its name and options.
        epochs: the epochs of a full trial.

    Raises:
        ConfigError: unknown name or option, or a user's callable that fails.
    """
    options = dict(schedule.model_extra or {})
    if ":" in schedule.name:
        return _user_scheduler(schedule.name, options)
    if schedule.name == "fifo":
        return _construct(FIFOScheduler, {}, options)
    if schedule.name == "asha":
        defaults = {"time_attr": TIME_ATTR, "max_t": epochs, **asha_rungs(epochs)}
        return _construct(AsyncHyperBandScheduler, defaults, options)
    if schedule.name == "median":
        return _construct(MedianStoppingRule, {"time_attr": TIME_ATTR, "grace_period": 1}, options)
    raise ConfigError(
        f"schedule.name: {schedule.name!r} is not known; choose asha, fifo, median, or package.module:callable"
    )


def asha_rungs(epochs: int) -> dict[str, Any]:
    """From half of the epochs on, each rung stops the weakest quarter.

    Milder than usual: what an un-annealed epoch says of a student's end is mostly noise, and a model learns from full trainings only.
    """
    return {"grace_period": max(1, epochs // 2), "reduction_factor": 4 / 3}


def halving_scheduler(epochs: int) -> TrialScheduler:
    """Successive halving among the finalists: rungs at an eighth, a quarter and half of the full training."""
    return AsyncHyperBandScheduler(
        time_attr=TIME_ATTR, max_t=epochs, grace_period=max(1, epochs // 8), reduction_factor=2
    )


def _construct(
    kind: type[TrialScheduler], defaults: Mapping[str, Any], options: Mapping[str, Any]
) -> TrialScheduler:
    known = set(inspect.signature(kind.__init__).parameters) - {
        "self",
        "metric",
        "mode",
        "time_attr",
    }
    for key in options:
        if key not in known:
            raise ConfigError(
                f"schedule.{key}: unknown option; {kind.__name__} takes {', '.join(sorted(known)) or 'none'}"
            )
    try:
        return kind(**{**defaults, **options})
    except (TypeError, ValueError, AssertionError) as error:
        raise ConfigError(f"schedule: {kind.__name__} refuses {dict(options)} ({error})") from error


def _user_scheduler(path: str, options: Mapping[str, Any]) -> TrialScheduler:
    module, _, name = path.partition(":")
    try:
        made = getattr(importlib.import_module(module), name)(**options)
    except Exception as error:  # a user's callable may raise anything
        raise ConfigError(
            f"schedule.name: {path!r} failed with {type(error).__name__}: {error}; mend the callable"
        ) from error
    if not isinstance(made, TrialScheduler):
        raise ConfigError(
            f"schedule.name: {path!r} returned a {type(made).__name__}, not a ray.tune scheduler"
        )
    return made
