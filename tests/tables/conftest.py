"""A table whose truth is known: students of a small chain, "trained" by a formula, with noise of known size."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raysearch.architecture import SearchSpace
from raysearch.config import load_config
from raysearch.tables import Table, write_table
from searchers.testing import make_chain_space

EPOCHS, FULL_EPOCHS = 3, 5
SEED_NOISE = 0.05
"""Standard deviation of the logarithm of a loss over seeds."""
NUM_STUDENTS, NUM_REPEATED, SEEDS = 120, 12, (0, 1, 2)

Row = dict[str, Any]


def quality(space: SearchSpace, text: str) -> float:
    """The logarithm of a student's short loss without noise: wide early layers and depth help."""
    edits = space.parse(text)
    widths = np.array(edits.widths) / np.array([group.size for group in space.groups])
    return float(0.2 + 0.5 * len(edits.remove) - 1.5 * widths[0] - 0.5 * widths[1:].mean())


def train(space: SearchSpace, text: str, seed: int, *, full: bool) -> Row:
    """The columns of a row that training decides."""
    student = space.apply(text)
    rng = np.random.default_rng([int(student.id[:8], 16), seed])
    last = quality(space, text) + SEED_NOISE * rng.standard_normal()
    losses = [math.exp(last + 0.3 * (EPOCHS - 1 - epoch)) for epoch in range(EPOCHS)]
    row: Row = {
        "loss": losses,
        "accuracy": [math.exp(-loss) for loss in losses],
        "cpu_seconds": student.macs / 1e5,
    }
    if full:
        end = last - 0.5 + SEED_NOISE * rng.standard_normal()
        ends = [math.exp(end + 0.1 * (FULL_EPOCHS - 1 - epoch)) for epoch in range(FULL_EPOCHS)]
        row |= {
            "full_loss": ends,
            "full_accuracy": [math.exp(-loss) for loss in ends],
            "test_loss": ends[-1],
            "test_accuracy": math.exp(-ends[-1]),
            "full_cpu_seconds": student.macs / 2e4,
        }
    return row


def make_rows(space: SearchSpace, num_students: int = NUM_STUDENTS) -> list[Row]:
    """Random students, every second one trained fully, some with several seeds."""
    rows, seen = [], set()
    for number, edits in enumerate(space.sample(2 * num_students, seed=0)):
        student = space.apply(edits)
        if student.id in seen or len(seen) == num_students:
            continue
        seen.add(student.id)
        rows += [
            {
                "architecture": str(edits),
                "architecture_id": student.id,
                "source": "random",
                "budget": 0.5 if number % 3 else None,
                "seed": seed,
                "num_params": student.num_params,
                "macs": student.macs,
                **train(space, str(edits), seed, full=len(seen) % 2 == 0),
            }
            for seed in (SEEDS if len(seen) <= NUM_REPEATED else SEEDS[:1])
        ]
    return rows


def make_about(space: SearchSpace) -> Row:
    """The metadata of a table."""
    config = load_config({"distill": {"epochs": EPOCHS}, "finish": {"epochs": FULL_EPOCHS}})
    teacher = space.teacher
    card = {"accuracy": 0.95, "loss": 0.1, "test_accuracy": 0.94}
    return {
        "problem": "chain",
        "config": config.model_dump(mode="json"),
        "architecture": teacher.to_json(),
        "teacher": {**card, "num_params": teacher.num_params, "macs": teacher.macs},
        "data_hash": "none",
        "versions": {},
        "command": "a test",
    }


@pytest.fixture(scope="session")
def space() -> SearchSpace:
    return make_chain_space((12, 16, 16, 16))


@pytest.fixture(scope="session")
def rows(space: SearchSpace) -> list[Row]:
    return make_rows(space)


@pytest.fixture(scope="session")
def about(space: SearchSpace) -> Row:
    return make_about(space)


@pytest.fixture
def write(tmp_path: Path, about: Row) -> Callable[..., Path]:
    """`write(rows, **changes of the metadata)` gives the path of a new file."""

    def write(rows: list[Row], **changes: Any) -> Path:
        path = tmp_path / "table.parquet"
        write_table(path, rows, {**about, **changes})
        return path

    return write


@pytest.fixture(scope="session")
def path(tmp_path_factory: pytest.TempPathFactory, rows: list[Row], about: Row) -> Path:
    path = tmp_path_factory.mktemp("table") / "chain.parquet"
    write_table(path, rows, about)
    return path


@pytest.fixture(scope="session")
def table(path: Path) -> Table:
    return Table.read(path)


@pytest.fixture(scope="session")
def unseen(space: SearchSpace, table: Table) -> list[str]:
    """Students that the table does not hold."""
    texts = [str(edits) for edits in space.sample(150, seed=7)]
    return [text for text in texts if not table.holds(text)]
