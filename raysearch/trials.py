"""The trials of a run: which trainable makes them, and the Tune experiment that runs them."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune import Callback
from ray.tune.logger import CSVLoggerCallback, JsonLoggerCallback
from ray.tune.schedulers import TrialScheduler

from raysearch.cluster import TrialResources
from raysearch.config import Config
from raysearch.errors import ConfigError
from searchers.tracking import RUN, RUNS
from searchers.tune import TuneSearcher
from trainables.distillation import DistillationTrainable

MAX_FAILURES = 2
"""Retries of a trial whose worker or node died; a student's own failure is a result and is not retried."""


def trainable_of(method: Any) -> type[DistillationTrainable]:
    """The trainable of all trials of a run, which a method may name: an attribute `trainable = "package.module:Class"`.

    Args:
        method: the algorithm, or its class.

    Raises:
        ConfigError: the name cannot be imported, or is of no `DistillationTrainable`: students are trained by it too.
    """
    path = getattr(method, "trainable", None)
    if path is None:
        return DistillationTrainable
    kind = method if isinstance(method, type) else type(method)
    try:
        module, _, name = path.partition(":")
        found = getattr(importlib.import_module(module), name)
    except Exception as error:  # a user's module may raise anything
        raise ConfigError(
            f"search.method: the trainable {path!r} of {kind.__name__} could not be imported: {type(error).__name__}: {error}"
        ) from error
    if not isinstance(found, type) or not issubclass(found, DistillationTrainable):
        raise ConfigError(
            f"search.method: the trainable {path!r} of {kind.__name__} is no class derived from trainables.DistillationTrainable, "
            "which trains the students too"
        )
    return found


def make_tuner(
    config: Config,
    folder: Path,
    searcher: TuneSearcher,
    trainable: Any,
    *,
    scheduler: TrialScheduler,
    resources: TrialResources,
    callback: Callback,
) -> tune.Tuner:
    """The experiment of one session of a run.

    Args:
        config: of the run.
        folder: where Tune keeps its files, one folder below it for each session.
        searcher: who proposes.
        trainable: with its context.
        scheduler: who stops trials.
        resources: of one trial.
        callback: who watches.
    """
    request = {"CPU": resources.cpus, **({"GPU": resources.gpus} if resources.gpus else {})}
    return tune.Tuner(
        tune.with_resources(trainable, tune.PlacementGroupFactory([request])),
        param_space={"seed": config.run.seed},
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=scheduler,
            metric="reward",
            mode="max",
            num_samples=-1,
            max_concurrent_trials=resources.concurrency,
            reuse_actors=True,
            trial_name_creator=_trial_name,
            trial_dirname_creator=_trial_name,
        ),
        run_config=tune.RunConfig(
            name=_next_session(folder),
            storage_path=str(folder),
            callbacks=[JsonLoggerCallback(), CSVLoggerCallback(), callback],
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            failure_config=tune.FailureConfig(max_failures=MAX_FAILURES),
            verbose=0,
        ),
    )


def _trial_name(trial: Any) -> str:
    """Short: Tune would put the whole architecture into the folder's name."""
    stage = trial.config["stage"]
    if stage == RUNS:
        return f"{stage}-{trial.config[RUN]:03d}"
    return f"{stage}-{trial.config['architecture_id']}"


def _next_session(tune_folder: Path) -> str:
    """Every session of a run has a Tune experiment of its own."""
    number = 1
    while (tune_folder / f"session-{number}").exists():
        number += 1
    return f"session-{number}"
