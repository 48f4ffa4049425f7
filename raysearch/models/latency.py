"""How long a network takes for one forward pass, measured on the device that it is meant for.

The passes run in evaluation mode under `inference_mode`, on a CPU with `THREADS` threads whatever the process uses, so that numbers of one
machine compare. They are timed in groups: within a group the median counts, which a few slow passes do not move; of the groups the
fastest counts, as a busy machine only ever adds time.
"""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

THREADS = 1
"""Intra-op threads of a measurement on a CPU: small networks gain nothing from more, and on a shared machine lose much."""
GROUPS = 3


def measure_latency(
    module: nn.Module,
    input_shape: Sequence[int],
    *,
    device: str = "cpu",
    batch: int = 1,
    warmup: int = 5,
    repeats: int = 15,
) -> float:
    """Measures one forward pass; the module is left as it is.

    Args:
        module: any network of one input.
        input_shape: without the batch axis.
        device: where it runs: "cpu", "cuda", "cuda:1".
        batch: inputs of one pass.
        warmup: passes that are not timed, at the start.
        repeats: timed passes, in `GROUPS` groups.

    Returns:
        Milliseconds: the smallest of the groups' medians.
    """
    target = torch.device(device)
    network = copy.deepcopy(module).to(target).eval()
    noise = torch.randn((batch, *input_shape), generator=torch.Generator().manual_seed(0))
    images = noise.to(target)

    def forward() -> None:
        network(images)
        if target.type == "cuda":
            torch.cuda.synchronize(target)

    with torch.inference_mode(), _threads(THREADS if target.type == "cpu" else None):
        for _ in range(max(1, warmup)):
            forward()
        per_group = max(1, -(-repeats // GROUPS))
        groups = range(min(GROUPS, max(1, repeats)))
        return 1e3 * min(
            statistics.median(_seconds(forward) for _ in range(per_group)) for _ in groups
        )


def _seconds(call: Callable[[], None]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """That many intra-op threads for the block; None leaves them."""
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
