"""Small networks with the habits of users' code: each must be captured exactly (`trace` proves the logits itself)."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from raysearch.models import build, num_parameters, trace


class Base(nn.Module):
    """Layers to choose from; the graph has only those that `forward` uses."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.bn = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1)
        self.act = nn.ReLU(inplace=True)
        self.fc = nn.Linear(8, 10)

    def head(self, x):
        return self.fc(x.mean((2, 3)))


def layers(module, shape=(3, 16, 16), **options):
    """(name, op) of every layer after the input; `build` must agree on the parameters and the state's names."""
    architecture = trace(module, shape, **options)
    rebuilt = build(architecture, inherit_from=module)
    assert architecture.num_params == num_parameters(rebuilt)
    assert set(rebuilt.state_dict()) <= set(module.state_dict())
    return [(layer.name, layer.op) for layer in architecture.layers[1:]]


def test_lenet_in_functional_style_gets_names_from_its_operations():
    class LeNet(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1 = nn.Conv2d(1, 6, 5, padding=2)
            self.conv2 = nn.Conv2d(6, 16, 5)
            self.fc1 = nn.Linear(400, 84)
            self.fc2 = nn.Linear(84, 10)

        def forward(self, x):
            x = F.max_pool2d(F.relu(self.conv1(x)), 2)
            x = F.max_pool2d(F.relu(self.conv2(x)), 2)
            x = F.relu(self.fc1(x.view(x.size(0), -1)))
            return F.log_softmax(self.fc2(F.dropout(x, 0.3, self.training)), dim=1)

    assert layers(LeNet(), (1, 28, 28)) == [
        ("conv1", "conv"),
        ("relu", "unary"),
        ("max_pool2d", "pool"),
        ("conv2", "conv"),
        ("relu_1", "unary"),
        ("max_pool2d_1", "pool"),
        ("view", "reshape"),
        ("fc1", "linear"),
        ("relu_2", "unary"),
        ("dropout", "dropout"),
        ("fc2", "linear"),
        ("log_softmax", "softmax"),
    ]


def test_a_module_that_is_called_again_shares_its_weights_and_counts_once():
    class Shared(Base):
        def forward(self, x):
            x = self.act(self.bn(self.conv(x)))
            x = x + self.act(self.bn(self.conv2(x)))
            return self.head(self.act(self.conv2(x)))

    names = [name for name, _ in layers(Shared())]
    assert names[:9] == ["conv", "bn", "act", "conv2", "bn_1", "act_1", "add", "conv2_1", "act_2"]


def test_tied_weights_stay_tied():
    class Tied(Base):
        def __init__(self):
            super().__init__()
            self.conv3 = nn.Conv2d(8, 8, 3, padding=1)
            self.conv3.weight = self.conv2.weight

        def forward(self, x):
            return self.head(self.conv3(self.act(self.conv2(self.conv(x)))))

    teacher = Tied()
    layers(teacher)
    used = num_parameters(teacher) - num_parameters(teacher.bn)
    assert trace(teacher, (3, 16, 16)).num_params == used


def test_parameters_of_the_users_own_modules_keep_their_names():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.kernel = nn.Parameter(torch.randn(8, 3, 3, 3))
            self.inner = nn.Module()
            self.inner.matrix = nn.Parameter(torch.randn(10, 8))

        def forward(self, x):
            return F.linear(
                F.relu(F.conv2d(x, self.kernel, stride=2)).mean((2, 3)), self.inner.matrix
            )

    architecture = trace(Own(), (3, 16, 16))
    assert list(build(architecture).state_dict()) == ["kernel", "inner.matrix"]


def test_writes_in_place_are_seen_by_later_readers():
    class InPlace(Base):
        def forward(self, x):
            x = self.conv(x)
            y = self.conv2(x)
            x.relu_()
            y += x
            y.mul_(0.5)
            return self.head(y)

    assert [op for _, op in layers(InPlace())][:5] == ["conv", "conv", "unary", "add", "unary"]


def test_a_write_into_the_input_is_no_obstacle():
    class Preprocessing(Base):
        def forward(self, x):
            x.mul_(2).sub_(1)
            return self.head(self.conv(x))

    assert [op for _, op in layers(Preprocessing())][:3] == ["unary", "unary", "conv"]


def test_numbers_and_element_wise_functions_are_unary():
    class Numbers(Base):
        def forward(self, x):
            x = 1 - (x / 255.0 - 0.5) * 2
            x = F.leaky_relu(self.conv(x).clamp(-1, 1), 0.2)
            x = F.gelu(F.elu(x, 0.7), approximate="tanh")
            return self.head(F.hardtanh(x, -2.0, 2.0) ** 2)

    ops = [op for _, op in layers(Numbers())]
    assert ops == ["unary"] * 4 + ["conv"] + ["unary"] * 6 + ["reduce", "linear"]


def test_every_known_function_is_captured_exactly():
    functions = (F.silu, F.hardswish, F.mish, F.softplus, F.relu6, F.selu, F.celu, F.hardsigmoid)
    more = (torch.sigmoid, torch.tanh, F.logsigmoid, torch.exp, torch.sin, torch.square, torch.abs)
    last = (torch.neg, torch.erf, torch.cos, F.elu, F.relu)

    class Functions(Base):
        def forward(self, x):
            x = self.conv(x)
            for function in (*functions, *more, *last):
                x = function(x)
            return self.head(x)

    ops = [op for _, op in layers(Functions())]
    assert ops.count("unary") == len(functions) + len(more) + len(last)


def test_concatenation_pads_and_gates_are_captured():
    class Mixed(Base):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(16, 10)
            self.reflect = nn.Conv2d(3, 8, 3, padding=1, padding_mode="reflect")

        def forward(self, x):
            wide = F.pad(x, (0, 0, 0, 0, 2, 3))  # zero channels, as in option A
            x = self.reflect(F.pad(x, (0, 0, 0, 0))) + wide
            x = x * torch.sigmoid(x)
            pools = [F.adaptive_avg_pool2d(x, 1), F.adaptive_max_pool2d(x, 1)]
            return self.fc(torch.cat(pools, 1).flatten(1))

    found = dict(layers(Mixed()))
    assert found["reflect"] == "conv"
    assert found["reflect.pad"] == "pad"
    assert found["cat"] == "concat"
    assert found["mul"] == "binary"


def test_control_flow_on_shapes_is_unrolled():
    class Shapes(Base):
        def forward(self, x):
            if x.shape[2] > 8:
                x = F.avg_pool2d(x, int(np.prod([2, 1])))
            for _ in range(int(math.sqrt(x.shape[-1]))):
                x = self.act(self.conv(x) if x.shape[1] == 3 else self.conv2(x))
            return self.head(x)

    assert [op for _, op in layers(Shapes())] == [
        "pool",
        "conv",
        "unary",
        "conv",
        "unary",
        "reduce",
        "linear",
    ]


def test_unused_parts_are_left_out():
    class Unused(Base):
        def forward(self, x):
            self.last = self.conv(x)
            self.conv2(self.last)
            return self.head(self.last)

    assert [name for name, _ in layers(Unused())] == ["conv", "mean", "fc"]


def test_a_frozen_part_and_checkpointing_are_captured_like_the_rest():
    class Frozen(Base):
        def forward(self, x):
            with torch.no_grad():
                x = self.conv(x)
            return self.head(torch.utils.checkpoint.checkpoint(self.conv2, x, use_reentrant=False))

    assert [name for name, _ in layers(Frozen())] == ["conv", "conv2", "mean", "fc"]


@pytest.mark.parametrize(
    ("first", "norm", "pool", "shape", "features"),
    [
        (nn.Conv1d(2, 4, 5, stride=2), nn.BatchNorm1d(4), nn.MaxPool1d(2), (2, 40), 36),
        (
            nn.Conv3d(1, 4, 3, padding="same"),
            nn.BatchNorm3d(4, momentum=None, affine=False, eps=1e-3),
            nn.AvgPool3d(2, ceil_mode=True, count_include_pad=False, padding=1),
            (1, 6, 6, 6),
            256,
        ),
        (
            nn.Conv2d(3, 4, (3, 1), dilation=(2, 1), bias=False),
            nn.BatchNorm2d(4),
            nn.AdaptiveMaxPool2d((2, 1)),
            (3, 9, 5),
            8,
        ),
        (nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Identity(), (6,), 4),
    ],
    ids=["1d", "3d", "2d", "vectors"],
)
def test_networks_of_any_rank_are_captured(first, norm, pool, shape, features):
    teacher = nn.Sequential(
        first, norm, nn.ReLU(), pool, nn.Flatten(), nn.Dropout(), nn.Linear(features, 3)
    )
    ops = [op for _, op in layers(teacher, shape)]
    assert ops[1] == "batch_norm"
    assert ops[-2:] == ["dropout", "linear"]
    norm_layer = trace(teacher, shape)["1"]
    assert norm_layer.attrs["momentum"] == norm.momentum


def test_a_forward_with_any_arguments_is_captured():
    class Variadic(Base):
        def forward(self, *xs, **options):
            assert not options
            return self.head(self.conv(xs[0]))

    assert [name for name, _ in layers(Variadic())] == ["conv", "mean", "fc"]
