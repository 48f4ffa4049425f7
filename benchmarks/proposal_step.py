"""What proposing costs, in CPU seconds of the process: one step of multi_kernel_bo or embedding_gradient, or whole searches by any method.

    python -m benchmarks.proposal_step                                   # ResNet-34, 80 observations, K = 8, 8 x 1,000 candidates
    python -m benchmarks.proposal_step --observations 20 80 320 1000 --modes mlp features
    python -m benchmarks.proposal_step --teachers vgg19 resnet34 torchvision:densenet121 --modes mlp
    python -m benchmarks.proposal_step --threads 2 --modes lstm          # wall seconds fall
    python -m benchmarks.proposal_step --device cuda --modes lstm
    python -m benchmarks.proposal_step --method n2n gp evolution random tpe --observations 200
    python -m benchmarks.proposal_step --method n2n --option faithful=true --teachers resnet18 resnet34 vgg19 --observations 1000
    python -m benchmarks.proposal_step --modes embedding --observations 20 80 200     # fit and 64 proposals of embedding_gradient

Modes: `lstm` is the paper's step (faithful), `mlp` our own, `features` the process on features alone. The observations are random
students whose values are made up (accuracy that grows with what is left of the teacher, and noise): a step's cost does not depend on
their truth. A step includes learning all kernels, drawing, encoding and embedding the candidates, and the acquisition.

With `--method` a search asks and is told in turn, so many times as there are observations, with the same made-up values: the medians and
the most of an `ask` and of a `tell`, and the sum of all.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from raysearch.architecture import SearchSpace
from raysearch.models import trace
from raysearch.models.teachers.registry import load_teacher
from searchers.algorithm import Exhausted, Observation, Proposal
from searchers.batches import Snapshot
from searchers.embedding_gradient.algorithm import EmbeddingGradientAlgorithm
from searchers.embedding_gradient.proposing import DescentStep
from searchers.multi_kernel_bo.algorithm import MultiKernelBOAlgorithm
from searchers.registry import make_algorithm

MODES = ("lstm", "mlp", "features", "embedding")
NOISE = 0.02


def make_space(teacher: str, image: int, classes: int) -> SearchSpace:
    """The paper's space of a teacher."""
    shape = (3, image, image)
    module = load_teacher(teacher, num_classes=classes, input_shape=shape).eval()
    return SearchSpace(trace(module, shape), grouping="by_size", divisor=1)


def make_observations(space: SearchSpace, count: int, seed: int = 0) -> tuple[Observation, ...]:
    """Random students with made-up values of f."""
    batch = space.sample(count, seed)
    compression = 1 - space.num_params(batch) / space.teacher.num_params
    kept = 1 - batch.remove[:, list(space.removable)].mean(axis=1)
    noise = np.random.default_rng(seed).normal(0, NOISE, count)
    accuracy = np.clip(0.9 * kept ** (compression / 2) + noise, 0.01, 1.0)
    values = compression * (2 - compression) * accuracy
    return tuple(
        Observation(
            str(edits),
            float(value),
            1.0,
            "full",
            metrics={"accuracy": a, "teacher_accuracy": 1.0, "compression": c},
        )
        for edits, value, a, c in zip(batch, values, accuracy, compression, strict=True)
    )


def time_steps(
    space: SearchSpace, mode: str, count: int, options: argparse.Namespace
) -> dict[str, Any]:
    """Medians over some steps, each with another seed, after one with few observations for warming up."""
    algorithm = MultiKernelBOAlgorithm(
        space,
        faithful=mode == "lstm",
        encoder=mode,
        num_kernels=options.kernels,
        num_candidates=options.candidates,
        num_threads=options.threads,
        device=options.device,
    )
    step = algorithm._step_of_mode()
    observations = make_observations(space, count)
    step(Snapshot(observations[:4], (), frozenset(), (99,)), lambda: False)
    cpu, wall = [], []
    for seed in range(options.repeats):
        snapshot = Snapshot(observations, (), frozenset(), (seed,))
        start, start_cpu = time.perf_counter(), time.process_time()
        chosen = step(snapshot, lambda: False)
        wall.append(time.perf_counter() - start)
        cpu.append(time.process_time() - start_cpu)
        assert chosen, "a step gives students"
    return {
        "cpu_s": round(statistics.median(cpu), 3),
        "wall_s": round(statistics.median(wall), 3),
        "all_cpu_s": [round(one, 3) for one in cpu],
    }


def time_search(
    space: SearchSpace, method: str, count: int, given: dict[str, Any]
) -> dict[str, Any]:
    """CPU seconds of the calls of one search of `count` evaluations."""
    algorithm = make_algorithm(method, space, 0, given, num_trials=count)
    asks, tells = [], []
    prepare = getattr(algorithm, "warm_up", None)
    if prepare is not None:
        prepare()
    for number in range(count):
        start = time.process_time()
        try:
            proposal = algorithm.ask()
        except Exhausted:
            break
        asks.append(time.process_time() - start)
        assert proposal is not None, "nothing is outstanding, so there is nothing to wait for"
        observation = observe(space, proposal, number)
        start = time.process_time()
        algorithm.tell(observation)
        tells.append(time.process_time() - start)
    return {
        "evaluations": len(tells),
        "ask_cpu_s": round(statistics.median(asks), 5),
        "most_ask_cpu_s": round(max(asks), 4),
        "tell_cpu_s": round(statistics.median(tells), 5),
        "most_tell_cpu_s": round(max(tells), 4),
        "cpu_s": round(sum(asks) + sum(tells), 2),
    }


def observe(space: SearchSpace, proposal: Proposal, number: int) -> Observation:
    """A made-up value of f: accuracy falls with what is left of the teacher, and noise."""
    student = space.apply(proposal.architecture)
    compression = 1 - student.num_params / space.teacher.num_params
    noise = np.random.default_rng(number).normal(0, NOISE)
    accuracy = float(np.clip(0.9 * (1 - compression) ** 0.1 + noise, 0.01, 1.0))
    value = compression * (2 - compression) * accuracy
    metrics = {"accuracy": accuracy, "teacher_accuracy": 1.0, "compression": compression}
    return Observation(
        proposal.architecture, value, 1.0, "full", metrics=metrics, extra=proposal.extra
    )


def time_embedding(space: SearchSpace, count: int, options: argparse.Namespace) -> dict[str, Any]:
    """The same for embedding_gradient: a fit, and the descents, decoding and judging of 64 proposals with the fitted model."""
    algorithm = EmbeddingGradientAlgorithm(space, refit_every=1)
    step = algorithm._step_of_mode()
    assert isinstance(step, DescentStep), "our own mode"
    observations = make_observations(space, count)
    step(Snapshot(observations[:4], (), frozenset(), (99, 4, 0)), lambda: False)
    fit_s, propose_s, wall = [], [], []
    for seed in range(options.repeats):
        snapshot = Snapshot(observations, (), frozenset(), (seed, count, 0))
        start, began = time.process_time(), time.perf_counter()
        step.networks(snapshot)
        fitted = time.process_time()
        chosen = step(snapshot, lambda: False)
        fit_s.append(fitted - start)
        propose_s.append(time.process_time() - fitted)
        wall.append(time.perf_counter() - began)
        assert len(chosen) >= 64, "descents pass many students"
    return {
        "cpu_s": round(statistics.median(map(sum, zip(fit_s, propose_s, strict=True))), 3),
        "wall_s": round(statistics.median(wall), 3),
        "fit_cpu_s": round(statistics.median(fit_s), 3),
        "propose_cpu_s": round(statistics.median(propose_s), 3),
    }


def measure(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """A row for each teacher, mode or method, and number of observations."""
    for teacher in options.teachers:
        space = make_space(teacher, options.image, options.classes)
        layers = len(space.encode(space.batch([space.largest()]))[0])
        if options.method:
            given = {key: yaml.safe_load(value) for key, value in options.option}
            for method in options.method:
                for count in options.observations:
                    row = {"teacher": teacher, "layers": layers, "mode": method, "options": given}
                    yield row | time_search(space, method, count, given)
            continue
        for mode in options.modes:
            for count in options.observations:
                row = {"teacher": teacher, "layers": layers, "mode": mode, "observations": count}
                timed = (
                    time_embedding(space, count, options)
                    if mode == "embedding"
                    else time_steps(space, mode, count, options)
                )
                yield row | timed


def text_of(row: dict[str, Any]) -> str:
    """One line on a step."""
    parts = ""
    if "fit_cpu_s" in row:
        parts = f" (fit {row['fit_cpu_s']}, 64 proposals {row['propose_cpu_s']})"
    return (
        f"{row['teacher']}, {row['layers']} layers, {row['observations']} observations, {row['mode']}: "
        f"{row['cpu_s']} CPU s, {row['wall_s']} s{parts}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--teachers", nargs="+", default=["resnet34"])
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES[:3]))
    parser.add_argument("--method", nargs="+", help="time whole searches by these methods instead")
    parser.add_argument(
        "--option",
        nargs="+",
        default=[],
        type=lambda text: text.split("=", 1),
        help="of these methods, KEY=VALUE",
    )
    parser.add_argument("--observations", nargs="+", type=int, default=[80])
    parser.add_argument("--kernels", type=int, default=8)
    parser.add_argument("--candidates", type=int, default=1000, help="of each kernel")
    parser.add_argument("--threads", type=int, default=1, help="that learn kernels")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--image", type=int, default=32)
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--out", type=Path, help="append the rows to this file, one JSON line each")
    options = parser.parse_args()

    torch.set_num_threads(1)
    about = {
        "threads": options.threads,
        "device": options.device,
        "kernels": options.kernels,
        "candidates": options.candidates,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    print(json.dumps(about))
    for row in measure(options):
        print(json.dumps(row) if options.method else text_of(row), flush=True)
        if options.out:
            with options.out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row | about) + "\n")


if __name__ == "__main__":
    main()
