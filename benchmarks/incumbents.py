"""Which search finds better students, really trained: the incumbents after some evaluations, trained again with new seeds.

    python -m benchmarks.incumbents digits_resnet14 --seeds 3                 # resumable; no budget, 80 evaluations, the objective f
    python -m benchmarks.incumbents digits_resnet14 --methods gp multi_kernel_bo esnac random --evaluations 40
    python -m benchmarks.incumbents digits_resnet14 --methods multi_kernel_bo transfer --source runs/vgg6 --evaluations 24
    python -m benchmarks.incumbents digits_conv5 --budget 0.05 --seeds 5 --methods embedding_gradient random evolution --against embedding_gradient
    python -m benchmarks.incumbents fashion_vgg11 --budget 0.03 --data FOLDER # see benchmarks/problems.py
    python -m benchmarks.incumbents digits_resnet14 --table --seeds 50        # replayed on benchmarks/tables/PROBLEM.parquet
    python -m benchmarks.incumbents digits_resnet14 --table --asha --methods gp gp:use_stopped=false --against gp

The best value that a search saw is partly luck. So the student that looks best after each mark is trained three more times, with seeds
that no search used (on a table with sixteen), and the mean of these values is reported. One process, one student at a time, the default recipe of a trial, nobody
stops early but with `--asha`; the first students (`search.first`) are left out, so that only the searches differ. `esnac` is multi_kernel_bo with
`faithful: true`, `embedding_gradient:pick=bound,num_local=0` is a method with options, `transfer` begins with the kernels
of the run that `--source` names, or of the students without a budget of another problem's table. Finished searches are lines of `results/incumbents.jsonl`; the script goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from benchmarks.judges import Judge, StoppingJudge, TableJudge, TrainingJudge
from benchmarks.problems import problem_names
from benchmarks.sources import write_run
from benchmarks.tabular import TABLES
from raysearch.architecture import SearchSpace
from raysearch.comparing.significance import Difference, difference, holm
from raysearch.tables import Table
from searchers.algorithm import Algorithm, Exhausted, is_busy
from searchers.registry import make_algorithm

RESULTS = Path(__file__).parent / "results" / "incumbents.jsonl"
METHODS = ("random", "evolution", "tpe", "esnac", "gp", "multi_kernel_bo")
MARKS = (8, 16, 20, 24, 32, 40, 80, 160)
MAX_DUPLICATES = 100


def make(method: str, space: SearchSpace, seed: int, source: str | None) -> Algorithm:
    """The algorithm behind a name of this script."""
    name, _, given = method.partition(":")
    pairs = (pair.partition("=") for pair in given.split(",") if pair)
    options = {key: yaml.safe_load(value) for key, _, value in pairs}
    if name == "esnac":
        return make_algorithm("multi_kernel_bo", space, seed, {"faithful": True} | options)
    if name == "transfer":
        if source is None:
            raise SystemExit(
                "transfer needs --source: the folder of a finished run, or a table of another problem"
            )
        if not source.endswith(".parquet"):
            return make_algorithm("multi_kernel_bo", space, seed, options, warm_start=source)
        with tempfile.TemporaryDirectory() as folder:  # read at once
            write_run(Path(source), Path(folder))
            return make_algorithm("multi_kernel_bo", space, seed, options, warm_start=folder)
    return make_algorithm(name, space, seed, options)


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
        is_full = observation.status == "full"
        students[key] = proposal.architecture, (observation.value or 0.0) if is_full else 0.0
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


def make_judge(options: argparse.Namespace) -> Judge:
    """What the searches are told by."""
    if options.table:
        file = TABLES / f"{options.problem}.parquet"
        return TableJudge(Table.read(file), options.budget)
    return TrainingJudge.of(options.problem, options.data, options.budget)


def run(options: argparse.Namespace) -> None:
    """Runs the searches that are not in the file yet."""
    if options.asha and not options.table:
        raise SystemExit("--asha needs --table: a training does not tell its curve here")
    judge = make_judge(options)
    done = {_cell(row) for row in _read(options.out)}
    for seed in range(options.first_seed, options.first_seed + options.seeds):
        for method in options.methods:
            cell = {
                "problem": options.problem,
                "replayed": options.table,
                "budget": options.budget,
                "method": method,
                "seed": seed,
                "evaluations": options.evaluations,
            } | ({"asha": True} if options.asha else {})
            if _cell(cell) in done:
                continue
            algorithm = make(method, judge.space, seed, options.source)
            teller = StoppingJudge(judge) if options.asha else judge
            row = cell | search(teller, algorithm, seed, options.evaluations)
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
        groups.setdefault((*_problem(row), row["method"]), []).append(row)
    lines = [
        "| problem | budget | method | seeds | incumbents, trained again | proposing, CPU s |",
        "|---|---|---|---|---|---|",
    ]
    for (*_, method), found in groups.items():
        marks = sorted(set.intersection(*(set(row["incumbents"]) for row in found)), key=int)
        cells = []
        for mark in marks:
            values = np.array([row["incumbents"][mark] for row in found])
            error = values.std(ddof=1) / math.sqrt(len(values)) if len(values) > 1 else math.nan
            cells.append(f"{mark}: {values.mean():.4f} ± {error:.4f}")
        seconds = np.mean([row["propose_s"] for row in found])
        lines.append(
            f"| {_title(found[0])} | {method} | {len(found)} | {', '.join(cells)} | {seconds:.1f} |"
        )
    return "\n".join(lines)


def against(rows: Iterable[Mapping[str, Any]], reference: str) -> str:
    """Paired differences of one method to all others over common seeds, in Markdown: exact sign-flip tests, Holm's correction."""
    groups: dict[tuple[Any, ...], dict[str, dict[int, Mapping[str, float]]]] = {}
    for row in rows:
        methods = groups.setdefault((*_problem(row), _title(row)), {})
        methods.setdefault(row["method"], {})[row["seed"]] = row["incumbents"]
    lines = [
        f"| problem | budget | {reference} less | seeds | by evaluations: mean difference (p) |",
        "|---|---|---|---|---|",
    ]
    for (*_, title), methods in groups.items():
        ours = methods.pop(reference, {})
        found: list[tuple[str, str, int, Difference]] = []
        for method, theirs in methods.items():
            seeds = sorted(ours.keys() & theirs.keys())
            both = [set(found[seed]) for seed in seeds for found in (ours, theirs)]
            for mark in sorted(set.intersection(*both) if both else (), key=int):
                pair = ([side[seed][mark] for seed in seeds] for side in (ours, theirs))
                found.append((method, mark, len(seeds), difference(*pair)))
        corrected = holm([one.p for *_, one in found])
        texts: dict[tuple[str, int], list[str]] = {}
        for (method, mark, count, one), p in zip(found, corrected, strict=True):
            texts.setdefault((method, count), []).append(f"{mark}: {one.mean:+.4f} ({p:.3f})")
        lines += [
            f"| {title} | {method} | {count} | {', '.join(cells)} |"
            for (method, count), cells in texts.items()
        ]
    return "\n".join(lines)


def _problem(row: Mapping[str, Any]) -> tuple[Any, ...]:
    asha = row.get("asha", False)
    return row["problem"], row.get("replayed", False), row["budget"], row["evaluations"], asha


def _title(row: Mapping[str, Any]) -> str:
    """The first two columns."""
    name = f"{row['problem']} (table)" if row.get("replayed") else row["problem"]
    name += ", stopped early" if row.get("asha") else ""
    return f"{name} | {'none' if row['budget'] is None else format(row['budget'], '.0%')}"


def _cell(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return *_problem(row), row["method"], row["seed"]


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
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--evaluations", type=int, default=80)
    parser.add_argument(
        "--budget", type=float, help="share of the teacher's parameters; default: none"
    )
    parser.add_argument("--data", type=Path, help="folder with fashion_mnist/ and cifar10/")
    parser.add_argument("--table", action="store_true", help="replay the problem's table")
    parser.add_argument("--asha", action="store_true", help="stop weak students, on a table")
    parser.add_argument(
        "--against", default="multi_kernel_bo", help="whom the others are tested against"
    )
    parser.add_argument(
        "--source", help="a run's folder or another problem's table, for the method transfer"
    )
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    run(options)
    rows = _read(options.out)
    print(table(rows), against(rows, options.against), sep="\n\n")


if __name__ == "__main__":
    main()
