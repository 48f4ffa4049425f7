"""Synthetic run folders in the format of the run folder's contract, from a small residual teacher."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from raysearch.architecture.graph import Architecture, Layer

BLOCKS = 3
TEACHER_WIDTH = 16


def residual_net(
    width: int = TEACHER_WIDTH,
    *,
    inner: int | None = None,
    removed: tuple[str, ...] = (),
    skip: bool = False,
) -> Architecture:
    """A stem, `BLOCKS` residual blocks and a classifier on 8 x 8 grey images.

    Args:
        width: channels of the stem and of every block's output.
        inner: channels inside the blocks, `width` by default.
        removed: names of convolutions that become the identity.
        skip: whether the last block also sees the stem's output.
    """
    inner = width if inner is None else inner
    layers = [Layer("x", "input", shape=(1, 8, 8))]

    def conv(name: str, source: tuple[str, ...], ins: int, outs: int) -> None:
        attrs = {"in_channels": ins, "out_channels": outs, "kernel": [3, 3], "stride": [1, 1]}
        attrs |= {"padding": [1, 1], "dilation": [1, 1], "groups": 1, "bias": False}
        if name in removed:
            layers.append(Layer(name, "identity", (source,), {}, (outs, 8, 8)))
        else:
            params = {"weight": f"{name}.weight"}
            layers.append(Layer(name, "conv", (source,), attrs, (outs, 8, 8), params))
        norm = name.replace("conv", "bn")
        attrs = {"num_features": outs, "eps": 1e-5, "momentum": 0.1, "affine": True}
        roles = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
        params = {role: f"{norm}.{role}" for role in roles}
        layers.append(Layer(norm, "batch_norm", ((name,),), attrs, (outs, 8, 8), params))
        unary = {"fn": "relu", "args": [], "kwargs": {}}
        layers.append(Layer(f"{name}.relu", "unary", ((norm,),), unary, (outs, 8, 8)))

    conv("conv1", ("x",), 1, width)
    last = "conv1.relu"
    for block in range(BLOCKS):
        source = (last, "conv1.relu") if skip and block == BLOCKS - 1 else (last,)
        middle = width if f"layer{block}.conv1" in removed else inner
        conv(f"layer{block}.conv1", source, width, middle)
        conv(f"layer{block}.conv2", (f"layer{block}.conv1.relu",), middle, width)
        slots = ((f"layer{block}.conv2.relu",), (last,))
        layers.append(Layer(f"layer{block}.add", "add", slots, {}, (width, 8, 8)))
        last = f"layer{block}.add"
    layers.append(
        Layer(
            "mean", "reduce", ((last,),), {"fn": "mean", "dims": [1, 2], "keepdim": False}, (width,)
        )
    )
    attrs = {"in_features": width, "out_features": 10, "bias": True}
    params = {"weight": "fc.weight", "bias": "fc.bias"}
    layers.append(Layer("fc", "linear", (("mean",),), attrs, (10,), params))
    return Architecture((1, 8, 8), tuple(layers), "fc")


@dataclass(frozen=True)
class FakeRun:
    """What a synthetic run holds; `write` puts it on the disk.

    Attributes:
        num_search, num_random: evaluations of the search and of the random baseline.
        finished: with summary, students, baselines; else cut in the search.
        label: a text that goes wherever a user's text can go.
    """

    num_search: int = 32
    num_random: int = 32
    finished: bool = True
    label: str = "tidy"
    budget: dict[str, Any] = field(default_factory=lambda: {"params": 0.2})
    wide: bool = False
    seed: int = 0

    def but(self, **changes: Any) -> FakeRun:
        """A copy with changes."""
        return replace(self, **changes)

    def write(self, folder: Path) -> Path:
        """Writes the folder and returns it."""
        teacher = residual_net()
        folder.mkdir(parents=True, exist_ok=True)
        config = {
            "run": {"name": self.label, "seed": self.seed},
            "teacher": {"model": "resnet14"},
            "data": {"name": "digits"},
            "budget": self.budget,
            "search": {"method": "gp", "trials": self.num_search},
        }
        (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
        data = {
            "name": f"digits {self.label}",
            "hash": "9f86d081884c",
            "shape": [1, 8, 8],
            "classes": [str(digit) for digit in range(10)],
            "preprocessing": {"scale": 0.0625, "mean": [0.305], "std": [0.376]},
            "sizes": {"train": 1237, "validation": 200, "test": 360},
            "validation": list(range(200)),
            "test": list(range(200, 560)),
            "notes": ["The data set has no test part: 20 % of it were split off."],
        }
        _dump(folder / "data.json", data)
        _dump(folder / "teacher/card.json", {**_teacher_scores(teacher), "model": "resnet14"})
        (folder / "teacher/architecture.json").write_text(teacher.to_json())
        for stage, number, name in (
            ("search", self.num_search, "observations.jsonl"),
            ("random", self.num_random, "baselines/random/observations.jsonl"),
        ):
            text = "".join(json.dumps(line) + "\n" for line in self.lines(stage, number))
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
        if self.finished:
            self._finish(folder, teacher)
        return folder

    def lines(self, stage: str, number: int) -> list[dict[str, Any]]:
        """The evaluations of one stage; the search's rewards rise, the random ones do not."""
        rng = np.random.default_rng([self.seed, len(stage)])
        found = []
        for place in range(number):
            skill = place / max(1, number) if stage == "search" else 0.2
            loss = float(np.exp(-1.2 - 1.1 * skill + 0.35 * rng.standard_normal()))
            low, high = (0.02, 0.6) if self.wide else (0.181, 0.1999)
            share = rng.uniform(low, high)
            loss += 0.5 * (1 - share / high)  # the smaller, the poorer
            status = "stopped" if place % 5 == 3 else "full"
            result_status = "ok"
            if place % 11 == 7:
                status, result_status = "failed", "diverged"
            accuracy = float(np.clip(np.exp(-0.55 * loss), 0.1, 1.0))
            line = {
                "architecture": f"r:{self.label}{place}",
                "architecture_id": f"{stage[0]}{place:011d}",
                "value": None if status == "failed" else float(np.exp(-loss)),
                "status": status,
                "result_status": result_status,
                "fidelity": 0.25 if status == "stopped" else 1.0,
                "curve": [float(np.exp(-loss * (1 + 0.5 / epoch))) for epoch in range(1, 5)],
                "num_params": int(residual_net().num_params * share),
                "macs": int(rng.integers(50_000, 90_000)),
                "trial_id": f"{stage}_{place:04d}",
                "accuracy": accuracy,
                "loss": loss,
                "seconds": 2.5,
                "stage": stage,
                "finished_at": f"2025-01-01T00:{place // 60:02d}:{place % 60:02d}+00:00",
            }
            found.append(line)
        return found

    def _finish(self, folder: Path, teacher: Architecture) -> None:
        """Three finalists, the uniform student among them, a random baseline, the summary."""
        nets = {
            "students/001": (
                "search",
                residual_net(8, inner=5, removed=("layer1.conv1",), skip=True),
            ),
            "students/002": ("search", residual_net(8, inner=6)),
            "students/003": ("uniform", residual_net(7)),
            "baselines/random/001": ("random", residual_net(6, inner=9)),
        }
        scores = {}
        for place, (name, (origin, net)) in enumerate(nets.items()):
            accuracy = 0.97 - 0.01 * place
            scores[name] = {
                "accuracy": accuracy,
                "test_accuracy": accuracy - 0.005,
                "num_params": net.num_params,
                "macs": net.macs,
            }
            loss = 0.1 + 0.03 * place
            curve = [
                {
                    "epoch": epoch,
                    "accuracy": accuracy - 0.3 / epoch**1.5 + 0.3 / 20**1.5,
                    "loss": loss + 1 / epoch,
                }
                for epoch in range(1, 21)
            ]
            metrics = {
                **scores[name],
                "architecture": f"r:{self.label}",
                "architecture_id": f"{origin}{net.num_params}",
                "loss": loss,
                "compression": 1 - net.num_params / teacher.num_params,
                "reward": float(np.exp(-loss)),
                "origin": origin,
                "epochs": 20,
                "curve": curve,
                "trial_id": f"finish_{place}",
                "search": {
                    "accuracy": accuracy - 0.05,
                    "loss": loss + 0.1,
                    "reward": float(np.exp(-loss - 0.1)),
                },
            }
            _dump(folder / name / "metrics.json", metrics)
            (folder / name / "architecture.json").write_text(net.to_json())
        (folder / "best").symlink_to("students/001")
        summary = {
            "teacher": _teacher_scores(teacher),
            "best": scores["students/001"],
            "budget": self.budget,
            "baselines": {
                "uniform": {**scores["students/003"], "path": "students/003"},
                "random": scores["baselines/random/001"],
            },
            "trials": {"full": 24, "stopped": 6, "diverged": 2},
            "seconds": {"teacher": 31.2, "search": 96.4, "finish": 58.0, "report": 1.3},
            "versions": {
                "raysearch": "0.1.0",
                "torch": "2.10.0",
                "ray": "2.60.0",
                "python": "3.12.3",
            },
            "verdict": f"The search paid ({self.label}).",
            "notes": [f"A note about {self.label}."],
            "seed": self.seed,
            "command": f"python -m raysearch run run.name={self.label}",
        }
        _dump(folder / "summary.json", summary)


def _teacher_scores(teacher: Architecture) -> dict[str, Any]:
    return {
        "accuracy": 0.983,
        "test_accuracy": 0.981,
        "num_params": teacher.num_params,
        "macs": teacher.macs,
    }


def _dump(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


@pytest.fixture
def fake_run() -> FakeRun:
    """A finished run, not yet written; change it with `but` and put it on the disk with `write`."""
    return FakeRun()


@pytest.fixture
def complete(tmp_path: Path, fake_run: FakeRun) -> Path:
    """The folder of a finished run."""
    return fake_run.write(tmp_path / "complete")


@pytest.fixture
def partial(tmp_path: Path, fake_run: FakeRun) -> Path:
    """The folder of a run that was cut in the search, with a torn last line."""
    folder = fake_run.but(finished=False, num_search=9, num_random=0).write(tmp_path / "partial")
    with (folder / "observations.jsonl").open("a") as file:
        file.write('{"architecture": "r:1", "value": 0.9')
    return folder


@pytest.fixture
def make_net() -> Callable[..., Architecture]:
    """`residual_net`, for tests that compare architectures."""
    return residual_net
