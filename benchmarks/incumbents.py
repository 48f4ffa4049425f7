"""Which search finds better students, really trained: the incumbents after some evaluations, trained again with new seeds.

    python -m benchmarks.incumbents digits_resnet14 --seeds 3                 # resumable; no budget, 80 evaluations, the objective f
    python -m benchmarks.incumbents digits_resnet14 --methods gp multi_kernel_bo esnac random --evaluations 40
    python -m benchmarks.incumbents digits_resnet14 --methods multi_kernel_bo transfer --source runs/vgg6 --evaluations 24
    python -m benchmarks.incumbents fashion_vgg11 --budget 0.03 --data FOLDER # see benchmarks/problems.py

The best value that a search saw is partly luck. So the student that looks best after each mark is trained three more times, with seeds
that no search used, and the mean of these values is reported. One process, one student at a time, the default recipe of a trial, nobody
stops early; the first students (`search.first`) are left out, so that only the searches differ. `esnac` is multi_kernel_bo with
`faithful: true`, `transfer` begins with the kernels of the run that `--source` names. Finished searches are lines of `results/incumbents.jsonl`; the script goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.make_tables import Bench, make_bench, train_row
from benchmarks.problems import problem_config, problem_names
from raysearch import prepare
from raysearch.architecture import SearchSpace
from raysearch.objective import REWARDS, Measurement, ObjectiveName
from raysearch.teaching import teach
from searchers.algorithm import Algorithm, Exhausted, Observation, is_busy
from searchers.registry import make_algorithm

RESULTS = Path(__file__).parent / "results" / "incumbents.jsonl"
METHODS = ("random", "evolution", "tpe", "esnac", "gp", "multi_kernel_bo")
MARKS = (8, 16, 20, 24, 32, 40, 80, 160)
NEW_SEEDS = (1001, 1002, 1003)
MAX_DUPLICATES = 100


class Judge:
    """Trains students, and gives what a trial would have told of them.

    Attributes:
        bench: what trains.
        space: where the students come from.
        objective: what is searched for.
        teacher_accuracy: on the validation part.
    """

    def __init__(
        self, bench: Bench, space: SearchSpace, objective: ObjectiveName, teacher_accuracy: float
    ) -> None:
        self.bench, self.space = bench, space
        self.objective: ObjectiveName = objective
        self.teacher_accuracy = teacher_accuracy
        self._values: dict[str, float] = {}

    def observe(self, edits: str, seed: int) -> Observation:
        """One training."""
        row = train_row(self.bench, edits, seed=seed)
        accuracy, loss = row["accuracy"][-1], row["loss"][-1]
        if not math.isfinite(loss):
            return Observation(edits, None, 1.0, "failed")
        total = self.space.teacher.num_params
        measured = Measurement(accuracy, loss, row["num_params"], self.teacher_accuracy, total)
        value = REWARDS[self.objective](measured)
        metrics = {
            "accuracy": accuracy,
            "loss": loss,
            "teacher_accuracy": self.teacher_accuracy,
            "num_params": row["num_params"],
            "compression": 1 - row["num_params"] / total,
        }
        return Observation(edits, value, 1.0, "full", (value,), metrics)

    def mean(self, edits: str) -> float:
        """The mean value over new seeds; a diverged training counts as 0."""
        key = self.space.architecture_id(edits)
        if key not in self._values:
            values = [self.observe(edits, seed).value or 0.0 for seed in NEW_SEEDS]
            self._values[key] = float(np.mean(values))
        return self._values[key]


def make(method: str, space: SearchSpace, seed: int, source: str | None) -> Algorithm:
    """The algorithm behind a name of this script."""
    if method == "esnac":
        return make_algorithm("multi_kernel_bo", space, seed, {"faithful": True})
    if method == "transfer":
        if source is None:
            raise SystemExit("transfer needs --source RUN, the folder of a finished run")
        return make_algorithm("multi_kernel_bo", space, seed, warm_start=source)
    return make_algorithm(method, space, seed)


def search(judge: Judge, algorithm: Algorithm, seed: int, count: int) -> dict[str, Any]:
    """One search.

    Returns:
        `values` of the evaluations in their order, `incumbents` by mark (values with new seeds), `sizes` of these, `propose_s` in CPU
        seconds of asking and telling, and of the threads that work ahead.
    """
    students: dict[str, tuple[str, float]] = {}
    propose_s, duplicates = 0.0, 0
    while len(students) < count and duplicates <= MAX_DUPLICATES:
        start = time.process_time()
        try:
            proposal = algorithm.ask()
        except Exhausted:
            break
        propose_s += time.process_time() - start
        assert proposal is not None, "nothing is outstanding, so there is nothing to wait for"
        key = judge.space.architecture_id(proposal.architecture)
        if key in students:
            duplicates += 1
            continue
        observation = judge.observe(proposal.architecture, seed)
        students[key] = proposal.architecture, observation.value or 0.0
        start = time.process_time()
        algorithm.tell(observation)
        while is_busy(algorithm):  # no training runs beside the proposing here
            time.sleep(0.005)
        propose_s += time.process_time() - start
    found = list(students.values())
    marks = [mark for mark in MARKS if mark < len(found)] + [len(found)]
    best = {mark: max(found[:mark], key=lambda one: one[1])[0] for mark in marks}
    sizes = judge.space.num_params(judge.space.batch(best.values()))
    return {
        "values": [round(value, 6) for _, value in found],
        "incumbents": {str(mark): round(judge.mean(text), 6) for mark, text in best.items()},
        "sizes": {str(mark): int(size) for mark, size in zip(marks, sizes, strict=True)},
        "propose_s": round(propose_s, 2),
    }


def run(options: argparse.Namespace) -> None:
    """Runs the searches that are not in the file yet."""
    budget = None if options.budget is None else {"params": options.budget}
    overrides = {"budget": budget, "objective": "auto"}
    problem = prepare(problem_config(options.problem, options.data, overrides))
    card = teach(problem)
    judge = Judge(make_bench(problem, card), problem.space, problem.objective, card["accuracy"])
    done = {_cell(row) for row in _read(options.out)}
    for seed in range(options.seeds):
        for method in options.methods:
            cell = {
                "problem": options.problem,
                "budget": options.budget,
                "method": method,
                "seed": seed,
                "evaluations": options.evaluations,
            }
            if _cell(cell) in done:
                continue
            algorithm = make(method, judge.space, seed, options.source)
            row = cell | search(judge, algorithm, seed, options.evaluations)
            with options.out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            print(
                f"seed {seed} {method}: {row['incumbents']}, proposing {row['propose_s']} CPU s",
                flush=True,
            )


def table(rows: Iterable[Mapping[str, Any]]) -> str:
    """Means and standard errors of the incumbents, in Markdown."""
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        key = (row["problem"], row["budget"], row["evaluations"], row["method"])
        groups.setdefault(key, []).append(row)
    lines = [
        "| problem | budget | method | seeds | incumbents, trained again | proposing, CPU s |",
        "|---|---|---|---|---|---|",
    ]
    for (problem, budget, _, method), found in groups.items():
        marks = sorted(set.intersection(*(set(row["incumbents"]) for row in found)), key=int)
        cells = []
        for mark in marks:
            values = np.array([row["incumbents"][mark] for row in found])
            error = values.std(ddof=1) / math.sqrt(len(values)) if len(values) > 1 else math.nan
            cells.append(f"{mark}: {values.mean():.4f} ± {error:.4f}")
        seconds = np.mean([row["propose_s"] for row in found])
        name = "none" if budget is None else f"{budget:.0%}"
        lines.append(
            f"| {problem} | {name} | {method} | {len(found)} | {', '.join(cells)} | {seconds:.1f} |"
        )
    return "\n".join(lines)


def _cell(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(row[key] for key in ("problem", "budget", "method", "seed", "evaluations"))


def _read(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]  # a torn end is left
    return [json.loads(line) for line in lines]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("problem", choices=problem_names())
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--evaluations", type=int, default=80)
    parser.add_argument(
        "--budget", type=float, help="share of the teacher's parameters; default: none"
    )
    parser.add_argument("--data", type=Path, help="folder with fashion_mnist/ and cifar10/")
    parser.add_argument("--source", help="a run's folder, for the method transfer")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    run(options)
    print(table(_read(options.out)))


if __name__ == "__main__":
    main()
