"""Optuna's TPE as a practitioner uses it: a network class with a width and a depth for each stage, and an objective that trains it.

The sampler knows the budget as a constraint of its trials. A student over the budget is rejected before it is trained, told as
infeasible, and not counted as a trial. The rest is ours, in its favour: students begin with slices of the teacher's weights,
are judged by the cross-entropy after the same short recipe, as many are trained fully as our runs train, and the first
one asked for is the uniformly scaled network.
"""

from __future__ import annotations

from collections.abc import Iterator

import optuna
import torch
from optuna.trial import Trial
from torch import nn

from benchmarks.peer_methods.families import Family, slice_weights
from benchmarks.peer_methods.setting import (
    NoSolution,
    Setting,
    Trained,
    count,
    finish,
    train_stage,
)

ASKED = 200
"""Proposals for each trial at most: counting a network takes a millisecond, training it a thousand times that."""


def search(setting: Setting) -> tuple[Trained, int, str]:
    """The best student of a study, the number of trials, and a note."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    data = setting.problem.data
    family = Family.of(setting.teacher, data.num_classes, data.shape)
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=setting.seed))
    study.enqueue_trial(_uniform(setting, family))
    config = setting.problem.config
    shorts: list[Trained] = []
    asked = 0
    for trial, module in _within_budget(setting, family, study, ASKED * config.search.trials):
        short = train_stage(setting, module, "search")
        shorts.append(short)
        study.tell(trial, short.loss)
        asked = trial.number + 1
        if len(shorts) == config.search.trials:
            break
    if not shorts:
        raise NoSolution(f"none of {ASKED * config.search.trials:,} proposals fits")
    shorts.sort(key=lambda one: one.loss)
    fulls = [finish(setting, short) for short in shorts[: config.finish.students + 1]]
    best = min(fulls, key=lambda one: (-one.accuracy, one.loss))
    return best, len(shorts), f"{asked:,} proposals, {len(fulls)} trained fully"


def _within_budget(
    setting: Setting, family: Family, study: optuna.Study, proposals: int
) -> Iterator[tuple[Trial, nn.Module]]:
    """Asks until a network fits; tells the others as infeasible."""
    for _ in range(proposals):
        trial = study.ask()
        stages = [
            (
                trial.suggest_int(f"width_{number}", 1, width, log=True),
                trial.suggest_int(f"depth_{number}", 1, depth),
            )
            for number, (width, depth) in enumerate(family.stages)
        ]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(setting.seed)
            module = family.build(stages)
        excess = count(module) / setting.limit - 1
        trial.set_constraint("parameters", excess)
        if excess > 0:
            study.tell(trial, 1e3)  # a feasible one is always better, whatever the value
            continue
        slice_weights(module, setting.teacher)
        yield trial, module


def _uniform(setting: Setting, family: Family) -> dict[str, int]:
    """All widths scaled by the largest percentage that fits, nothing removed; one percent where none does."""
    stages = list(family.stages)
    for percent in range(100, 0, -1):
        stages = [(max(1, round(width * percent / 100)), depth) for width, depth in family.stages]
        if count(family.build(stages)) <= setting.limit:
            break
    widths = {f"width_{number}": width for number, (width, _) in enumerate(stages)}
    return widths | {f"depth_{number}": depth for number, (_, depth) in enumerate(stages)}
