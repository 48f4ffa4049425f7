"""Torch's intra-op threads, for a block."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def torch_threads(count: int | None) -> Iterator[None]:
    """That many threads for the block; None leaves them as they are.

    Small matrices are faster on one thread, which also fixes the order of sums, and leaves the cores to the trials. Threads that wait for
    each other between tiny operations gain nothing on an idle machine, and a factor of thirty was lost with them on a busy one.
    """
    import torch

    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
