"""Traced networks, once a session; one thread; the same random numbers in every test."""

from __future__ import annotations

from functools import cache

import pytest
import torch

from raysearch.models import trace
from tests.acceptance.networks import CASES


@pytest.fixture(autouse=True)
def _one_thread_and_a_seed():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


def randomise(module):
    """Statistics and scales as training would leave them."""
    for name, buffer in module.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(0.0, 0.2)
        elif name.endswith("running_var"):
            buffer.uniform_(0.5, 2.0)
    return module.eval()


@pytest.fixture(scope="session")
def networks():
    """Name of a case -> (module, architecture); traced at the first call."""

    @cache
    def network(name):
        torch.manual_seed(1)
        case = CASES[name]
        module = randomise(case.make())
        return module, trace(module, case.shape, output_index=case.output_index)

    return network
