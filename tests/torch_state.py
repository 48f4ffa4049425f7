"""What tests of networks share: one thread, the same random numbers, and statistics that are not those of a fresh module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import nn


@pytest.fixture(autouse=True)
def one_thread_and_a_seed() -> Iterator[None]:
    """Every test runs on one thread and begins with the same random numbers."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


def randomise_statistics(module: nn.Module, deviation: float = 0.2) -> nn.Module:
    """Gives a module running statistics as training would leave them; returns it."""
    for name, buffer in module.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(0.0, deviation)
        elif name.endswith("running_var"):
            buffer.uniform_(0.5, 2.0)
    return module
