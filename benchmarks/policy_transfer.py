"""What N2N's policies of one teacher are worth for another (section 5.3 and table 5 of the paper): the first batches, with and without.

    python -m benchmarks.policy_transfer benchmarks/tables/digits_resnet14.parquet benchmarks/tables/fashion_vgg11.parquet --seeds 5 budget=null

The first table's teacher is searched for `--trials` evaluations; its policies begin a search of the second one's, beside fresh ones with the same
seed. Tables of trained students answer (docs/tables.md). Reported: means over seeds, with their standard errors, of the rewards of the first
`--batches` batches and of the best student in them.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.learning import search, summary
from raysearch.comparing.significance import difference
from raysearch.config import load_config
from raysearch.tables import Judge, Table
from searchers.n2n.algorithm import N2NAlgorithm

ROLLOUTS = 5
"""m of a batch."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("source", type=Path, help="table of the first teacher")
    parser.add_argument("target", type=Path, help="table of the second teacher")
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--trials", type=int, default=250, help="of the first search")
    parser.add_argument("--batches", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_intermixed_args()
    config = load_config(None, options.overrides)
    limits, given = config.limits or None, dict(config.search.options)
    tables = [Table.read(file) for file in (options.source, options.target)]
    judges = [Judge.of(table, limits, config.objective) for table in tables]
    spaces = [table.space(limits) for table in tables]
    count = options.batches * ROLLOUTS
    rewards: dict[str, list[np.ndarray]] = {"fresh": [], "transferred": []}
    for seed in range(options.seeds):
        teacher = N2NAlgorithm(spaces[0], seed=seed, num_trials=options.trials, **given)
        search(tables[0], judges[0], teacher, options.trials, seed)
        with tempfile.TemporaryDirectory() as folder:
            teacher.write_knowledge(Path(folder))
            learned = N2NAlgorithm(spaces[1], seed=seed, num_trials=count, policy=folder, **given)
        fresh = N2NAlgorithm(spaces[1], seed=seed, num_trials=count, **given)
        for name, algorithm in (("fresh", fresh), ("transferred", learned)):
            found = search(tables[1], judges[1], algorithm, count, seed)
            rewards[name].append(np.array([value for _, value in found]))
    row: dict[str, Any] = {"source": tables[0].problem, "target": tables[1].problem}
    row |= {"overrides": options.overrides, "evaluations": count, "seeds": options.seeds}
    for name, runs in rewards.items():
        row[f"{name}: mean reward"] = summary(np.array([run.mean() for run in runs]))
        row[f"{name}: best reward"] = summary(np.array([run.max() for run in runs]))
    gains = [[run.mean() for run in rewards[name]] for name in ("transferred", "fresh")]
    found = difference(*gains)
    row["gain of the mean"] = [round(found.mean, 4), round(found.low, 4), round(found.high, 4)]
    print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
