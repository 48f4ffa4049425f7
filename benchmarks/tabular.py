"""Asks a table of trained students (docs/tables.md): what is in it, what a search finds on it, and whether it is right.

    python -m benchmarks.tabular info benchmarks/tables/digits_resnet14.parquet
    python -m benchmarks.tabular run benchmarks/tables/digits_resnet14.parquet --method gp --seeds 50 --trials 32 budget.params=0.05
    python -m benchmarks.tabular check digits_resnet14 --rows 20                  # trains: --data FOLDER where the problem needs it
    python -m benchmarks.tabular slice benchmarks/tables/digits_resnet14.parquet --students 24 --out tests/tables/slice.parquet

`info` and `run` need no data and train nothing. `run` takes configuration overrides (`budget`, `objective`, `search.options`,
`finish.students`); each seed is one search, and one training seed of its students. For searches as complete as a run's, with statistics
and figures, there is `python -m raysearch compare --table FILE`.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.retraining import differences
from raysearch.architecture import SearchSpace
from raysearch.config import Config, load_config
from raysearch.errors import InputError, TableError
from raysearch.tables import Judge, Table, write_table
from raysearch.tables.validation import rank_correlations
from searchers.algorithm import Exhausted, Observation
from searchers.registry import make_algorithm

TABLES = Path(__file__).parent / "tables"
MAX_DUPLICATES = 100
NUM_UNSEEN = 200
"""Students of each budget that the surrogate is compared on with the table's random ones."""


@dataclass(frozen=True)
class Trial:
    """One evaluation of a search."""

    architecture: str
    value: float
    exact: bool


def search(
    table: Table, space: SearchSpace, judge: Judge, config: Config, seed: int
) -> list[Trial]:
    """One search on a table, a student at a time; students that are proposed again cost nothing and are not told again."""
    search = config.search
    algorithm = make_algorithm(search.method, space, seed, search.options, num_trials=search.trials)
    trials: dict[str, Trial] = {}
    duplicates = 0
    while len(trials) < search.trials and duplicates <= MAX_DUPLICATES:
        try:
            proposal = algorithm.ask()
        except Exhausted:
            break
        assert proposal is not None, "nothing is outstanding, so there is nothing to wait for"
        key = table.identify(proposal.architecture)
        if key in trials:
            duplicates += 1
            continue
        observation, exact = observe(table, judge, proposal.architecture, seed)
        algorithm.tell(observation)
        value = judge.worst if observation.value is None else observation.value
        trials[key] = Trial(proposal.architecture, value, exact)
    return list(trials.values())


def observe(table: Table, judge: Judge, edits: str, seed: int) -> tuple[Observation, bool]:
    """What a trial of a student would have told, and whether the table holds it."""
    curve, student = table.evaluate(edits, seed=seed), table.apply(edits)
    if not np.isfinite(curve.loss).all():
        return Observation(edits, None, 1.0, "failed"), curve.exact
    points = zip(curve.accuracy, curve.loss, strict=True)
    values = tuple(judge.reward(student, *point) for point in points)
    metrics = {
        "accuracy": curve.accuracy[-1],
        "loss": curve.loss[-1],
        "teacher_accuracy": judge.teacher_accuracy,
        "num_params": student.num_params,
        "compression": 1 - student.num_params / judge.teacher.num_params,
    }
    return Observation(edits, values[-1], 1.0, "full", values, metrics), curve.exact


def run(table: Table, config: Config, seeds: int) -> tuple[pd.DataFrame, dict[str, float]]:
    """Searches with the seeds 0 .. seeds - 1.

    Returns:
        For some numbers of trials the means over seeds: the best reward so far, and validation and test accuracy of that student after
        its full training (`_se`: standard errors). And of the whole search: test accuracy of the best of `finish.students` by the full
        validation accuracy, that of the uniformly scaled student, the share of exact answers, seconds for each search.
    """
    limits = config.limits or None
    space, judge = table.space(limits), Judge.of(table, limits, config.objective)
    marks = [n for n in (4, 8, 16, 32, 64, 128, 256, 512) if n < config.search.trials]
    marks.append(config.search.trials)
    lines, chosen, exact = [], [], []
    start = time.perf_counter()
    for seed in range(seeds):
        trials = search(table, space, judge, config, seed)
        exact += [trial.exact for trial in trials]
        for mark in marks:
            best = max(trials[:mark], key=lambda trial: trial.value)
            full = table.finish(best.architecture, seed=seed)
            lines.append((mark, best.value, full.accuracy, full.test_accuracy))
        finalists = sorted(trials, key=lambda trial: -trial.value)[: config.finish.students]
        results = [table.finish(one.architecture, seed=seed) for one in finalists]
        chosen.append(max(results, key=lambda result: result.accuracy).test_accuracy)
    seconds = (time.perf_counter() - start) / seeds
    frame = pd.DataFrame(lines, columns=["trials", "best reward", "full accuracy", "test accuracy"])
    grouped = frame.groupby("trials")
    table_of_means = grouped.mean()
    for name in table_of_means.columns[:3]:
        table_of_means[f"{name} se"] = grouped[name].std() / np.sqrt(seeds)
    summary = {
        "test accuracy": float(np.mean(chosen)),
        "test accuracy se": float(np.std(chosen, ddof=1) / np.sqrt(seeds))
        if seeds > 1
        else float("nan"),
        "exact": float(np.mean(exact)),
        "seconds a search": seconds,
    }
    if limits and "latency_ms" not in limits:
        uniform = str(space.uniform())
        results = [table.finish(uniform, seed=seed) for seed in range(seeds)]
        summary["uniform test accuracy"] = float(np.mean([one.test_accuracy for one in results]))
    return table_of_means, summary


def coverage(table: Table) -> pd.DataFrame:
    """Trainings by budget and source; `full` and `seeds > 0` count those of them."""
    rows = table.rows
    rows = rows.assign(
        budget=[
            f"{value:g}" if value == value else "none" for value in rows["budget"].astype(float)
        ]
    )
    counts = rows.pivot_table(index="budget", columns="source", values="seed", aggfunc="count")
    counts = counts.fillna(0).astype(int)
    counts["full"] = rows[rows["full_accuracy"].notna()].groupby("budget").size()
    counts["seeds > 0"] = rows[rows["seed"] > 0].groupby("budget").size()
    return counts.fillna(0).astype(int)


def likeness(table: Table) -> pd.DataFrame:
    """Whether the surrogate's students are as hard to rank as real ones.

    For each budget the random students of the table, really trained, and unseen random students, predicted: the standard deviation of
    the logarithm of the short loss and of the full accuracy, and the rank correlation of the short loss with the full accuracy.
    """
    lines = []
    rows = [row for row in table.records if row["seed"] == 0 and row["source"] == "random"]
    for budget in sorted({row["budget"] for row in rows}, key=lambda value: value or 2):
        real = [row for row in rows if row["budget"] == budget]
        full = [row for row in real if row["full_accuracy"] is not None]
        space = table.space(None if budget is None else {"params": budget})
        texts = [str(edits) for edits in space.sample(NUM_UNSEEN, seed=1)]
        texts = [text for text in texts if not table.holds(text)]
        curves = [table.evaluate(text) for text in texts]
        line = {
            "budget": "none" if budget is None else f"{budget:g}",
            "real": len(real),
            "sd log loss": _spread([row["loss"][-1] for row in real]),
            "predicted": len(texts),
            "sd log loss (predicted)": _spread([curve.loss[-1] for curve in curves]),
        }
        if full and table.surrogate.full is not None:
            results = [table.finish(text).accuracy for text in texts]
            line |= {
                "real full": len(full),
                "sd full": float(np.std([row["full_accuracy"][-1] for row in full])),
                "sd full (predicted)": float(np.std(results)),
                "rho": _rho(
                    [row["loss"][-1] for row in full], [row["full_accuracy"][-1] for row in full]
                ),
                "rho (predicted)": _rho([curve.loss[-1] for curve in curves], results),
            }
        lines.append(line)
    return pd.DataFrame(lines)


def _spread(losses: Sequence[float]) -> float:
    return float(np.std(np.log(np.maximum(losses, 1e-9)))) if losses else float("nan")


def _rho(losses: Sequence[float], accuracies: Sequence[float]) -> float:
    return rank_correlations(-np.array(losses), np.array(accuracies))["spearman"]


def slice_rows(table: Table, students: int, seed: int = 0) -> list[dict[str, Any]]:
    """The rows of some students: first those of several seeds, then fully trained ones up to two thirds, then any others."""
    rng = np.random.default_rng(seed)
    of: dict[str, list[dict[str, Any]]] = {}
    for row in table.records:
        of.setdefault(row["architecture_id"], []).append(row)
    shuffled = [str(key) for key in rng.permutation(sorted(of))]
    repeated = [key for key in shuffled if len(of[key]) > 1][: students // 8]
    full = [key for key in shuffled if len(of[key]) == 1 and of[key][0]["full_accuracy"]]
    chosen = [*repeated, *full[: 2 * students // 3 - len(repeated)]]
    rest = [key for key in shuffled if key not in chosen and len(of[key]) == 1]
    chosen += rest[: students - len(chosen)]
    return [row for row in table.records if row["architecture_id"] in set(chosen)]


def check(options: argparse.Namespace) -> int:
    """Trains random rows again."""
    import torch

    from benchmarks.make_tables import make_bench, train_row
    from benchmarks.problems import problem_config
    from raysearch import prepare
    from raysearch.teaching import teach

    torch.set_num_threads(1)
    table = Table.read(options.tables / f"{options.problem}.parquet")
    problem = prepare(problem_config(options.problem, options.data))
    card = teach(problem)
    for what, made, now in (
        ("data", table.about.get("data_hash"), problem.data.hash),
        ("teacher's graph", table.architecture.id, problem.architecture.id),
        ("teacher's accuracy", table.teacher.accuracy, card["accuracy"]),
    ):
        print(f"{what}: {'the same' if made == now else f'{made} in the table, {now} here'}")
    bench = make_bench(problem, card)
    rng, pairs = np.random.default_rng(options.seed), []
    for place in rng.permutation(len(table.records))[: options.rows]:
        row = table.records[int(place)]
        full = options.full and row["full_accuracy"] is not None
        new = train_row(
            bench, row["architecture"], seed=row["seed"] + options.other_seeds * 1000, full=full
        )
        pairs.append((row, new))
        print(
            f"{row['architecture_id']} seed {row['seed']}: {row['accuracy'][-1]:.4f} -> {new['accuracy'][-1]:.4f}",
            flush=True,
        )
    result = differences(table, pairs)
    print(_markdown(result))
    right = bool(result["ok"].all())
    print("within the spread of seeds" if right else "NOT within the spread of seeds")
    return 0 if right else 1


def info(options: argparse.Namespace) -> int:
    """What is in a table."""
    table = Table.read(options.file)
    about = table.about
    print(
        f"{table!r}\nteacher: {table.teacher}\nmade by: {about.get('command')}, {about.get('versions')}\n"
    )
    print(f"Trainings by budget and source:\n{coverage(table).to_string()}\n")
    print(f"Spread over seeds: {_numbers(table.seed_spread)}\n")
    ranking = table.ranking.pivot(index="budget", columns=["signal", "truth"], values="spearman")
    print(
        f"How well a short training ranks (Spearman, losses negated):\n{ranking.round(2).to_string()}\n"
    )
    try:
        errors = table.surrogate.errors
    except TableError as error:
        print(error)
        return 0
    print(f"Cross-validated errors of the surrogate:\n{errors.round(4).to_string(index=False)}\n")
    print(
        f"Are predicted students like real ones?\n{likeness(table).round(3).to_string(index=False)}"
    )
    return 0


def replay(options: argparse.Namespace) -> int:
    """Searches on a table."""
    table = Table.read(options.file)
    given = [f"search.method={options.method}", f"search.trials={options.trials}"]
    config = load_config(table.config.model_dump(), [*given, *options.overrides])
    means, summary = run(table, config, options.seeds)
    print(
        f"{table.problem}, {options.method}, {config.limits or 'no budget'}, {options.seeds} seeds"
    )
    print(f"{means.round(4).to_string()}\n{_numbers(summary)}")
    return 0


def cut(options: argparse.Namespace) -> int:
    """Writes a small table with some students of a large one."""
    table = Table.read(options.file)
    rows = slice_rows(table, options.students)
    write_table(options.out, rows, {**table.about, "problem": f"{table.problem}_slice"})
    print(f"{options.out}: {len(rows)} rows, {options.out.stat().st_size / 1e3:.1f} kB")
    return 0


def _numbers(values: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.4f}" for name, value in values.items())


def _markdown(frame: pd.DataFrame) -> str:
    return frame.round(4).to_string(index=False)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("info", help=info.__doc__)
    one.set_defaults(call=info)
    one.add_argument("file", type=Path)
    one = commands.add_parser("run", help=replay.__doc__)
    one.set_defaults(call=replay)
    one.add_argument("file", type=Path)
    one.add_argument("--method", default="gp")
    one.add_argument("--seeds", type=int, default=50)
    one.add_argument("--trials", type=int, default=32)
    one.add_argument("overrides", nargs="*", metavar="key.path=value")
    one = commands.add_parser("check", help=check.__doc__)
    one.set_defaults(call=check)
    one.add_argument("problem")
    one.add_argument("--rows", type=int, default=20)
    one.add_argument("--data", type=Path, help="a folder with fashion_mnist/ and cifar10/")
    one.add_argument("--tables", type=Path, default=TABLES, help="the folder of the tables")
    one.add_argument("--seed", type=int, default=0, help="of the choice of rows")
    one.add_argument("--full", action="store_true", help="full trainings too, where there are")
    one.add_argument("--other-seeds", action="store_true", help="train with seeds of no row")
    one = commands.add_parser("slice", help=cut.__doc__)
    one.set_defaults(call=cut)
    one.add_argument("file", type=Path)
    one.add_argument("--students", type=int, default=24)
    one.add_argument("--out", type=Path, required=True)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; wrong input is one sentence and exit status 2."""
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    if options.command == "run" and all("=" in text for text in rest):
        options.overrides += (
            rest  # argparse takes positional arguments only where the first ones stand
        )
    elif rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    try:
        return options.call(options)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
