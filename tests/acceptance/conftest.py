"""Traced networks, once a session; one thread; the same random numbers in every test."""

from __future__ import annotations

from functools import cache

import pytest
import torch

from raysearch.models import trace
from tests.acceptance.networks import CASES
from tests.torch_state import one_thread_and_a_seed, randomise_statistics

__all__ = ["networks", "one_thread_and_a_seed"]


@pytest.fixture(scope="session")
def networks():
    """Name of a case -> (module, architecture); traced at the first call."""

    @cache
    def network(name):
        torch.manual_seed(1)
        case = CASES[name]
        module = randomise_statistics(case.make()).eval()
        return module, trace(module, case.shape, output_index=case.output_index)

    return network
