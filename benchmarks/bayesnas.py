"""What BayesNAS's curvatures cost, against one backward pass of the same batch, side by side in one process.

    python -m benchmarks.bayesnas                       # all parts
    python -m benchmarks.bayesnas --part switches

`switches`: the diagonal GGN of a super-network's switches, `probed` (what runs use) and `exact`, and the thesis's recursion, against the
backward pass of a training step (all weights and switches, BatchNorm in training mode). The limit is 3.
`weights`: the diagonal GGN of all weights of a network (one drawn label an image, which is the default; exact; the thesis's recursion), its forward pass
included, against the backward pass. The limit is 4.
`epoch`: an epoch of LeNet-5 under the penalty against a plain training epoch. The limit is 2.

Each number is a median over rounds; in a round every contestant runs once, in turn.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch.nn.functional import cross_entropy

from benchmarks import compression_cost
from raysearch.bayesnas.cells import SuperNetSettings
from trainables.bayesnas.cells.recursion import SwitchRecursion
from trainables.bayesnas.cells.supernet import SuperNet, make_super_net
from trainables.bayesnas.switch_hessian import exact_diagonal, probed_diagonal

NUM_CLASSES = 10
LIMITS = {"switches": 3.0, "weights": 4.0, "epoch": 2.0}


@dataclass(frozen=True)
class Case:
    """A super-network and a batch."""

    name: str
    settings: SuperNetSettings
    shape: tuple[int, int, int]
    batch: int


SWITCH_CASES = (
    Case("cells, 8x8 grey", SuperNetSettings(), (1, 8, 8), 32),
    Case("cells, 28x28 grey", SuperNetSettings(), (1, 28, 28), 32),
    Case("proxyless, 8x8 grey", SuperNetSettings(kind="proxyless"), (1, 8, 8), 32),
    Case("proxyless, 28x28 grey", SuperNetSettings(kind="proxyless"), (1, 28, 28), 32),
)


class Step:
    """A super-network on one random batch: its forward and backward pass, and its switches' curvature."""

    def __init__(self, case: Case) -> None:
        torch.manual_seed(0)
        self.net: SuperNet = make_super_net(case.settings, case.shape, NUM_CLASSES)
        self.net.network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue] - the stub lacks this overload
        self.images = torch.randn(case.batch, *case.shape)
        self.labels = torch.randint(NUM_CLASSES, (case.batch,))
        self.switches = torch.ones(self.net.layout.graphs.num_switches)
        self.on = [[True] * len(self.net.layout.paths)] * len(self.net.layout.groups)
        self.generator = torch.Generator().manual_seed(0)
        self.recursion = SwitchRecursion(self.net, self.on)

    def backward(self) -> float:
        """Seconds of the backward pass alone."""
        self.net.network.train()
        switches = self.switches.clone().requires_grad_()
        loss = cross_entropy(self.logits(switches), self.labels)
        start = time.perf_counter()
        loss.backward()
        return time.perf_counter() - start

    def logits(self, switches: torch.Tensor) -> torch.Tensor:
        return self.net.logits(self.images, self.net.layout.factors(switches, self.on))

    def probed(self, probes: int) -> float:
        self.net.network.eval()
        start = time.perf_counter()
        probed_diagonal(
            self.logits, self.switches, len(self.images), generator=self.generator, probes=probes
        )
        return time.perf_counter() - start

    def exact(self) -> float:
        self.net.network.eval()
        start = time.perf_counter()
        exact_diagonal(self.logits, self.switches, len(self.images))
        return time.perf_counter() - start

    def recursive(self) -> float:
        """Without the tracing, which a run does once for all batches of an update."""
        self.net.network.eval()
        start = time.perf_counter()
        self.recursion.diagonal(self.images, self.labels, self.switches)
        return time.perf_counter() - start


def medians(
    contestants: Mapping[str, Callable[[], float]], rounds: int, *, warm_up: int = 1
) -> dict[str, float]:
    """The median seconds of each."""
    found: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(warm_up + rounds):
        for name, run in contestants.items():
            seconds = run()
            if number >= warm_up:
                found[name].append(seconds)
    return {name: statistics.median(times) for name, times in found.items()}


def switches(rounds: int) -> list[str]:
    """The lines of the part `switches`."""
    lines = [
        "| super-network | backward, ms | probed (1) | probed (2) | exact | recursive |",
        "|---|---|---|---|---|---|",
    ]
    for case in SWITCH_CASES:
        step = Step(case)
        contestants: dict[str, Callable[[], float]] = {
            "backward": step.backward,
            "one": lambda step=step: step.probed(1),
            "two": lambda step=step: step.probed(2),
            "exact": step.exact,
            "recursive": step.recursive,
        }
        found = medians(contestants, rounds)
        ratios = [found[name] / found["backward"] for name in list(contestants)[1:]]
        cells = " | ".join(f"{ratio:.2f}" for ratio in ratios)
        lines.append(f"| {case.name} | {1e3 * found['backward']:.0f} | {cells} |")
    return lines


PARTS: Mapping[str, Callable[[int], Sequence[str]]] = {
    "switches": switches,
    "weights": lambda rounds: compression_cost.weights(rounds, medians),
    "epoch": lambda rounds: compression_cost.epoch(rounds, medians),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--part", choices=list(PARTS), action="append", help="default: all")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    for part in arguments.part or PARTS:
        print(f"{part} (limit {LIMITS[part]:g})")
        print("\n".join(PARTS[part](arguments.rounds)))


if __name__ == "__main__":
    main()
