"""Cells: one peer on one problem within one budget with one seed; run, kept in a file of JSON lines, and never run twice."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.peer_methods import fastnas, ours, pruned
from benchmarks.peer_methods.clock import CpuClock
from benchmarks.peer_methods.setting import (
    NoSolution,
    Options,
    Setting,
    finish,
    load_setting,
    measure,
    train_stage,
)
from benchmarks.problems import problem_config

OURS = "raysearch"
LONG = "-long"
LONGEST = 3_000
"""Epochs of a stretched training at most."""

Row = dict[str, Any]
MakeStudent = Callable[[Setting], tuple[nn.Module, str]]

STUDENTS: Mapping[str, MakeStudent] = {
    "uniform": ours.uniform,
    "torch-pruning-l2": pruned.prune_l2,
    "torch-pruning-taylor": pruned.prune_taylor,
    "modelopt-fastnas": fastnas.prune,
    "modelopt-fastnas-conv": fastnas.prune_convolutional,
}
"""Peers that give one student, which our recipe then trains."""
METHODS = ("random", "evolution", "tpe")
"""Other methods of ours, as whole runs."""
PEERS = (
    OURS,
    *(f"{OURS}-{method}" for method in METHODS),
    "optuna-tpe",
    *(name + suffix for name in STUDENTS for suffix in ("", LONG)),
)


@dataclass(frozen=True)
class Cell:
    """What a row is of."""

    problem: str
    budget: float
    seed: int
    peer: str

    @property
    def key(self) -> tuple[str, float, int, str]:
        return self.problem, self.budget, self.seed, self.peer


class CellFile:
    """Rows of finished cells, one JSON line each; a torn last line is left out.

    Args:
        path: need not exist.
        effort: what rows must have been made with (see `effort`); others stay in the file and are not seen.
    """

    def __init__(self, path: Path, effort: Mapping[str, Any]) -> None:
        self.path = path
        self.effort = dict(effort)
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        read = [row for line in lines if (row := _parse(line)) and row["effort"] == self.effort]
        self.rows: dict[tuple[str, float, int, str], Row] = {_key(row): row for row in read}

    def append(self, row: Row) -> None:
        """Writes one line, and returns when it is on the disk."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        torn = self.path.exists() and not self.path.read_bytes().endswith(b"\n")
        with self.path.open("a", encoding="utf-8") as file:
            file.write("\n" * torn + json.dumps(row, allow_nan=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.rows[_key(row)] = row

    def reference_s(self, cell: Cell) -> float | None:
        """The CPU seconds of our own run beside a cell."""
        row = self.rows.get((cell.problem, cell.budget, cell.seed, OURS))
        return row["cpu_seconds"] if row else None


def effort(overrides: Sequence[str]) -> dict[str, Any]:
    """What makes cells comparable: the method of our runs, trials and epochs, and every other override."""
    config = problem_config("digits_resnet14", overrides=list(overrides))
    return {
        "method": config.search.method,
        "trials": config.search.trials,
        "short_epochs": config.distill.epochs,
        "full_epochs": config.finish.epochs,
        "overrides": sorted(overrides),
    }


def cells_of(
    problems: Iterable[str],
    budgets: Sequence[float],
    seeds: Sequence[int],
    peers: Sequence[str],
) -> Iterator[Cell]:
    """All cells, those of a problem and seed together (they share the teacher's logits)."""
    for problem in problems:
        for seed in seeds:
            for budget in budgets:
                for peer in peers:
                    yield Cell(problem, budget, seed, peer)


def run_cell(cell: Cell, options: Options, reference_s: float | None) -> Row:
    """Runs one cell.

    Args:
        reference_s: CPU seconds that a `-long` peer has: those of our run.
    """
    torch.set_num_threads(1)
    setting = load_setting(cell.problem, cell.budget, cell.seed, options)
    start = time.perf_counter()
    row: Row = {
        "problem": cell.problem,
        "budget": cell.budget,
        "seed": cell.seed,
        "peer": cell.peer,
    }
    row |= {"limit": setting.limit, "effort": effort(options.overrides)}
    row["teacher"] = {key: setting.card[key] for key in ("accuracy", "num_params", "macs")}
    with CpuClock() as clock:
        spent = partial(_spent, clock, setting)
        try:
            found, trials, notes = _solve(cell.peer, setting, reference_s, spent)
            row |= {"status": "ok", **found, "trials": trials, "notes": notes}
            row["within_budget"] = row["num_params"] <= setting.limit
        except NoSolution as error:
            row |= {"status": "no solution", "trials": 0, "notes": str(error)}
    # a run of ours makes its own context, inside the counted time
    row["cpu_seconds"] = round(clock.seconds if _is_run(cell.peer) else spent(), 2)
    row["wall_seconds"] = round(time.perf_counter() - start, 2)
    return {key: _finite(value) for key, value in row.items()}


def _solve(
    peer: str, setting: Setting, reference_s: float | None, spent: Callable[[], float]
) -> tuple[Row, int, str]:
    """(what is reported of the student, trials, notes)."""
    if _is_run(peer):
        return ours.run(setting, peer.partition("-")[2] or None)
    if peer == "optuna-tpe":
        from benchmarks.peer_methods import optuna_peer

        trained, trials, notes = optuna_peer.search(setting)
        return measure(setting, trained), trials, notes
    name = peer.removesuffix(LONG)
    module, notes = STUDENTS[name](setting)
    short = train_stage(setting, module, "search")
    if name != peer:
        assert reference_s is not None, f"{peer} is run after {OURS}"
        planned = int((reference_s - spent()) / short.epoch_s)
        usual = setting.problem.config.finish.epochs
        trained = finish(setting, short, min(LONGEST, max(usual, planned)))
        notes = f"{notes}; " * bool(notes) + f"{reference_s:.0f} CPU s to match"
    else:
        trained = finish(setting, short)
    return measure(setting, trained), 1, notes


def _is_run(peer: str) -> bool:
    return peer.partition("-")[0] == OURS


def _spent(clock: CpuClock, setting: Setting) -> float:
    """CPU seconds of the cell, the shared preparation included."""
    return clock.seconds + setting.prepared_s


def _key(row: Mapping[str, Any]) -> tuple[str, float, int, str]:
    return row["problem"], row["budget"], row["seed"], row["peer"]


def _parse(line: str) -> Row | None:
    try:
        return json.loads(line)
    except ValueError:
        return None


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
