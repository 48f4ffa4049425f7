"""Small spaces with made-up accuracies, the algorithm's two forms in small, and embeddings for the learned kernels' unit tests."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch

from raysearch.architecture import SearchSpace
from searchers.algorithm import Observation
from searchers.multi_kernel_bo.inputs import Inputs
from searchers.testing import make_chain_space
from tests.architecture.conftest import mixed, resnet, vgg
from tests.searchers.driving import ask_and_tell

TEACHER_ACCURACY = 0.9
OURS = {"num_kernels": 2, "num_candidates": 32, "num_initial": 3, "batch_size": 3, "refit_every": 4}
FAITHFUL = {"faithful": True, "num_kernels": 3, "num_candidates": 32, "encoder": "mlp"}


class LastAxis(torch.nn.Module):
    """A linear map of however many numbers the last axis has, always the same one for the same number."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        size = x.shape[-1]
        weight = torch.linspace(-1, 1, size * 3, dtype=x.dtype).reshape(size, 3).sin()
        return x @ weight * self.scale.to(x.dtype)


def accuracy_of(space, text):
    """An accuracy known in closed form: it falls with every removed layer and every narrow one, the deeper the less."""
    edits = space.parse(text)
    shares = np.array(edits.widths) / np.array([group.size for group in space.groups])
    narrow = np.mean((1 - shares) ** 2 / np.arange(1, len(shares) + 1))
    removed = len(edits.remove) / max(1, len(space.removable))
    return TEACHER_ACCURACY * float(np.exp(-1.5 * narrow - 0.5 * removed))


def observed(space, text, accuracy=None, extra=None):
    """A full observation whose value is f = C (2 - C) A / A_teacher."""
    accuracy = accuracy_of(space, text) if accuracy is None else accuracy
    compression = 1 - space.apply(text).num_params / space.teacher.num_params
    metrics = {
        "accuracy": accuracy,
        "teacher_accuracy": TEACHER_ACCURACY,
        "compression": compression,
    }
    f = compression * (2 - compression) * accuracy / TEACHER_ACCURACY
    return Observation(text, f, 1.0, "full", metrics=metrics, extra=extra or {})


def some_observed(space, count, seed=0):
    """Outcomes of `count` random students."""
    return tuple(observed(space, str(edits)) for edits in space.sample(count, seed))


def go_on(algorithm, space, steps):
    return ask_and_tell(algorithm, steps, partial(observed, space))


def batch_of(algorithm, size=3):
    return [algorithm.ask() for _ in range(size)]


@pytest.fixture(scope="session")
def space():
    """Of a chain of four convolutions: eleven layers."""
    return make_chain_space((8, 8, 8, 8))


@pytest.fixture(scope="session")
def inputs(space):
    return Inputs.of(space)


@pytest.fixture(scope="session", params=["resnet14", "vgg", "concat", "chain"])
def any_space(request):
    """Spaces of networks whose layer vectors use different columns."""
    if request.param == "chain":
        return make_chain_space((8, 8, 8, 8))
    teachers = {"resnet14": resnet, "vgg": vgg, "concat": mixed}
    return SearchSpace(teachers[request.param]())
