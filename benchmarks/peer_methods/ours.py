"""Our own answers: the uniformly scaled student, and a whole run of raysearch."""

from __future__ import annotations

import dataclasses
import tempfile
from typing import Any

from torch import nn

from benchmarks.peer_methods.setting import Setting, inherit
from raysearch.api import Result
from raysearch.config import load_config
from raysearch.experiment import Experiment
from raysearch.files import create_run_folder
from raysearch.progress import Progress


def uniform(setting: Setting) -> tuple[nn.Module, str]:
    """The teacher scaled to the budget: all channel groups by one factor."""
    return inherit(setting, setting.problem.space.uniform()), ""


def run(setting: Setting, method: str | None) -> tuple[dict[str, Any], int, str]:
    """A run as `raysearch.compress` makes it, without baselines of its own.

    Args:
        method: None: the configuration's.

    Returns:
        what is reported of its best student, the trials, and a note.
    """
    changes = [f"search.concurrency={setting.options.concurrency}"]
    changes += [f"search.method={method}"] if method else []
    config = load_config(setting.problem.config.model_dump(), changes)
    problem = dataclasses.replace(setting.problem, config=config)
    with tempfile.TemporaryDirectory(prefix="peers-") as storage:
        files = create_run_folder(storage, None, "run")
        with Progress(enabled=False) as display:
            Experiment(problem, files, progress=display, command="").run()
        result = Result.read(files.folder)
        best = result.best
        trials = result.summary["trials"]
        keys = ("accuracy", "loss", "test_accuracy", "test_loss", "num_params", "macs")
        row = {key: best.metrics[key] for key in keys}
        short, full = config.distill.epochs, best.metrics["epochs"]
        origin = best.metrics["origin"]
    note = f"best: {origin}; " + ", ".join(f"{n} {status}" for status, n in trials.items())
    return {**row, "epochs": short + full}, sum(trials.values()), note
