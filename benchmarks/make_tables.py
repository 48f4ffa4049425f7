"""Trains the students of a tabular benchmark, and packs them into one parquet file.

    python -m benchmarks.make_tables digits_resnet14
    python -m benchmarks.make_tables fashion_vgg11 --data FOLDER          # see benchmarks/problems.py

For each budget: the uniformly scaled student, random ones, and those that two searches propose, so that good regions are covered. Each is
trained with the default recipe of a trial; a fifth of them also fully, from the weights of the trial as a run does it, and judged on the
test part then; a few of them with more seeds. Everything is appended to `tables/work/PROBLEM.jsonl` the moment it is known: a cut script
goes on where it was. One process a worker, one thread each; `cpu_seconds` is processor time, so that a busy machine changes nothing.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.problems import problem_config, problem_names
from raysearch import prepare
from raysearch.architecture import SearchSpace
from raysearch.cluster import TrialResources
from raysearch.data.dataset import Preprocessing, Split
from raysearch.models import build
from raysearch.objective import REWARDS, Measurement
from raysearch.observations import ObservationLog
from raysearch.problem import Problem, space_arguments
from raysearch.tables import write_table
from raysearch.teaching import evaluate_part, make_context, teach
from searchers.algorithm import Observation
from searchers.registry import make_algorithm
from trainables.context import DistillationContext
from trainables.training import Training, evaluate

TABLES = Path(__file__).parent / "tables"
BUDGETS = (0.02, 0.03, 0.05, 0.1, None)
SEARCHES = ("evolution", "gp")
NUM_RANDOM, NUM_SEARCHED = 40, 30
FULL_SHARE = 0.2
FULL_EPOCHS = 20
"""A third of the default: enough to tell which short runs mislead, and a table takes hours as it is."""
MORE_SEEDS, NUM_SEEDED = (1, 2, 3), 3
"""So many students of each budget are trained with these seeds too."""

Row = dict[str, Any]


@dataclass(frozen=True)
class Task:
    """One training: which student, for which budget it was drawn, by whom, with which seed, and whether fully."""

    architecture: str
    architecture_id: str
    source: str
    budget: float | None
    seed: int = 0
    full: bool = False

    @property
    def key(self) -> tuple[str, int, bool]:
        return self.architecture_id, self.seed, self.full


@dataclass(frozen=True, eq=False)
class Bench:
    """What trains a row: the trials' context, and the test part."""

    context: DistillationContext
    test: Split
    preprocessing: Preprocessing


def make_bench(problem: Problem, card: Row) -> Bench:
    """The bench of a problem whose teacher is trained."""
    resources = TrialResources(cpus=1, gpus=0, concurrency=1, device="cpu")
    context = make_context(problem, card, resources)
    return Bench(context, problem.data.test, problem.data.preprocessing)


def train_row(bench: Bench, architecture: str, *, seed: int = 0, full: bool = False) -> Row:
    """Trains one student as a run would.

    Args:
        architecture: text of the edits.
        seed: of initialisation and batches.
        full: also the full training, and the test part.

    Returns:
        the columns of a row that training decides (see docs/tables.md).
    """
    context = bench.context
    student = context.search_space.apply(architecture)
    start = time.process_time()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        keep = context.ranking.keep(student)
        module = build(student, inherit_from=context.teacher_state, keep=keep)
    row: Row = _train(bench, module, "search", seed)
    row["cpu_seconds"] = time.process_time() - start
    if full:
        start = time.process_time()
        finished = _train(bench, module, "finish", seed)
        test = evaluate(module, bench.test.images, bench.test.labels, bench.preprocessing)
        row |= {f"full_{key}": value for key, value in finished.items()}
        row |= {f"test_{key}": value for key, value in test.items()}
        row["full_cpu_seconds"] = time.process_time() - start
    return {"num_params": student.num_params, "macs": student.macs, **row}


def _train(bench: Bench, module: torch.nn.Module, stage: str, seed: int) -> Row:
    recipe = bench.context.recipe(stage)
    training = Training(module, bench.context.device_data, recipe, seed=seed)
    curve = []
    for _ in range(recipe.epochs):
        training.train_epoch()
        curve.append(training.validate())
    return {name: [point[name] for point in curve] for name in ("accuracy", "loss")}


_bench: Bench | None = None
"""Of a worker process."""


def _start_worker(bench: Bench) -> None:
    global _bench  # one heavy object a process, as a pool's initializer leaves it
    torch.set_num_threads(1)
    _bench = bench


def _work(task: Task) -> Row:
    assert _bench is not None
    return train_row(_bench, task.architecture, seed=task.seed, full=task.full)


class TableMaker:
    """Plans the rows of one table, and trains what is missing.

    Args:
        problem: its teacher is trained where needed.
        log: the rows so far.
        num_random, num_searched: students of each budget that are drawn, and that each search proposes.
    """

    def __init__(
        self,
        problem: Problem,
        log: ObservationLog,
        *,
        num_random: int = NUM_RANDOM,
        num_searched: int = NUM_SEARCHED,
    ) -> None:
        self.num_random, self.num_searched = num_random, num_searched
        self.problem = problem
        self.card = teach(problem)
        self.log = log
        self._spaces = {budget: self._space(budget) for budget in BUDGETS}
        self._done = {_key(row) for row in log.records}

    def _space(self, budget: float | None) -> SearchSpace:
        return SearchSpace(
            self.problem.architecture,
            **space_arguments(self.problem.config),
            budget=None if budget is None else {"params": budget},
        )

    def run(self, workers: int) -> None:
        """Trains all rows that the log lacks."""
        bench = make_bench(self.problem, self.card)
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(
            workers, mp_context=spawn, initializer=_start_worker, initargs=(bench,)
        ) as pool:
            for tasks in (self._drawn(), self._searched(), self._finished(), self._seeded()):
                self._train(pool, tasks, workers)

    def _train(self, pool: ProcessPoolExecutor, tasks: Iterator[Task], workers: int) -> None:
        running: dict[Future[Row], Task] = {}
        for task in tasks:
            if task.key in self._done or task.key in {one.key for one in running.values()}:
                continue
            running[pool.submit(_work, task)] = task
            if len(running) >= workers:
                self._collect(running)
        while running:
            self._collect(running)

    def _collect(self, running: dict[Future[Row], Task]) -> None:
        """Logs at least one training that has ended."""
        ended, _ = wait(running, return_when=FIRST_COMPLETED)
        for future in ended:
            task = running.pop(future)
            self.log.append({**vars(task), **_finite(future.result())})
            self._done.add(task.key)
            row = self.log.records[-1]
            budget = "none" if task.budget is None else f"{task.budget:.0%}"
            print(
                f"{len(self.log.records):5} {task.source:10} {budget:>4} {row['accuracy'][-1]:.4f} {row['loss'][-1]:.4f}"
                f" {row.get('test_accuracy', '')}",
                flush=True,
            )

    def _task(self, architecture: str, source: str, budget: float | None) -> Task:
        key = self._spaces[budget].architecture_id(architecture)
        return Task(architecture, key, source, budget)

    def _drawn(self) -> Iterator[Task]:
        for budget, space in self._spaces.items():
            if budget is not None:
                yield self._task(str(space.uniform()), "uniform", budget)
        for edits in zip(
            *(space.sample(self.num_random, seed=0) for space in self._spaces.values()), strict=True
        ):
            for budget, one in zip(self._spaces, edits, strict=True):
                yield self._task(str(one), "random", budget)

    def _searched(self) -> Iterator[Task]:
        """What searches propose that know all rows of their budget; each goes on from what the log holds."""
        for method, (budget, space) in itertools.product(SEARCHES, self._spaces.items()):
            algorithm = make_algorithm(method, space, seed=0)
            told = 0
            found = sum(row["source"] == method for row in self._of(budget))
            for _ in range(self.num_searched - found):
                rows = self._of(budget)
                for row in rows[told:]:
                    algorithm.tell(self._observation(row))
                told = len(rows)
                proposal = algorithm.ask()
                if proposal is None:
                    break
                yield self._task(proposal.architecture, method, budget)

    def _seeded(self) -> Iterator[Task]:
        """More seeds of a few students of each budget, from the best to the worst."""
        for budget in BUDGETS:
            for row, seed in itertools.product(
                _spread(self._of(budget), NUM_SEEDED), (0, *MORE_SEEDS)
            ):
                yield Task(
                    row["architecture"],
                    row["architecture_id"],
                    row["source"],
                    budget,
                    seed=seed,
                    full=True,
                )

    def _finished(self) -> Iterator[Task]:
        """Full trainings: for each budget the uniform student, the best by the short training, and a spread over all others."""
        for budget in BUDGETS:
            rows = self._of(budget)
            count = round(FULL_SHARE * len(rows))
            best = rows_by_value(rows, self._value)[: count // 3]
            uniform = [row for row in rows if row["source"] == "uniform"]
            others = [row for row in rows if row not in best and row not in uniform]
            chosen = [*uniform, *best, *_spread(others, count - len(best) - len(uniform))]
            for row in chosen:
                yield Task(
                    row["architecture"], row["architecture_id"], row["source"], budget, full=True
                )

    def _of(self, budget: float | None) -> list[Row]:
        """The students of a budget, each once, in the order of their training."""
        return [
            row
            for row in self.log.records
            if row["budget"] == budget and row["seed"] == 0 and not row["full"]
        ]

    def _value(self, row: Row) -> float:
        reward = REWARDS["f" if row["budget"] is None else "accuracy"]
        return reward(
            Measurement(
                accuracy=row["accuracy"][-1],
                loss=row["loss"][-1],
                num_params=row["num_params"],
                teacher_accuracy=self.card["accuracy"],
                teacher_num_params=self.problem.architecture.num_params,
            )
        )

    def _observation(self, row: Row) -> Observation:
        return Observation(
            architecture=row["architecture"],
            value=self._value(row),
            fidelity=1.0,
            status="full",
        )

    def pack(self, path: Path, command: str) -> None:
        """Writes the parquet file."""
        problem = self.problem
        test = evaluate_part(problem, problem.teacher, "test")
        card = {key: self.card[key] for key in ("accuracy", "loss", "num_params", "macs")}
        config = problem.config.model_dump(mode="json")
        config["data"]["path"] = None  # of this machine
        about = {
            "problem": path.stem,
            "config": config,
            "architecture": problem.architecture.to_json(),
            "teacher": {**card, "test_accuracy": test["accuracy"]},
            "data_hash": problem.data.hash,
            "versions": {name: metadata.version(name) for name in ("raysearch", "torch", "numpy")},
            "command": command,
        }
        write_table(path, fullest(self.log.records), about)


def fullest(records: Sequence[Row]) -> list[Row]:
    """Of each student and seed the training that went furthest."""
    best: dict[tuple[str, int], Row] = {}
    for row in records:
        key = (row["architecture_id"], row["seed"])
        if key not in best or row["full"]:
            best[key] = row
    return list(best.values())


def _key(row: Row) -> tuple[str, int, bool]:
    return row["architecture_id"], row["seed"], row["full"]


def _finite(row: Row) -> Row:
    """A diverged student's infinite losses as the largest number that float32 holds; JSON knows no infinity."""
    limit = float(np.finfo(np.float32).max)

    def clip(value: Any) -> Any:
        if isinstance(value, list):
            return [clip(one) for one in value]
        return min(value, limit) if isinstance(value, float) else value

    return {key: clip(value) for key, value in row.items()}


def rows_by_value(rows: Sequence[Row], value: Any) -> list[Row]:
    """The best first."""
    return sorted(rows, key=value, reverse=True)


def _spread(rows: Sequence[Row], count: int) -> list[Row]:
    """So many rows, evenly from the best to the worst by the last cross-entropy."""
    ordered = sorted(rows, key=lambda row: row["loss"][-1])
    positions = np.linspace(0, len(ordered) - 1, max(0, min(count, len(ordered))))
    return [ordered[round(position)] for position in positions]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("problem", choices=problem_names())
    parser.add_argument("--data", type=Path, help="a folder with fashion_mnist/ and cifar10/")
    parser.add_argument("--workers", type=int, default=multiprocessing.cpu_count())
    parser.add_argument("--random", type=int, default=NUM_RANDOM, help="students of each budget")
    parser.add_argument("--searched", type=int, default=NUM_SEARCHED, help="by each search")
    parser.add_argument("--out", type=Path, default=TABLES, help="the folder of the tables")
    parser.add_argument("--pack-only", action="store_true", help="of the rows that there are")
    options = parser.parse_args()

    torch.set_num_threads(1)
    log = ObservationLog(options.out / "work" / f"{options.problem}.jsonl")
    maker = TableMaker(
        prepare(problem_config(options.problem, options.data, {"finish": {"epochs": FULL_EPOCHS}})),
        log,
        num_random=options.random,
        num_searched=options.searched,
    )
    if not options.pack_only:
        maker.run(options.workers)
    counts = [f"--random={options.random}", f"--searched={options.searched}"]
    command = shlex.join(["python", "-m", "benchmarks.make_tables", options.problem, *counts])
    path = options.out / f"{options.problem}.parquet"
    maker.pack(path, command)
    print(f"{path}: {len(log.records)} trainings, {path.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    sys.exit(main())
