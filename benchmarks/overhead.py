"""What the machinery costs: the same trainings by a plain loop in one process, and by our Tune experiment.

    python benchmarks/overhead.py                      # 32 students of the digits' ResNet-14, long enough for two minutes
    python benchmarks/overhead.py --trials 8 --epochs 4

Both sides train the same students with the same recipe and seeds, and must reach the same accuracies. Our side starts and stops Ray
and its actors inside the measured time.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from raysearch import load_config, prepare
from raysearch.cluster import plan_resources, ray_session
from raysearch.problem import Problem
from raysearch.teaching import make_context, teach
from searchers.algorithm import Exhausted, Observation, Proposal
from trainables.context import DistillationContext


class Listed:
    """Proposes the given students once, in their order."""

    def __init__(self, architectures: Sequence[str]) -> None:
        self.observations: list[Observation] = []
        self._left = list(architectures)

    def ask(self) -> Proposal | None:
        if not self._left:
            raise Exhausted
        return Proposal(self._left.pop(0), {"stage": "search"})

    def tell(self, observation: Observation) -> None:
        self.observations.append(observation)

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        pass


def plain_loop(
    context: DistillationContext, architectures: Sequence[str], threads: int
) -> dict[str, float]:
    """Trains one student after the other; returns the accuracies."""
    from raysearch.models import build
    from trainables.training import Training

    torch.set_num_threads(threads)
    recipe = context.recipe("search")
    accuracies = {}
    for text in architectures:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(context.seed)
            student = context.search_space.apply(text)
            keep = context.ranking_of(None).keep(student)
            module = build(student, inherit_from=context.teacher_state, keep=keep)
        training = Training(module, context.device_data, recipe, seed=context.seed)
        for _ in range(recipe.epochs):
            training.train_epoch()
            metrics = training.validate()
        accuracies[text] = metrics["accuracy"]
    return accuracies


def tune_experiment(
    problem: Problem, context: DistillationContext, architectures: Sequence[str]
) -> tuple[dict[str, float], int, dict[str, float]]:
    """The same by Tune; returns the accuracies, the number of actors that were started, and the seconds by part."""
    from ray import tune
    from ray.tune.logger import CSVLoggerCallback, JsonLoggerCallback

    from searchers.tune import TuneSearcher
    from trainables.distillation import DistillationTrainable

    start = time.perf_counter()
    algorithm = Listed(architectures)
    with tempfile.TemporaryDirectory() as folder, ray_session(problem.config):
        ready = time.perf_counter()
        resources = plan_resources(problem.config)
        results = tune.Tuner(
            tune.with_resources(DistillationTrainable.bound(context), {"CPU": resources.cpus}),
            tune_config=tune.TuneConfig(
                search_alg=TuneSearcher(algorithm, space=problem.space),
                metric="reward",
                mode="max",
                num_samples=-1,
                max_concurrent_trials=resources.concurrency,
                reuse_actors=True,
                trial_dirname_creator=lambda trial: trial.config["architecture_id"],
            ),
            run_config=tune.RunConfig(
                storage_path=folder,
                callbacks=[JsonLoggerCallback(), CSVLoggerCallback()],
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                verbose=0,
            ),
        ).fit()
        done = time.perf_counter()
        workers = {(row.metrics["node_ip"], row.metrics["pid"]) for row in results}
        training = sum(row.metrics["seconds"] for row in results)
    seconds = {
        "ray start": ready - start,
        "fit": done - ready,
        "of it training, per slot": training / resources.concurrency,
        "ray stop": time.perf_counter() - done,
    }
    accuracies = {o.architecture: o.metrics["accuracy"] for o in algorithm.observations}
    return accuracies, len(workers), seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--threads", type=int, default=1, help="of the plain loop")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    parser.add_argument("overrides", nargs="*", help="configuration overrides")
    options = parser.parse_args()

    config = load_config(None, [f"distill.epochs={options.epochs}", *options.overrides])
    problem = prepare(config)
    context = make_context(problem, teach(problem), plan_resources(config))
    batch = problem.space.sample(options.trials, seed=0)
    architectures = list(dict.fromkeys(str(edits) for edits in batch))

    start = time.perf_counter()
    loop = plain_loop(context, architectures, options.threads)
    loop_s = time.perf_counter() - start
    start = time.perf_counter()
    ours, num_actors, seconds = tune_experiment(problem, context, architectures)
    ours_s = time.perf_counter() - start

    differing = sum(loop[text] != ours[text] for text in architectures)
    figures = {
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
        "torch": torch.__version__,
        "students": len(architectures),
        "epochs": options.epochs,
        "loop_s": round(loop_s, 1),
        "ours_s": round(ours_s, 1),
        "ratio": round(ours_s / loop_s, 3),
        "actor_starts": num_actors,
        "students_with_another_accuracy": differing,
        **{name: round(value, 1) for name, value in seconds.items()},
    }
    for name, value in figures.items():
        print(f"{name:32} {value}")
    if options.out:
        options.out.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
