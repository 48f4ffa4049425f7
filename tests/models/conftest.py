"""Helpers of the model tests: one thread, and teachers whose statistics are not those of a fresh module."""

import pytest
import torch

from tests.torch_state import one_thread_and_a_seed, randomise_statistics

__all__ = ["one_thread_and_a_seed", "trained"]


@pytest.fixture
def trained():
    """Gives a module random BatchNorm statistics and scales, as training would."""

    def randomise(module):
        randomise_statistics(module, 0.3)
        with torch.no_grad():
            for parameter in module.parameters():
                if parameter.ndim == 1:
                    parameter.add_(torch.randn_like(parameter) * 0.2)
        return module

    return randomise
