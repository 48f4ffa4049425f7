"""What a teacher gives to its students: its weights, its accuracy, and its cached answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from raysearch.cluster import TrialResources, plan_resources
from raysearch.config import Config
from raysearch.data import distillation_data
from raysearch.data.batches import DeviceBatches
from raysearch.models.keep import Scores
from raysearch.models.scores import channel_scores, load_scores, save_scores
from raysearch.models.states import state_of
from raysearch.problem import Problem, check_teacher_accuracy
from raysearch.threads import torch_threads
from raysearch.trials import trainable_of
from searchers.registry import resolve
from trainables.context import DistillationContext
from trainables.distillation import DistillationTrainable
from trainables.teacher import cached_teacher
from trainables.training import evaluate

SMALL_MACS = 20_000_000
"""Below it a batch of a few dozen images is a few milliseconds of work."""

SCORING_BATCHES, SCORING_BATCH = 50, 64
"""How many batches of how many images are looked at to score the teacher's channels."""

FINISHING_STAGES = ("finish", "uniform", "random_finish", "prune_finish")
SEARCHING_STAGES = ("search", "random", "prune")


def suitable_threads(problem: Problem) -> AbstractContextManager[None]:
    """One intra-op thread for the block where the teacher is small."""
    return torch_threads(1 if problem.architecture.macs < SMALL_MACS else None)


def driver_device(config: Config) -> str:
    """Where the teacher is trained and finished students are evaluated: "cuda" if this machine has it, else "cpu"."""
    return "cuda" if torch.cuda.is_available() and config.resources.device != "cpu" else "cpu"


def evaluate_part(problem: Problem, module: torch.nn.Module, part: str) -> dict[str, float]:
    """Accuracy and cross-entropy on "train", "validation" or "test"."""
    split = getattr(problem.data, part)
    return evaluate(
        module,
        split.images,
        split.labels,
        problem.data.preprocessing,
        device=driver_device(problem.config),
    )


def teach(
    problem: Problem, progress: Callable[[dict[str, Any]], None] | None = None
) -> dict[str, Any]:
    """Trains the teacher where it came without weights, and writes its card.

    Args:
        progress: called after each validation of the training with `epoch, epochs, train_loss, accuracy, loss`.

    Returns:
        `model, num_params, macs, accuracy, loss` (of the validation part), `weights` ("given", "trained" or "cache"), `notes`.

    Raises:
        DataError: the teacher knows nothing of these data.
    """
    source = "given"
    if not problem.has_weights:
        trained = cached_teacher(
            problem.teacher,
            problem.data,
            identity=problem.architecture.id,
            epochs=problem.config.teacher.epochs,
            seed=problem.config.teacher_seed,
            device=driver_device(problem.config),
            progress=progress,
        )
        source = "cache" if trained["cached"] else "trained"
    metrics = evaluate_part(problem, problem.teacher, "validation")
    return {
        "model": problem.config.teacher.model,
        "num_params": problem.architecture.num_params,
        "macs": problem.architecture.macs,
        "accuracy": metrics["accuracy"],
        "loss": metrics["loss"],
        "weights": source,
        "notes": [
            *problem.notes,
            *check_teacher_accuracy(metrics["accuracy"], problem.data, given=problem.has_weights),
        ],
    }


def make_context(
    problem: Problem,
    card: Mapping[str, Any],
    resources: TrialResources,
    *,
    weights_folder: Path | None = None,
    scores_folder: Path | None = None,
    history_folder: Path | None = None,
    rankings: Mapping[str, Scores] | None = None,
) -> DistillationContext:
    """Everything that the trials of a problem share.

    Args:
        card: from `teach`.
        weights_folder: see `DistillationContext`.
        scores_folder: where the channels' importance is kept for a resumed run; None: nowhere.
        history_folder, rankings: see `DistillationContext`.
    """
    config = problem.config
    inherit = "fresh" if config.distill.inherit == "none" else "inherit"
    state = state_of(problem.teacher)
    return DistillationContext(
        teacher=problem.architecture.to_json(),
        teacher_weights={name: value.cpu().numpy() for name, value in state.items()},
        space=problem.space_arguments,
        data=distillation_data(
            problem.data,
            problem.teacher,
            num_views=max(config.distill.views, config.finish.views),
            num_answered=max(
                r.views if r.loss != "ce" else 0 for r in (config.distill, config.finish)
            ),
            seed=config.run.seed,
            device=driver_device(config),
        ),
        recipes={
            **dict.fromkeys(SEARCHING_STAGES, config.distill.recipe(len(problem.data.train))),
            **dict.fromkeys(FINISHING_STAGES, config.finish.recipe(len(problem.data.train))),
        },
        value_epochs=dict.fromkeys(SEARCHING_STAGES, config.distill.value_epoch),
        init={
            **dict.fromkeys(SEARCHING_STAGES, inherit),
            **dict.fromkeys(FINISHING_STAGES, config.finish.init),
        },
        repeats=dict.fromkeys(SEARCHING_STAGES, config.distill.repeats),
        channel_scores=rank_channels(problem, scores_folder),
        rankings=rankings or {},
        objective=problem.objective,
        teacher_accuracy=card["accuracy"],
        floor=problem.floor.accuracy(card["accuracy"]) if problem.floor else None,
        size=problem.size,
        report=config.distill.report,
        metrics=config.distill.metrics,
        device=resources.device,
        threads=max(1, int(resources.cpus)),
        weights_folder=None if weights_folder is None else str(weights_folder),
        limits={
            key: int(limit) for key, limit in problem.space.limits.items() if key != "latency_ms"
        },
        run_settings=problem.run_settings,
        history_folder=None if history_folder is None else str(history_folder),
        timeout_s=config.resources.timeout_s,
        seed=config.run.seed,
    )


def rank_channels(problem: Problem, folder: Path | None) -> list[np.ndarray] | None:
    """The importance of the teacher's channels as `distill.inherit` asks for it; computed once a run."""
    ranking, architecture = problem.config.distill.inherit, problem.architecture
    if ranking in ("none", "first"):
        return None
    file = None if folder is None else folder / f"importance-{ranking}.safetensors"
    scores = None if file is None else load_scores(file, architecture)
    if scores is None:
        state = state_of(problem.teacher)
        scores = channel_scores(ranking, architecture, state, lambda: labelled_batches(problem))
        if file is not None and scores is not None:
            save_scores(file, architecture, scores)
    return scores


def labelled_batches(problem: Problem) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Some training images and their labels, drawn from the run's seed."""
    train, device = problem.data.train, driver_device(problem.config)
    batches = DeviceBatches(train.images, train.labels, problem.data.preprocessing, device=device)
    generator = torch.Generator().manual_seed(problem.config.run.seed)
    for indices in batches.order(SCORING_BATCH, generator)[:SCORING_BATCHES]:
        yield batches.take(indices), batches.labels[indices]


def make_trainable(problem: Problem) -> type[DistillationTrainable]:
    """The distillation of a problem's students as a trainable for anybody's `ray.tune.Tuner`; the runs, where its method makes runs.

    Trains the teacher first where it came without weights. Ray must be running, or is started by Tune.
    """
    with suitable_threads(problem):
        context = make_context(problem, teach(problem), plan_resources(problem.config))
    return trainable_of(resolve(problem.config.search.method)).bound(context)
