"""What a configuration names beside data and teacher, checked before anything is trained: schedule, method, pruning, metrics.

`raysearch.problem` and `raysearch.inspection` ask the same, so that what is inspected without a complaint can be run.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from raysearch.architecture import Architecture, SearchSpace
from raysearch.config import Config
from raysearch.errors import ConfigError, RunError
from raysearch.models import build
from raysearch.models.depgraph import check_torch_pruning
from raysearch.models.pruned import TORCH_PRUNING_FORMS, check_prunable
from raysearch.models.pruning import pruning_importance
from raysearch.models.states import state_of
from raysearch.schedules import make_scheduler
from raysearch.subject import latency_device
from raysearch.trials import trainable_of
from searchers.prune import DEFAULT_FORMS
from searchers.registry import make_algorithm, resolve
from searchers.runs import MakesRuns
from trainables.reports import REPORTED, load_metrics, own_metrics

HELD = (*REPORTED, "memory_bytes", "seconds")
"""Names that each result of a student holds."""


def check_names(config: Config) -> None:
    """Raises ConfigError where a schedule, a method or a function is not there, or the schedule's options are not its own."""
    make_scheduler(config.schedule, epochs=config.distill.epochs)
    resolve(config.search.method)
    if config.distill.metrics is not None:
        load_metrics(config.distill.metrics)


def check_method(
    config: Config,
    space: SearchSpace,
    module: nn.Module,
    architecture: Architecture,
    num_classes: int,
) -> Any:
    """The method, made for the space with its options.

    Args:
        config: the configuration.
        space: the students within the budget.
        module: the teacher, in eval mode.
        architecture: its graph.
        num_classes: of the data.

    Raises:
        InputError: an option is wrong, or the method, the pruning or `distill.inherit` does not go with the teacher.
    """
    search, shape = config.search, architecture.input_shape
    method = make_algorithm(
        search.method, space, config.run.seed, search.options, warm_start=search.warm_start
    )
    _check_runs(method, architecture)
    if isinstance(method, MakesRuns) and "accuracy" in config.limits:
        raise ConfigError(
            f"budget.accuracy is set, but a run of the method {search.method!r} holds params, macs and memory only: limit one of these"
        )
    if check_reports := getattr(method, "check_reports", None):
        check_reports((*config.distill.report, *space.limits), num_classes)
    _check_pruning(config, space, module)
    if config.distill.inherit == "pruning":  # which not every teacher allows
        state = state_of(module)
        device = next(iter(state.values())).device
        pruning_importance(architecture, state, torch.zeros(2, *shape, device=device))
    return method


def try_metrics(config: Config, space: SearchSpace, module: nn.Module) -> None:
    """Calls the user's function `distill.metrics` once, with the smallest student before its training.

    The smallest, since what it measures on may be too small for the teacher. Not where trials run on another cluster, whose machines may
    have what the function needs and this one lacks.

    Raises:
        ConfigError: the function raises, or does not return finite numbers by new names.
    """
    path = config.distill.metrics
    if path is None or config.cluster.address is not None:
        return
    student = space.apply(space.smallest())
    network = build(student, inherit_from=module).to(latency_device(config)).eval()
    try:
        own_metrics(path, network, student, HELD)
    except RunError as error:
        raise ConfigError(
            f"{error} (tried on the smallest student before the search): mend it, or set distill.metrics to null"
        ) from error


def _check_runs(method: Any, architecture: Architecture) -> None:
    """Lets the trainable of a method of runs refuse a teacher."""
    check = getattr(trainable_of(method), "check_teacher", None)
    settings = getattr(method, "settings", None)
    if isinstance(method, MakesRuns) and check is not None and settings is not None:
        check(settings.to_dict(), architecture, architecture.input_shape)


def _check_pruning(config: Config, space: SearchSpace, module: nn.Module) -> None:
    """Raises InputError where pruned students are asked for and cannot be had."""
    search, options = config.search, config.search.options
    first = [] if search.method == "random" or search.first == "auto" else search.first
    wanted = {
        "search.method 'prune'": options.get("forms", DEFAULT_FORMS)
        if search.method == "prune"
        else (),
        "search.first": [form for form in first if form != "uniform"],
        "baselines": DEFAULT_FORMS if "prune" in config.baselines else (),
    }
    for key, forms in wanted.items():
        if forms:
            check_prunable(space, key)
        if set(forms) & set(TORCH_PRUNING_FORMS):
            check_torch_pruning(space, state_of(module), key)
