"""A table whose truth is a formula: students of a small chain, the wider the first layer the better."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from raysearch.architecture import SearchSpace
from raysearch.config import load_config
from raysearch.tables import Table, write_table
from searchers.testing import make_chain_space

BUDGET = {"params": 0.5}
EPOCHS, FULL_EPOCHS = 2, 3


def loss_of(space: SearchSpace, text: str) -> float:
    """Of a student's short training."""
    edits = space.parse(text)
    widths = np.array(edits.widths) / np.array([group.size for group in space.groups])
    return math.exp(-0.5 + 0.4 * len(edits.remove) - 1.2 * widths[0] - 0.4 * widths[1:].mean())


def row(space: SearchSpace, text: str) -> dict:
    """A student's row: every later epoch, and the full training, is better by a fixed factor."""
    student, loss = space.apply(text), loss_of(space, text)
    short, full = [1.3 * loss, loss], [0.9 * loss, 0.8 * loss, 0.7 * loss]
    return {
        "architecture": text,
        "architecture_id": student.id,
        "source": "random",
        "budget": 0.5,
        "seed": 0,
        "num_params": student.num_params,
        "macs": student.macs,
        "loss": short,
        "accuracy": [math.exp(-value) for value in short],
        "full_loss": full,
        "full_accuracy": [math.exp(-value) for value in full],
        "test_loss": 0.75 * loss,
        "test_accuracy": math.exp(-0.75 * loss),
        "cpu_seconds": 2.0,
        "full_cpu_seconds": 3.0,
    }


@pytest.fixture(scope="session")
def table_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty random students within a budget, and the uniformly scaled one."""
    teacher = make_chain_space((8, 12, 12)).teacher
    config = load_config({"distill": {"epochs": EPOCHS}, "finish": {"epochs": FULL_EPOCHS}})
    space = SearchSpace(teacher, **config.space.model_dump(), budget=BUDGET)
    texts = [str(space.uniform()), *map(str, space.sample(90, seed=1))]
    by_id = {space.architecture_id(text): text for text in texts}
    card = {"accuracy": 0.95, "loss": 0.1, "test_accuracy": 0.94}
    about = {
        "problem": "chain",
        "config": config.model_dump(mode="json"),
        "architecture": teacher.to_json(),
        "teacher": {**card, "num_params": teacher.num_params, "macs": teacher.macs},
        "data_hash": "none",
        "versions": {},
        "command": "a test",
    }
    path = tmp_path_factory.mktemp("tables") / "chain.parquet"
    write_table(path, [row(space, text) for text in list(by_id.values())[:60]], about)
    return path


@pytest.fixture(scope="session")
def table(table_file: Path) -> Table:
    return Table.read(table_file)
