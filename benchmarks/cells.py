"""A small search of cells, and what its genotype is worth: beside random genotypes of the same size, trained alike.

    python -m benchmarks.cells                                             # digits
    python -m benchmarks.cells --problem fashion_resnet14 --data FOLDER    # 5,000 images of Fashion-MNIST

The super-network is trained once. Its last student, and random genotypes with as many paths into each node, are made as wide as the
parameters allow, and trained afresh by labels alone with the same recipe; accuracies are those on the test part.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.problems import problem_config
from raysearch import prepare
from raysearch.architecture import Architecture
from raysearch.bayesnas.cells import SuperNetSettings
from raysearch.cluster import TrialResources
from raysearch.models import build
from raysearch.problem import Problem
from raysearch.teaching import make_context
from trainables.bayesnas.cells.derived import Sizing
from trainables.bayesnas.cells.genotype import CellGenotype, all_paths
from trainables.bayesnas.cells.genotype import Path as CellPath
from trainables.bayesnas.cells.run import SuperNetRun
from trainables.context import DistillationContext
from trainables.recipe import Recipe
from trainables.training import Training, evaluate


def random_like(genotype: CellGenotype, rng: np.random.Generator) -> CellGenotype:
    """Random paths, as many into each node."""

    def draw(paths: tuple[CellPath, ...]) -> tuple[CellPath, ...]:
        found: list[CellPath] = []
        for node in sorted({path.target for path in paths}):
            into = [path for path in all_paths() if path.target == node]
            count = sum(path.target == node for path in paths)
            found += [into[k] for k in rng.choice(len(into), count, replace=False)]
        return tuple(found)

    return CellGenotype(draw(genotype.normal), draw(genotype.reduction))


def trained(
    architecture: Architecture,
    context: DistillationContext,
    problem: Problem,
    epochs: int,
    seed: int,
) -> float:
    """The test accuracy after a training by labels alone."""
    torch.manual_seed(seed)
    recipe = Recipe(loss="ce", epochs=epochs)
    training = Training(build(architecture), context.device_data, recipe, seed=seed)
    while training.epochs_done < epochs:
        training.train_epoch()
    training.validate()
    test = problem.data.test
    return evaluate(training.module, test.images, test.labels, problem.data.preprocessing)[
        "accuracy"
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--problem", default="digits_resnet14")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--lam", type=float, default=0.01)
    parser.add_argument("--params", type=int, default=30_000)
    parser.add_argument("--search-epochs", type=int, default=6)
    parser.add_argument("--channels", type=int, default=4)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    problem = prepare(problem_config(arguments.problem, arguments.data))
    resources = TrialResources(cpus=1, gpus=0, concurrency=1, device="cpu")
    context = make_context(problem, {"accuracy": 1.0}, resources)
    settings = SuperNetSettings(
        epochs=arguments.search_epochs,
        warm_up=1,
        channels=arguments.channels,
        batch_size=arguments.batch_size,
        student_cells=3,
        max_paths=2,
    )
    budget = {"params": arguments.params}
    run = SuperNetRun(context, settings, lam=arguments.lam, budget=budget, seed=0)
    start = time.process_time()
    while not run.complete:
        line = run.train_epoch()
        print({name: round(value, 4) for name, value in line.items()}, flush=True)
    print(
        f"search: {time.process_time() - start:.0f} CPU s, {len(run.students)} students", flush=True
    )
    print(run.genotype.to_dict())
    found = run.students[-1]
    accuracies = [
        trained(found.architecture, context, problem, arguments.epochs, seed)
        for seed in range(arguments.seeds)
    ]
    print(
        f"derived, {found.architecture.num_params:,} parameters: {summary(accuracies)}", flush=True
    )
    sizing = Sizing(
        problem.data.shape, problem.data.num_classes, 16, settings.student_cells, 4, budget
    )
    rng, others = np.random.default_rng(0), []
    assert isinstance(run.genotype, CellGenotype)
    for seed in range(arguments.seeds):
        sized = sizing.largest(random_like(run.genotype, rng))
        assert sized is not None
        architecture = sizing.architecture(sized)
        others.append(trained(architecture, context, problem, arguments.epochs, seed))
        print(f"random, {architecture.num_params:,} parameters: {others[-1]:.4f}", flush=True)
    print(f"random: {summary(others)}")


def summary(accuracies: list[float]) -> str:
    values = ", ".join(f"{accuracy:.4f}" for accuracy in accuracies)
    return f"{statistics.mean(accuracies):.4f} ({values})"


if __name__ == "__main__":
    main()
