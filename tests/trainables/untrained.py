"""What trials are given where it does not matter what the teacher knows: it is untrained, and said to reach an accuracy of 0.9."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from raysearch import load_config, prepare
from raysearch.cluster import TrialResources
from raysearch.problem import Problem
from raysearch.teaching import make_context
from trainables import DistillationTrainable
from trainables.context import DistillationContext

RESOURCES = TrialResources(cpus=1, gpus=0, concurrency=2, device="cpu")


def make_problem(config: Mapping[str, Any]) -> Problem:
    """Teacher, data and space of a configuration; few of the digits are trained on, so that an epoch is short."""
    return prepare(load_config({"data": {"validation": 1000}, **config}))


def make_untrained(problem: Problem, **options: Any) -> DistillationContext:
    """What all trials of the problem share; `options` as `make_context` takes them."""
    return make_context(problem, {"accuracy": 0.9}, RESOURCES, **options)


def trial(context: DistillationContext, architecture: str, **config: Any) -> DistillationTrainable:
    """A trial in this process, as Tune would make it."""
    return DistillationTrainable.bound(context)({"architecture": architecture, **config})


def results(trainable: DistillationTrainable, steps: int = 3) -> list[dict[str, Any]]:
    """What so many epochs report, without what clocks and counts add."""
    keep = ("reward", "accuracy", "loss", "epochs_done")
    reported = [trainable.train() for _ in range(steps)]
    return [{key: result[key] for key in keep} for result in reported]
