"""A Tuner of the tests, run to its end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ray import tune


def fit(
    trainable: Any,
    folder: Path,
    *,
    param_space: Mapping[str, Any] | None = None,
    callbacks: Sequence[tune.Callback] = (),
    **options: Any,
) -> tune.ResultGrid:
    """Runs trials on reused actors, two at a time where `options`, which are `TuneConfig`'s, do not say otherwise."""
    settings = {"reuse_actors": True, "max_concurrent_trials": 2, **options}
    tuner = tune.Tuner(
        trainable,
        param_space=dict(param_space or {}),
        tune_config=tune.TuneConfig(**settings),
        run_config=tune.RunConfig(
            name="run",
            storage_path=str(folder),
            verbose=0,
            callbacks=[tune.logger.JsonLoggerCallback(), *callbacks],
        ),
    )
    return tuner.fit()
