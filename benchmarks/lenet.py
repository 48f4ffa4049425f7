"""Tables A-1 and A-2 of the thesis (Yang 2019): LeNets on MNIST, compressed by sparse Bayes, side by side with what is printed.

    python -m benchmarks.lenet lenet300 --data FOLDER --lambdas 1e-7 --seeds 3 --loss ce --out FILE
    python -m benchmarks.lenet lenet300 --data FOLDER --lambdas 1e-7 --seeds 3 --loss kd --params 21572 --out FILE    # at the printed size

FOLDER holds `mnist/train.parquet` and `mnist/test.parquet`. Each row is one run: the student that is left at its end, without any training after it. Error is on
the test part, which nothing else has seen. FLOPs are counted as Molchanov does, which is what the thesis prints: of a convolution
2 H W (C K^2 + 1) C', H and W of its input; of a linear layer (2 I - 1) O. Resumable: rows in FILE are not computed again.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch

from raysearch.architecture import Architecture
from raysearch.bayesnas.compression import CompressionSettings
from raysearch.cluster import TrialResources
from raysearch.config import load_config
from raysearch.models import build
from raysearch.problem import Problem, prepare
from raysearch.teaching import evaluate_part, make_context, teach
from trainables.bayesnas.compression.run import CompressionRun

PRINTED = {
    "lenet300": "465-37-90, 21,572 parameters, error 1.54 %, .04 MFLOP (baseline 784-300-100, 1.39 %, .53)",
    "lenet5": "5-10-65-25, 3,300 parameters, error 1.00 %, .57 MFLOP (baseline 20-50-800-500, .83 %, 8.85)",
}
TEACHER_EPOCHS = 20


def molchanov_flops(architecture: Architecture) -> int:
    """FLOPs as tables A-1 and A-2 count them."""
    total = 0
    for layer in architecture.layers:
        attrs = layer.attrs
        if layer.op == "conv":
            height, width = architecture[layer.inputs[0][0]].shape[1:]
            kernel = attrs["kernel"][0] * attrs["kernel"][1]
            total += (
                2 * height * width * (attrs["in_channels"] * kernel + 1) * attrs["out_channels"]
            )
        elif layer.op == "linear":
            total += (2 * attrs["in_features"] - 1) * attrs["out_features"]
    return total


def widths(architecture: Architecture) -> str:
    """As the tables write a network: filters of convolutions, then the inputs of linear layers."""
    parts = [layer.attrs["out_channels"] for layer in architecture.layers if layer.op == "conv"]
    parts += [layer.attrs["in_features"] for layer in architecture.layers if layer.op == "linear"]
    return "-".join(map(str, parts))


def compress(
    problem: Problem,
    settings: CompressionSettings,
    lam: float,
    seed: int,
    num_params: int | None = None,
) -> dict[str, Any]:
    """One run, and its last student on the test part."""
    card = teach(problem)
    resources = TrialResources(cpus=1, gpus=0, concurrency=1, device="cpu")
    budget = None if num_params is None else {"params": num_params}
    context = make_context(problem, card, resources)
    run = CompressionRun(context, settings, lam=lam, budget=budget, seed=seed)
    start, metrics = time.process_time(), {}
    while not run.complete:
        metrics = run.train_epoch()
    student = run.students[-1]
    module = build(student.architecture)
    module.load_state_dict({**module.state_dict(), **(student.weights or {})})
    baseline = evaluate_part(problem, problem.teacher, "test")
    return {
        "lam": lam,
        "seed": seed,
        "loss": settings.loss,
        "epochs": settings.epochs,
        "budget": num_params,
        "widths": widths(student.architecture),
        "num_params": student.architecture.num_params,
        "density": metrics["density"],
        "mflop": molchanov_flops(student.architecture) / 1e6,
        "error": 1 - evaluate_part(problem, module, "test")["accuracy"],
        "baseline_error": 1 - baseline["accuracy"],
        "baseline_mflop": molchanov_flops(problem.architecture) / 1e6,
        "cpu_s": time.process_time() - start,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("teacher", choices=sorted(PRINTED))
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--lambdas", type=float, nargs="+", required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--loss", choices=("ce", "kd"), default="ce")
    parser.add_argument("--interval", type=int, default=2)
    parser.add_argument("--weight-decay", type=float, default=5e-4)
    parser.add_argument("--params", type=int, help="a limit, such as the printed size; none")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    done = _rows(arguments.out)
    settings = CompressionSettings(
        interval=arguments.interval,
        recovery=5,
        conv_groups=("shape", "filter"),
        batch_size=128,
        loss=arguments.loss,
        weight_decay=arguments.weight_decay,
    )
    for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
        problem = _problem(arguments.teacher, arguments.data, seed)
        for lam in arguments.lambdas:
            key = (arguments.teacher, lam, seed, arguments.loss, settings.epochs, arguments.params)
            if key in {_key(row) for row in done}:
                continue
            found = compress(problem, settings, lam, seed, arguments.params)
            row = {"teacher": arguments.teacher, **found}
            done.append(row)
            with arguments.out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
    print(f"printed: {PRINTED[arguments.teacher]}")
    for row in done:
        if row["teacher"] == arguments.teacher:
            print(
                f"lambda {row['lam']:g} {row['loss']} seed {row['seed']}: {row['widths']}, {row['num_params']:,} parameters, "
                f"error {row['error']:.2%} (baseline {row['baseline_error']:.2%}), {row['mflop']:.3f} MFLOP "
                f"(of {row['baseline_mflop']:.2f}), masks keep {row['density']:.2%}, {row['cpu_s']:.0f} CPU s"
            )


def _key(row: dict[str, Any]) -> tuple[Any, ...]:
    names = ("teacher", "lam", "seed", "loss", "epochs")
    return (*(row[name] for name in names), row.get("budget"))


def _rows(file: Path) -> list[dict[str, Any]]:
    if not file.exists():
        return []
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def _problem(teacher: str, data: Path, seed: int) -> Problem:
    raw = {
        "run": {"seed": seed},
        "teacher": {"model": teacher, "epochs": TEACHER_EPOCHS},
        "data": {"name": "parquet", "path": str((data / "mnist").absolute()), "mode": "L", "augment": "none", "validation": 5000},
        "space": {"divisor": 1},
        "budget": None,
    }  # fmt: skip
    return prepare(load_config(raw))


if __name__ == "__main__":
    main()
