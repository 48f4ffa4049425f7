"""The optimisers against torch's own."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn

from raysearch.models import trace
from trainables.optimizers import SGD, AdamW, Optimizer


def _make(name: str, parameters: list[nn.Parameter], decay: float) -> Optimizer:
    if name == "adam":
        return AdamW(parameters, weight_decay=decay)
    return SGD(parameters, momentum=0.9, weight_decay=decay)


def _parameters() -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [
        nn.Parameter(torch.randn(size, generator=generator, dtype=torch.float64)) for size in (7, 3)
    ]


def _step(parameters: list[nn.Parameter], step: int) -> None:
    for place, parameter in enumerate(parameters):
        generator = torch.Generator().manual_seed(10 * step + place)
        parameter.grad = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("name", ["adam", "sgd"])
def test_steps_are_torchs(name: str, decay: float) -> None:
    ours, theirs = _parameters(), _parameters()
    optimizer = _make(name, ours, decay)
    reference: torch.optim.Optimizer = (
        torch.optim.AdamW(theirs, weight_decay=decay)
        if name == "adam"
        else torch.optim.SGD(theirs, momentum=0.9, nesterov=True, weight_decay=decay)
    )
    for step in range(5):
        lr = 0.1 / (1 + step)
        _step(ours, step)
        _step(theirs, step)
        reference.param_groups[0]["lr"] = lr
        optimizer.step(lr)
        reference.step()
        for one, two in zip(ours, theirs, strict=True):
            assert torch.allclose(one, two, rtol=1e-12)


@pytest.mark.parametrize("name", ["adam", "sgd"])
def test_a_loaded_state_continues_exactly_and_is_a_copy(name: str) -> None:
    whole, parts = _parameters(), _parameters()
    optimizers = [_make(name, parameters, 0.1) for parameters in (whole, parts)]
    for step in range(4):
        if step == 2:
            state = optimizers[1].state_dict()
            _step(whole, 99)  # what is saved must not follow
            optimizers[1] = _make(name, parts, 0.1)
            optimizers[1].load_state_dict(state)
        for parameters, optimizer in zip((whole, parts), optimizers, strict=True):
            _step(parameters, step)
            optimizer.step(0.1)
    assert all(torch.equal(one, two) for one, two in zip(whole, parts, strict=True))


def test_building_and_training_do_not_import_torchs_compiler() -> None:
    """It takes a worker longer than a small student's training."""
    teacher = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(72, 3))
    text = trace(teacher, (1, 8, 8)).to_json()
    code = """
import sys, numpy as np, torch
from raysearch.architecture import Architecture
from raysearch.data import distillation_data, from_arrays
from raysearch.models import build
from trainables.recipe import Recipe
from trainables.training import Training
x, y = np.zeros((60, 1, 8, 8), np.uint8), np.arange(60) % 3
x[:, 0, 0, 0] = y
data = distillation_data(from_arrays((x, y), augment="none")).to("cpu")
training = Training(build(Architecture.from_json(sys.argv[1])), data, Recipe(loss="ce", epochs=1))
training.train_epoch(), training.validate(), training.state_dict()
assert "torch._dynamo" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code, text], check=True, timeout=120)
