"""What is refused: one sentence that names the module and the reason."""

import numpy as np
import pytest
import torch
from torch import nn

from raysearch.errors import TraceError, UnsupportedTeacher
from raysearch.models import trace

SHAPE = (3, 8, 8)


class Network(nn.Module):
    """conv, then `middle`, then a classifier."""

    def __init__(self, middle, *parts):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.part = Part(middle, *parts)
        self.fc = nn.Linear(8, 10)

    def forward(self, x):
        return self.fc(self.part(self.conv(x)).mean((2, 3)))


class Part(nn.Module):
    def __init__(self, middle, *parts):
        super().__init__()
        self.middle = middle
        self.inner = nn.ModuleList(parts)
        self.register_buffer("mean", torch.ones(1, 8, 1, 1))

    def forward(self, x):
        return self.middle(self, x)


def write_view(_, x):
    x.flatten(1).relu_()
    return x


def write_buffer(part, x):
    part.mean += 1
    return x


def autocast(_, x):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return (x @ x.transpose(2, 3)).float()


REFUSED = {
    "control flow on data": (lambda _, x: x * 2 if x.sum() > 0 else x, (), "depends on the values"),
    "a number from data": (lambda _, x: x * x.max().item(), (), "aten.max"),
    "batch size as a number": (lambda _, x: x.view(7, 8, 8, 8), (), "batch size"),
    "another batch size": (lambda _, x: x.view(4, 8, 8, 8), (), "batch of 4"),
    "comparison of the batch": (lambda _, x: x * 2 if len(x) > 3 else x, (), "batch size"),
    "batch size as a factor": (lambda _, x: x / x.shape[0], (), "aten.div"),
    "mean over the batch": (lambda _, x: x - x.mean(0), (), "batch axis"),
    "mean over everything": (lambda _, x: x - x.mean(), (), "batch axis"),
    "mixing the batch": (lambda _, x: x - x.flip(0), (), "aten.flip"),
    "write into a view": (write_view, (), "does not give the teacher's logits"),
    "a buffer that changes": (write_buffer, (), "'part.mean' during evaluation"),
    "noise": (lambda _, x: x + torch.randn_like(x), (), "aten.randn_like"),
    "numpy": (lambda _, x: torch.from_numpy(x.numpy()), (), "torch.export"),
    "a constant of many numbers": (
        lambda _, x: x * torch.from_numpy(np.ones((8, 8, 8, 2100), np.float32)).sum(3)[None],
        (),
        "constant of 1075200 numbers",
    ),
    "a mixture without a rule": (lambda _, x: torch.roll(x, 1, 0), (), "aten.roll"),
    "a mixture that only numbers show": (
        lambda _, x: x.reshape(-1).roll(3).reshape(x.shape),
        (),
        "depend on the other images",
    ),
    "autocast": (autocast, (), "autocast"),
    "batch statistics": (
        lambda part, x: part.inner[0](x),
        (nn.BatchNorm2d(8, track_running_stats=False),),
        "normalises by the batch",
    ),
    "an error": (lambda _, x: x[99], (), "IndexError"),
}


@pytest.mark.parametrize(("middle", "parts", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_a_refusal_names_the_module_and_the_reason_in_one_sentence(middle, parts, words):
    with pytest.raises(TraceError) as caught:
        trace(Network(middle, *parts), SHAPE)
    message = str(caught.value)
    assert words in message
    assert "part" in message or "Network" in message or "teacher" in message
    assert "\n" not in message


def test_an_input_that_does_not_fit_is_refused_with_the_layer_that_rejects_it():
    with pytest.raises(TraceError, match=r"module 'conv' \(Conv2d\) rejects.*\[1, 8, 8\]"):
        trace(Network(lambda _, x: x), (1, 8, 8))


def test_a_network_without_parameters_is_refused():
    with pytest.raises(TraceError, match="no parameters"):
        trace(nn.Flatten(), SHAPE)


def test_a_lazy_network_is_refused_until_it_has_sizes():
    teacher = nn.Sequential(nn.Flatten(), nn.LazyLinear(3))
    with pytest.raises(TraceError, match="run it once"):
        trace(teacher, SHAPE)


def test_frozen_parameters_count_like_others():
    teacher = Network(lambda _, x: x).requires_grad_(False)
    assert trace(teacher, SHAPE).num_params == sum(p.numel() for p in teacher.parameters())


def test_the_capture_writes_nothing_on_the_terminal(capfd):
    with pytest.raises(UnsupportedTeacher):
        trace(Network(lambda _, x: x * 2 if x.sum() > 0 else x), SHAPE)
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")
