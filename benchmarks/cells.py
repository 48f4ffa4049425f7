"""A small search of cells, and what its genotypes are worth: beside random genotypes of the same size, trained alike.

    python -m benchmarks.cells --out FILE                    # digits
    python -m benchmarks.cells --data FOLDER --out FILE      # Fashion-MNIST: FOLDER holds fashion_mnist/train.parquet and test.parquet

For each seed a super-network is trained. Its last student, and random genotypes with as many paths into each node, are made as wide as the
parameters allow, and trained afresh by labels alone with the same recipe; accuracies are those on the test part, which nothing
else has seen. Resumable: rows in FILE are not computed again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

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

Row = dict[str, Any]


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


class Rows:
    """The rows of one file that were made under the same options; each is computed once."""

    def __init__(self, file: Path, options: Row) -> None:
        self._file, self._options = file, options
        lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
        rows = [json.loads(line) for line in lines]
        self.rows: list[Row] = [row for row in rows if row["options"] == options]

    def get(self, key: Row, compute: Callable[[], Row]) -> Row:
        """The row of a key, from the file or computed."""
        for row in self.rows:
            if all(row[name] == value for name, value in key.items()):
                return row
        start = time.process_time()
        row = {**key, **compute(), "cpu_s": round(time.process_time() - start, 1)}
        row["options"] = self._options
        self.rows.append(row)
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        shown = {k: v for k, v in row.items() if k not in ("options", "genotype", "text", "epochs")}
        print(shown, flush=True)
        return row


class Comparison:
    """Searches and trainings of one problem."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        overrides = {"data": {"validation": 1000}} if arguments.data else {}
        if arguments.size:
            overrides["data"]["resize"] = arguments.size
        self.problem: Problem = prepare(
            problem_config(arguments.problem, arguments.data, overrides)
        )
        resources = TrialResources(cpus=1, gpus=0, concurrency=1, device="cpu")
        self.context: DistillationContext = make_context(self.problem, {"accuracy": 1.0}, resources)
        self.budget = {"params": arguments.params}
        self.lam, self.epochs = arguments.lam, arguments.epochs
        self.settings = SuperNetSettings(
            epochs=arguments.search_epochs,
            warm_up=1,
            channels=arguments.channels,
            batch_size=arguments.batch_size,
            hessian=arguments.hessian,
            student_cells=3,
            max_paths=2,
        )
        data = self.problem.data
        self.sizing = Sizing(data.shape, data.num_classes, 16, 3, 4, self.budget)

    def search(self, seed: int) -> Row:
        """Trains a super-network; what is left of it, and its last student."""
        run = SuperNetRun(self.context, self.settings, lam=self.lam, budget=self.budget, seed=seed)
        while not run.complete:
            run.train_epoch()
        return {
            "text": run.students[-1].text if run.students else None,
            "genotype": run.genotype.to_dict(),
            "epochs": run.history["epochs"],
        }

    def derived(self, text: str, seed: int) -> Row:
        return self._trained(Architecture.from_compact(text), seed)

    def random(self, genotype: CellGenotype, seed: int, number: int) -> Row:
        """One with as many paths, from the numbers of the search's seed and its own."""
        drawn = random_like(genotype, np.random.default_rng([seed, number]))
        sized = self.sizing.largest(drawn)
        assert sized is not None, "max_paths paths a node fit at the least width"
        row = self._trained(self.sizing.architecture(sized), number)
        return {**row, "genotype": drawn.to_dict()}

    def _trained(self, architecture: Architecture, seed: int) -> Row:
        """The test accuracy after a training by labels alone."""
        torch.manual_seed(seed)
        recipe = Recipe(loss="ce", epochs=self.epochs)
        training = Training(build(architecture), self.context.device_data, recipe, seed=seed)
        while training.epochs_done < self.epochs:
            training.train_epoch()
        training.validate()
        data = self.problem.data
        found = evaluate(training.module, data.test.images, data.test.labels, data.preprocessing)
        sizes = {"num_params": architecture.num_params, "macs": architecture.macs}
        return {**sizes, "accuracy": found["accuracy"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--problem", help="default: digits_resnet14, with --data fashion_resnet14")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--size", type=int, help="of Fashion-MNIST's images; default: 8")
    parser.add_argument("--lam", type=float, default=0.01)
    parser.add_argument("--params", type=int, default=30_000)
    parser.add_argument("--search-epochs", type=int, default=6)
    parser.add_argument("--hessian", default="ggn")
    parser.add_argument("--channels", type=int, default=4)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=3, help="of searches")
    parser.add_argument("--trainings", type=int, default=3, help="of each derived network")
    parser.add_argument("--random", type=int, default=3, help="random genotypes for each search")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    if arguments.size and not arguments.data:
        parser.error("--size needs --data")
    arguments.problem = arguments.problem or (
        "fashion_resnet14" if arguments.data else "digits_resnet14"
    )
    torch.set_num_threads(1)
    rows = Rows(arguments.out, _options(arguments))
    comparison = Comparison(arguments)
    for seed in range(arguments.seeds):
        found = rows.get({"role": "search", "seed": seed}, lambda s=seed: comparison.search(s))
        if found["text"] is None:
            print(f"seed {seed}: the super-network diverged before it offered a student")
            continue
        genotype = CellGenotype.from_dict(found["genotype"])
        for number in range(arguments.trainings):
            rows.get(
                {"role": "derived", "seed": seed, "number": number},
                lambda text=found["text"], n=number: comparison.derived(text, n),
            )
        for number in range(arguments.random):
            rows.get(
                {"role": "random", "seed": seed, "number": number},
                lambda g=genotype, s=seed, n=number: comparison.random(g, s, n),
            )
    print("\n".join(summary(rows.rows)))


def summary(rows: Sequence[Row]) -> list[str]:
    """Means over searches, each with the standard error over them, and the mean difference within a search."""
    means: dict[str, dict[int, float]] = {"derived": {}, "random": {}}
    for role, found in means.items():
        for seed in sorted({row["seed"] for row in rows if row["role"] == role}):
            of_seed = [r["accuracy"] for r in rows if (r["role"], r["seed"]) == (role, seed)]
            found[seed] = statistics.mean(of_seed)
    both = sorted(set(means["derived"]) & set(means["random"]))
    lines = [
        f"{role}: {_mean([means[role][seed] for seed in both])}, "
        f"{_range([row['num_params'] for row in rows if row['role'] == role])} parameters"
        for role in means
    ]
    differences = [means["derived"][seed] - means["random"][seed] for seed in both]
    return [*lines, f"derived - random, {len(both)} searches: {_mean(differences)}"] if both else []


def _mean(values: Sequence[float]) -> str:
    if len(values) < 2:
        return f"{values[0]:.4f} (one search, no error)"
    return f"{statistics.mean(values):.4f} +- {statistics.stdev(values) / len(values) ** 0.5:.4f}"


def _range(values: Sequence[int]) -> str:
    return f"{min(values):,} to {max(values):,}"


def _options(arguments: argparse.Namespace) -> Row:
    """What rows depend on; the numbers of seeds are no part of it."""
    counts = ("seeds", "trainings", "random", "out", "data")
    return {name: value for name, value in vars(arguments).items() if name not in counts}


if __name__ == "__main__":
    main()
