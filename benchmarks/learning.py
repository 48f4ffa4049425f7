"""Whether a search that learns does: rewards of its first and last evaluations, and its best against others' at equal evaluations.

    python -m benchmarks.learning benchmarks/tables/digits_resnet14.parquet --trials 250 --seeds 5 budget=null
    python -m benchmarks.learning benchmarks/tables/digits_resnet14.parquet --trials 250 --seeds 5 budget.params=0.05

On a table of trained students (docs/tables.md): nothing is trained. For each method the means over seeds, with their standard errors: of the
rewards of the first and of the last fifth of the evaluations, and of the best reward. For methods in stages (`method_stage`) the
fifths of each stage too. Overrides are those of a configuration; `search.options` holds for the first method alone.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.tabular import observe
from raysearch.config import load_config
from raysearch.tables import Judge, Table
from searchers.algorithm import Exhausted
from searchers.registry import make_algorithm

MAX_DUPLICATES = 100


def search(
    table: Table,
    judge: Judge,
    method: str,
    options: dict,
    limits: dict | None,
    trials: int,
    seed: int,
) -> list[tuple[str, float]]:
    """The evaluations of one search, in their order: the stage of the method, the reward (the worst one for failures)."""
    algorithm = make_algorithm(method, table.space(limits), seed, options, num_trials=trials)
    found: list[tuple[str, float]] = []
    known: set[str] = set()
    duplicates = 0
    while len(found) < trials and duplicates <= MAX_DUPLICATES:
        try:
            proposal = algorithm.ask()
        except Exhausted:
            break
        assert proposal is not None, "nothing is outstanding, so there is nothing to wait for"
        key = table.identify(proposal.architecture)
        if key in known:
            duplicates += 1
            continue
        known.add(key)
        observation, _ = observe(table, judge, proposal.architecture, seed)
        algorithm.tell(observation)
        value = judge.worst if observation.value is None else observation.value
        found.append((proposal.extra.get("method_stage", ""), value))
    return found


def fifths(rewards: Sequence[float]) -> tuple[float, float]:
    """Means of the first and of the last fifth."""
    fifth = max(1, len(rewards) // 5)
    return float(np.mean(rewards[:fifth])), float(np.mean(rewards[-fifth:]))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("table", type=Path)
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--methods", nargs="+", default=["n2n", "evolution", "random"])
    parser.add_argument("--trials", type=int, default=250)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, help="append a JSON line for each method")
    options = parser.parse_args()
    table = Table.read(options.table)
    config = load_config(None, options.overrides)
    limits = config.limits or None
    judge = Judge.of(table, limits, config.objective)
    for place, method in enumerate(options.methods):
        start = time.process_time()
        runs = [
            search(
                table,
                judge,
                method,
                dict(config.search.options) if not place else {},
                limits,
                options.trials,
                seed,
            )
            for seed in range(options.seeds)
        ]
        row: dict = {
            "table": table.problem,
            "method": method,
            "overrides": options.overrides,
            "evaluations": [len(run) for run in runs],
            "cpu_s": round((time.process_time() - start) / len(runs), 1),
        }
        stages = ["", *sorted({stage for run in runs for stage, _ in run} - {""})]
        for stage in stages:
            chosen = [[value for name, value in run if stage in ("", name)] for run in runs]
            pairs = np.array([fifths(rewards) for rewards in chosen if rewards])
            row[f"fifths {stage}".strip()] = summary(pairs[:, 0]), summary(pairs[:, 1])
        for mark in (options.trials // 4, options.trials // 2, options.trials):
            row[f"best of {mark}"] = summary(
                np.array([max(value for _, value in run[:mark]) for run in runs])
            )
        print(json.dumps(row), flush=True)
        if options.out:
            with options.out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")


def summary(values: np.ndarray) -> list[float]:
    """Mean and standard error."""
    error = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else 0.0
    return [round(float(values.mean()), 4), round(float(error), 4)]


if __name__ == "__main__":
    main()
