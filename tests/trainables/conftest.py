"""A small data set, a small network with BatchNorm and dropout, and their cached logits; a problem with an untrained teacher."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from raysearch.data import DataSet, DeviceData, distillation_data, from_arrays
from raysearch.problem import Problem
from tests.trainables.untrained import make_problem, make_untrained
from trainables.context import DistillationContext

Network = Callable[..., nn.Module]


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    """Networks this small only lose time with more."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the cache of whoever runs it."""
    monkeypatch.setenv("RAYSEARCH_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def data() -> DataSet:
    """Three classes of 8x8 images: a bright bar at the top, in the middle, at the bottom; noise over all."""
    rng = np.random.default_rng(0)
    labels = np.arange(240) % 3
    images = rng.integers(0, 120, (240, 1, 8, 8), dtype=np.uint8)
    for row, label in enumerate(labels):
        images[row, 0, 1 + 2 * label] += 100
    return from_arrays((images, labels), augment="crop")


@pytest.fixture(scope="session")
def network() -> Network:
    """`network(seed, width, dropout)`: conv, BatchNorm, dropout, linear."""

    def make(seed: int = 0, width: int = 6, dropout: float = 0.1) -> nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return nn.Sequential(
                nn.Conv2d(1, width, 3, padding=1, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(),
                nn.Dropout(dropout),
                nn.Flatten(),
                nn.Linear(width * 64, 3),
            )

    return make


@pytest.fixture(scope="session")
def resident(data: DataSet, network: Network) -> DeviceData:
    """The data with an untrained teacher's logits."""
    return distillation_data(data, network(seed=9, width=4), num_views=3).to("cpu")


@pytest.fixture(scope="session")
def problem() -> Problem:
    """Trials of three epochs."""
    return make_problem({"distill": {"epochs": 3}})


@pytest.fixture(scope="session")
def context(problem: Problem) -> DistillationContext:
    return make_untrained(problem)


@pytest.fixture(scope="session")
def architectures(problem: Problem) -> list[str]:
    """Four students of the problem's space."""
    return [str(edits) for edits in problem.space.sample(4, seed=0)]
