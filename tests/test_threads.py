"""Torch's threads for a block."""

from __future__ import annotations

import contextlib

import pytest
import torch

from raysearch.threads import torch_threads


@pytest.mark.parametrize(("count", "inside"), [(1, 1), (3, 3), (None, 2)])
def test_the_number_of_threads_is_put_back_also_after_an_error(count, inside):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        seen = []
        with contextlib.suppress(KeyError), torch_threads(count):
            seen.append(torch.get_num_threads())
            raise KeyError
        assert seen == [inside]
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
