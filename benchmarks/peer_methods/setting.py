"""What every peer gets: the trained teacher, the data, the budget, the recipe; and how a student is trained and measured.

Teacher and split of the data belong to a problem (seed 0); the seed of a cell varies the search, the views and the training.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.problems import problem_config
from raysearch.architecture import Edits
from raysearch.cluster import TrialResources
from raysearch.config import load_config
from raysearch.models import build, trace
from raysearch.objective import resolve_objective
from raysearch.problem import Problem, prepare
from raysearch.subject import make_space
from raysearch.teaching import evaluate_part, make_context, teach
from trainables.context import DistillationContext
from trainables.training import Training

ONE_CORE = TrialResources(cpus=1, gpus=0, concurrency=1, device="cpu")


class NoSolution(Exception):
    """A peer has no student within the budget; the message says why."""


@dataclass(frozen=True)
class Options:
    """What cells depend on besides their names.

    Attributes:
        data: the folder with `fashion_mnist/` and `cifar10/`.
        overrides: configuration overrides for all peers, such as `search.trials=8`.
        concurrency: trials at once in our own runs.
        modelopt: the interpreter that has ModelOpt; None: FastNAS cannot run.
    """

    data: Path | None = None
    overrides: tuple[str, ...] = ()
    concurrency: int = 1
    modelopt: Path | None = None


@dataclass(frozen=True, eq=False)
class Setting:
    """One cell's problem.

    Attributes:
        problem: with the trained teacher, the cell's budget and seed.
        card: the teacher's.
        context: recipes, resident data with cached logits, the teacher's weights.
        prepared_s: CPU seconds that the context took; made once, counted in every cell.
        options: of all cells.
    """

    problem: Problem
    card: Mapping[str, Any]
    context: DistillationContext
    prepared_s: float
    options: Options

    @property
    def seed(self) -> int:
        return self.problem.config.run.seed

    @property
    def limit(self) -> int:
        """The parameters that a student may have."""
        return int(self.problem.space.limits["params"])

    @property
    def teacher(self) -> nn.Module:
        """The trained teacher: copy it before it is changed."""
        return self.problem.teacher


@dataclass(frozen=True, eq=False)
class Trained:
    """A trained student.

    Attributes:
        accuracy, loss: on the validation part.
        epochs: of all stages together.
        epoch_s: CPU seconds of the fastest epoch of the last stage.
    """

    module: nn.Module
    accuracy: float
    loss: float
    epochs: int
    epoch_s: float


def load_setting(name: str, budget: float, seed: int, options: Options) -> Setting:
    """The setting of a cell; the teacher is trained, or taken from the cache, outside of all counted time."""
    problem, card = _taught(name, options)
    config = load_config(
        problem.config.model_dump(),
        [f"budget.params={budget}", f"run.seed={seed}", "baselines=[]"],
    )
    problem = dataclasses.replace(
        problem,
        config=config,
        has_weights=True,
        space=make_space(config, problem.architecture),
        objective=resolve_objective(config.objective, has_budget=True),
    )
    context, seconds = _context(name, seed, options)
    return Setting(problem, card, context, seconds, options)


@functools.lru_cache(maxsize=2)
def _taught(name: str, options: Options) -> tuple[Problem, Mapping[str, Any]]:
    fixed = ["run.seed=0", "resources.device=cpu"]  # CPU seconds are compared
    problem = prepare(problem_config(name, options.data, [*options.overrides, *fixed]))
    return problem, teach(problem)


@functools.lru_cache(maxsize=1)
def _context(name: str, seed: int, options: Options) -> tuple[DistillationContext, float]:
    """The context of a seed, whatever the budget, and what it cost."""
    problem, card = _taught(name, options)
    start = time.process_time()
    config = load_config(problem.config.model_dump(), [f"run.seed={seed}"])
    context = make_context(dataclasses.replace(problem, config=config), card, ONE_CORE)
    _ = context.device_data  # made on its first use
    return context, time.process_time() - start


def inherit(setting: Setting, edits: Edits | str) -> nn.Module:
    """A student of ours with the weights that a trial starts from."""
    context = setting.context
    student = context.search_space.apply(edits)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(setting.seed)
        keep = context.ranking.keep(student)
        return build(student, inherit_from=context.teacher_state, keep=keep)


def train_stage(
    setting: Setting, module: nn.Module, stage: str, epochs: int | None = None
) -> Trained:
    """One stage of our run's training, "search" (short) or "finish", in place; `epochs` stretches its schedule."""
    recipe = setting.context.recipe(stage)
    if epochs is not None:
        recipe = dataclasses.replace(recipe, epochs=epochs)
    training = Training(module, setting.context.device_data, recipe, seed=setting.seed)
    fastest_s = math.inf
    for _ in range(recipe.epochs):
        start = time.process_time()
        training.train_epoch()
        fastest_s = min(fastest_s, time.process_time() - start)
        if training.diverged:
            break
    found = training.validate()
    epochs = training.epochs_done
    return Trained(training.module, found["accuracy"], found["loss"], epochs, fastest_s)


def finish(setting: Setting, short: Trained, epochs: int | None = None) -> Trained:
    """The full training, from the weights of the short one, as our finalists get it."""
    full = train_stage(setting, short.module, "finish", epochs)
    return dataclasses.replace(full, epochs=short.epochs + full.epochs)


def measure(setting: Setting, trained: Trained) -> dict[str, Any]:
    """What a cell reports of its student, counted by our own tracer, and evaluated on the test part once."""
    module = trained.module.eval().to(memory_format=torch.contiguous_format)  # pyright: ignore[reportCallIssue]
    counted = copy.deepcopy(module)
    for tensor in counted.state_dict().values():
        tensor.nan_to_num_()  # tracing compares answers, which a diverged student does not have
    architecture = trace(counted, setting.problem.data.shape)
    test = evaluate_part(setting.problem, module, "test")
    return {
        "accuracy": trained.accuracy,
        "loss": trained.loss,
        "test_accuracy": test["accuracy"],
        "test_loss": test["loss"],
        "num_params": max(count(module), architecture.num_params),
        "macs": architecture.macs,
        "epochs": trained.epochs,
    }


def count(module: nn.Module) -> int:
    """All parameters, BatchNorm's included."""
    return sum(parameter.numel() for parameter in module.parameters())
