"""How long a network takes for one forward pass, measured on the device that it is meant for.

The passes run in evaluation mode under `inference_mode`, on a CPU with `THREADS` threads whatever the process uses, so that numbers of one
machine compare. They are timed in groups: within a group the median counts, which a few slow passes do not move; of the groups the
fastest counts, as a busy machine only ever adds time. What a thread spends waiting for a CPU that other processes hold is no time of
the network and is taken off, where the system tells it (Linux): with two busy processes a CPU a wall clock alone says twice as much.
"""

from __future__ import annotations

import copy
import json
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from raysearch.architecture import Architecture
from raysearch.models.build import build
from raysearch.threads import torch_threads

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

    on_cpu = target.type == "cpu"
    clock = _Clock() if on_cpu else time.perf_counter
    with torch.inference_mode(), torch_threads(THREADS if on_cpu else None):
        for _ in range(max(1, warmup)):
            forward()
        per_group = max(1, -(-repeats // GROUPS))
        groups = range(min(GROUPS, max(1, repeats)))
        return 1e3 * min(
            statistics.median(_seconds(forward, clock) for _ in range(per_group)) for _ in groups
        )


def _seconds(call: Callable[[], None], clock: Callable[[], float]) -> float:
    computed, start = time.thread_time(), clock()
    call()
    # the system may book a wait late; what this thread computed is no less than its time
    return max(clock() - start, time.thread_time() - computed)


class _Clock:
    """Seconds of wall time without those in which this thread waited for a CPU."""

    def __init__(self) -> None:
        self._waits = Path("/proc/thread-self/schedstat")
        if not self._waits.exists():
            self._waits = None

    def __call__(self) -> float:
        waited = 0 if self._waits is None else int(self._waits.read_text().split()[1])  # ns
        return time.perf_counter() - 1e-9 * waited


class LatencyMeter:
    """Measures students by building them; the measurements are kept by architecture id, in a file where one is given.

    The file has a line for each measurement; lines of other devices or settings are left alone.

    Args:
        device: where the students run.
        path: the file, which need not exist.
    """

    def __init__(self, device: str = "cpu", path: Path | None = None) -> None:
        self.device = device
        self.path: Path | None = None
        self.known: dict[str, float] = {}
        if path is not None:
            self.keep_in(path)

    def __call__(self, architecture: Architecture) -> float:
        """Milliseconds of one forward pass of a batch of one."""
        if architecture.id not in self.known:
            with torch.random.fork_rng(devices=[]):
                module = build(architecture)
            ms = measure_latency(module, architecture.input_shape, device=self.device)
            self.known[architecture.id] = ms
            self._write([architecture.id])
        return self.known[architecture.id]

    def keep_in(self, path: Path) -> None:
        """Takes in the measurements of a file, and writes all others, now and later, behind them."""
        self.path = path
        stored: dict[str, float] = {}
        if path.exists():
            for line in path.read_text("utf-8").splitlines():
                record = _parse(line)
                if record.get("where") == self.where:
                    stored[record["architecture_id"]] = float(record["ms"])
        self.known |= stored
        self._write([key for key in self.known if key not in stored])

    @property
    def where(self) -> str:
        """What a measurement depends on besides the student."""
        name = torch.cuda.get_device_name(self.device) if "cuda" in self.device else platform.node()
        return f"{self.device} {name} torch {torch.__version__} threads {THREADS}"

    def _write(self, keys: Sequence[str]) -> None:
        if self.path is None or not keys:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            for key in keys:
                record = {"architecture_id": key, "ms": self.known[key], "where": self.where}
                file.write(json.dumps(record) + "\n")


def _parse(line: str) -> dict[str, Any]:
    """A line of the file; {} for one that was torn."""
    try:
        record = json.loads(line)
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}
