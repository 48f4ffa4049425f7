"""Is our answer better than what people use today: uniform scaling, torch-pruning, ModelOpt's FastNAS, Optuna.

    python benchmarks/peers.py --problems digits_resnet14 --seeds 3                  # resumable: finished cells are not run again
    python benchmarks/peers.py --problems all --data FOLDER --workers 2 --modelopt VENV/bin/python
    python benchmarks/peers.py setup-modelopt --venv VENV                            # once, for the two modelopt peers
    python benchmarks/peers.py summary                                               # the tables again, from the cells

Needs `pip install 'raysearch[prune]'`. Cells (peer, problem, budget, seed) are appended to peers.jsonl in --out; peers.md, peers.csv and the
figures are written anew from all of them. What each peer is and how it is used stands in peers.md under "Fairness".
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
import shlex
import sys
import traceback
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import suppress
from importlib import metadata
from pathlib import Path

from benchmarks.peer_methods.cells import (
    LONG,
    OURS,
    PEERS,
    Cell,
    CellFile,
    cells_of,
    effort,
    run_cell,
)
from benchmarks.peer_methods.setting import Options
from benchmarks.problems import problem_names

BUDGETS = (0.02, 0.03, 0.05, 0.1)
RESULTS = Path(__file__).parent / "results"
PACKAGES = ("torch", "torch-pruning", "optuna", "ray", "botorch", "numpy", "scipy")


def run(
    cells: Iterable[Cell], file: CellFile, options: Options, *, workers: int
) -> list[tuple[Cell, BaseException]]:
    """Runs what the file does not hold, the `-long` peers after the runs of ours that they match; returns what failed."""
    left = [cell for cell in cells if cell.key not in file.rows]
    failed: list[tuple[Cell, BaseException]] = []
    first = [cell for cell in left if not cell.peer.endswith(LONG)]
    second = [cell for cell in left if cell.peer.endswith(LONG)]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        try:
            for wave in (first, second):
                failed += _run_wave(
                    pool, [cell for cell in wave if _can_run(cell, file)], file, options
                )
        except BaseException:  # Ctrl-C ends the cells that run, and the others must not begin
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return failed


def _run_wave(
    pool: ProcessPoolExecutor, cells: Sequence[Cell], file: CellFile, options: Options
) -> list[tuple[Cell, BaseException]]:
    """Runs cells that wait for nothing; one that fails leaves the others running."""
    failed: list[tuple[Cell, BaseException]] = []
    jobs = {pool.submit(run_cell, cell, options, file.reference_s(cell)): cell for cell in cells}
    for number, job in enumerate(as_completed(jobs), start=1):
        error = job.exception()
        if error is not None:
            traceback.print_exception(error)
            failed.append((jobs[job], error))
            continue
        file.append(job.result())
        print(f"{number}/{len(jobs)} {_shown(job.result())}", flush=True)
    return failed


def _can_run(cell: Cell, file: CellFile) -> bool:
    if not cell.peer.endswith(LONG) or file.reference_s(cell) is not None:
        return True
    print(
        f"{cell.peer} at {cell.budget:.0%} of {cell.problem}, seed {cell.seed}, is left out: it matches the CPU seconds of {OURS}, "
        f"which has not run; add {OURS} to --peers"
    )
    return False


def _shown(row: dict) -> str:
    name = f"{row['problem']} {row['budget']:.0%} seed {row['seed']} {row['peer']}"
    if row["status"] != "ok":
        return f"{name}: {row['status']} ({row['notes']})"
    return (
        f"{name}: test {row['test_accuracy']:.4f}, {row['num_params']:,} of {row['limit']:,} parameters, "
        f"{row['epochs']} epochs, {row['cpu_seconds']:.1f} CPU s"
    )


def summarise(file: CellFile) -> str:
    """Writes the tables of all cells of this effort."""
    from benchmarks.peer_methods.summary import write_summary

    versions = []
    for name in PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            versions.append(f"{name} {metadata.version(name)}")
    spent = sum(row["cpu_seconds"] for row in file.rows.values())
    effort_text = ", ".join(f"{key} {value}" for key, value in file.effort.items() if value)
    head = [
        f"`{shlex.join(['python', 'benchmarks/peers.py', *_public(sys.argv[1:])])}` (the last of its runs). {platform.system()}, "
        f"{platform.machine()}, one thread a process, Python {platform.python_version()}, {', '.join(versions)}.",
        "",
        f"{len(file.rows)} cells, {spent / 3600:.1f} CPU hours; {effort_text}. Means ± standard errors over seeds; test accuracy counts, "
        "and nothing was chosen by it.",
    ]
    return write_summary(list(file.rows.values()), file.path.parent, head)


def _public(arguments: Sequence[str]) -> list[str]:
    """The command without this machine's folders."""
    shown, hidden = [], {"--data": "FOLDER", "--modelopt": "VENV/bin/python", "--out": "FOLDER"}
    for before, argument in zip(["", *arguments], arguments, strict=False):
        shown.append(hidden.get(before, argument))
    return shown


def _names(text: str, known: Sequence[str], what: str) -> list[str]:
    """The names of a comma-separated list, or all."""
    names = list(known) if text == "all" else text.split(",")
    for name in names:
        if name not in known:
            raise SystemExit(f"--{what}: there is no {name!r}; there are {', '.join(known)}")
    return names


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "task", nargs="?", choices=("run", "summary", "setup-modelopt"), default="run"
    )
    parser.add_argument("--problems", default="digits_resnet14", help="names with commas, or all")
    parser.add_argument(
        "--budgets", default=",".join(map(str, BUDGETS)), help="shares of the parameters"
    )
    parser.add_argument("--seeds", type=int, default=3, help="seeds 0 to N-1")
    parser.add_argument("--peers", default="all", help=f"names with commas: {', '.join(PEERS)}")
    parser.add_argument("--data", type=Path, help="the folder with fashion_mnist/ and cifar10/")
    parser.add_argument("--workers", type=int, default=1, help="cells at once")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override, e.g. search.trials=8",
    )
    parser.add_argument(
        "--modelopt",
        type=Path,
        help="the interpreter with ModelOpt; without it, its peers are left out",
    )
    parser.add_argument("--venv", type=Path, help="setup-modelopt: where to")
    parser.add_argument("--out", type=Path, default=RESULTS)
    return parser


def main() -> None:
    arguments = _parser().parse_args()
    if arguments.task == "setup-modelopt":
        from benchmarks.peer_methods.fastnas import setup

        if arguments.venv is None:
            raise SystemExit("setup-modelopt needs --venv FOLDER")
        print(setup(arguments.venv))
        return
    file = CellFile(arguments.out / "peers.jsonl", effort(arguments.set))
    failed = []
    if arguments.task == "run":
        peers = _names(arguments.peers, PEERS, "peers")
        if arguments.modelopt is None:
            peers = [peer for peer in peers if not peer.startswith("modelopt")]
        cores = len(os.sched_getaffinity(0))
        options = Options(
            data=arguments.data,
            overrides=tuple(arguments.set),
            concurrency=max(1, cores // arguments.workers),
            modelopt=arguments.modelopt and arguments.modelopt.absolute(),
        )
        budgets = [float(text) for text in arguments.budgets.split(",")]
        problems = _names(arguments.problems, problem_names(), "problems")
        cells = cells_of(problems, budgets, range(arguments.seeds), peers)
        failed = run(cells, file, options, workers=arguments.workers)
    if file.rows:
        print(summarise(file))
    for cell, error in failed:
        print(f"failed: {cell}: {type(error).__name__}: {error}", file=sys.stderr)
    if failed:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
