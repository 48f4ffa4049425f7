"""Operations with parameters, and computed weights, in small networks as users write them.

Each teacher is traced (which proves its logits), and random students of it are held against independent truth: torch's tensors and
operation counter, gradients, the JSON round trip, and the generated source.
"""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from raysearch.architecture import SearchSpace
from raysearch.errors import WeightsError
from raysearch.models import build, num_parameters, trace
from tests.models.tracing import SHAPE, Net, check, free, ops

NORMS = {
    "group norm": (nn.GroupNorm(4, 8), "group_norm"),
    "group norm of single channels": (nn.GroupNorm(8, 8, affine=False), "group_norm"),
    "group norm without bias": (nn.GroupNorm(2, 8, bias=False), "group_norm"),
    "instance norm": (nn.InstanceNorm2d(8), "instance_norm"),
    "instance norm with statistics": (
        nn.InstanceNorm2d(8, affine=True, track_running_stats=True),
        "instance_norm",
    ),
    "layer norm over everything": (nn.LayerNorm([8, 12, 10]), "layer_norm"),
    "layer norm over rows": (nn.LayerNorm(10, bias=False), "layer_norm"),
    "RMS norm": (nn.RMSNorm([8, 12, 10], eps=1e-5), "rms_norm"),
    "one slope": (nn.PReLU(), "prelu"),
    "a slope for each channel": (nn.PReLU(8), "prelu"),
    "batch norm without bias": (nn.BatchNorm2d(8, bias=False), "batch_norm"),
    "batch norm with frozen statistics": (nn.BatchNorm2d(8, momentum=0.3), "batch_norm"),
}


@pytest.mark.parametrize(("norm", "op"), NORMS.values(), ids=NORMS.keys())
def test_normalisations_and_slopes_follow_the_channels(norm, op, tmp_path):
    architecture = check(Net(lambda net, x: net.norm(x), norm=norm), folder=tmp_path)
    assert op in ops(architecture)
    assert free(architecture) == [6, 8]
    found = architecture["norm"]
    assert set(found.params.values()) == {f"norm.{key}" for key in norm.state_dict()}


def test_group_norm_keeps_the_channels_divisible_by_its_groups():
    architecture = check(Net(lambda net, x: net.norm(x), norm=nn.GroupNorm(4, 8)))
    group = next(group for group in SearchSpace(architecture).groups if group.size == 8)
    assert group.alignment == 4


def test_channels_last_layer_norm_and_layer_scale_follow_the_channels(tmp_path):
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.up, self.down = nn.LayerNorm(8), nn.Linear(8, 12), nn.Linear(12, 8)
            self.gamma = nn.Parameter(torch.ones(8))

        def forward(self, x):
            y = self.down(F.gelu(self.up(self.norm(x.permute(0, 2, 3, 1))))) * self.gamma
            return x + y.permute(0, 3, 1, 2)

    architecture = check(Net(lambda net, x: net.block(x), block=Block()), folder=tmp_path)
    assert free(architecture) == [6, 8, 12]
    assert architecture["block.mul"].params == {"weight": "block.gamma"}


TRANSPOSED = {
    "plain": nn.ConvTranspose2d(8, 7, 3, stride=2, output_padding=1),
    "grouped": nn.ConvTranspose2d(8, 12, (3, 2), groups=4, padding=1, bias=False),
    "depthwise": nn.ConvTranspose2d(8, 16, 2, groups=8, dilation=2),
}


@pytest.mark.parametrize("layer", TRANSPOSED.values(), ids=TRANSPOSED.keys())
def test_transposed_convolutions_shrink(layer, tmp_path):
    net = Net(lambda net, x: net.up(x), up=layer, out=layer.out_channels)
    architecture = check(net, folder=tmp_path)
    assert "conv_transpose" in ops(architecture)
    assert 8 in free(architecture)


@pytest.mark.parametrize("groups", [1, 2])
def test_a_students_transposed_convolution_is_the_teachers_without_the_other_channels(groups):
    class Up(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Conv2d(3, 8, 1)
            self.up = nn.ConvTranspose2d(8, 12, 3, stride=2, groups=groups)
            self.last = nn.Conv2d(12, 4, 1)

        def forward(self, x):
            return self.last(F.relu(self.up(F.relu(self.first(x))))).mean((2, 3))

    teacher = Up().eval()
    space = SearchSpace(trace(teacher, (3, 5, 5)), operations=["shrink"], divisor=1)
    edits = space.parse(str(space.largest()))
    widths = [group.size // 2 for group in space.groups]
    student = build(space.apply(type(edits)(widths=tuple(widths))), inherit_from=teacher).eval()
    kept = {"first": [0, 1, 2, 3], "up": [0, 1, 2, 3, 4, 5]}
    if groups == 2:  # the first half of each group
        kept = {"first": [0, 1, 4, 5], "up": [0, 1, 2, 6, 7, 8]}
    for name, channels in kept.items():
        conv = getattr(teacher, name)
        gone = [c for c in range(conv.out_channels) if c not in channels]
        axis = 1 if name == "up" and groups == 1 else 0
        with torch.no_grad():
            if name == "up" and groups == 2:
                conv.weight[:, [3, 4, 5]] = 0
            else:
                conv.weight.index_fill_(axis, torch.tensor(gone), 0)
            conv.bias[gone] = 0
    images = torch.randn(3, 3, 5, 5)
    torch.testing.assert_close(student(images), teacher(images))


class Scales(nn.Module):
    """Parameters and buffers as operands."""

    def __init__(self):
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(8, 1, 1))
        self.beta = nn.Parameter(torch.zeros(1, 8, 1, 1))
        self.gate = nn.Parameter(torch.tensor(0.5))
        self.power = nn.Parameter(torch.ones(1) * 3)
        self.position = nn.Parameter(torch.zeros(12, 10))
        self.register_buffer("mean", torch.rand(8, 1, 1))

    def forward(self, x):
        x = self.gamma * (x - self.mean) + self.beta
        x = 1.5 * self.gate - x * torch.sigmoid(self.gate) + self.position
        return x.clamp(min=0.01).pow(self.power).pow(1.0 / self.power)


def test_parameters_as_operands_follow_the_channels(tmp_path):
    architecture = check(Net(lambda net, x: net.scales(x), scales=Scales()), folder=tmp_path)
    assert ops(architecture).count("param_binary") == 8
    assert "opaque" not in ops(architecture)
    assert free(architecture) == [6, 8]
    buffers = {key for layer in architecture.layers for key in layer.buffer_shapes}
    assert architecture["scales.sub"].buffer_shapes == {"weight": (8, 1, 1)}
    assert buffers == {"weight"}


def test_one_slope_for_several_widths_ties_nothing():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 12, 3)
            self.act, self.fc = nn.PReLU(), nn.Linear(12, 5)

        def forward(self, x):
            x = self.act(self.second(self.act(self.first(x))))
            return self.fc(x.mean((2, 3)))

    architecture = check(Shared())
    assert free(architecture) == [8, 12]
    assert architecture.num_params == num_parameters(Shared())


def test_pixels_are_normalised_inside_the_network(tmp_path):
    class Normalised(Net):
        def __init__(self):
            super().__init__(lambda _, x: x)
            self.register_buffer("mean", torch.rand(3, 1, 1))
            self.register_buffer("std", torch.rand(1, 3, 1, 1) + 0.5, persistent=False)

        def forward(self, x):
            scale = torch.from_numpy(np.array([255.0, 128.0, 64.0], np.float32))  # made in forward
            return super().forward((x / scale.view(1, 3, 1, 1) - self.mean) / self.std)

    architecture = check(Normalised(), folder=tmp_path)
    assert ops(architecture)[1:4] == ["param_binary"] * 3
    assert architecture.num_params == num_parameters(Normalised())
    fresh = build(architecture)  # what forward makes needs no teacher
    assert any(
        torch.equal(b.flatten(), torch.tensor([255.0, 128.0, 64.0])) for b in fresh.buffers()
    )


class Standardised(nn.Conv2d):
    """Weight standardisation with a gain, under the weight's own name."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.gain = nn.Parameter(torch.ones(self.out_channels, 1, 1, 1))

    def forward(self, x):
        mean, std = self.weight.mean((1, 2, 3), True), self.weight.std((1, 2, 3), keepdim=True)
        weight = (self.weight - mean) / (std + 1e-5) * self.gain
        return F.conv2d(x, weight, self.bias, padding=1)


COMPUTED = {
    "weight norm": (nn.utils.parametrizations.weight_norm(nn.Conv2d(8, 8, 3)), "part.weight"),
    "spectral norm": (nn.utils.parametrizations.spectral_norm(nn.Conv2d(8, 8, 3)), "part.weight"),
    "old spectral norm": (nn.utils.spectral_norm(nn.Conv2d(8, 8, 3)), "part.weight"),
    "standardised": (Standardised(8, 8, 3), "part.folded.weight"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("part", "key"), COMPUTED.values(), ids=COMPUTED.keys())
def test_computed_weights_are_folded_into_plain_ones(part, key, tmp_path):
    teacher = Net(lambda net, x: net.part(x), part=part)
    architecture = check(teacher, folder=tmp_path)
    assert architecture["part"].op == "conv"
    assert architecture["part"].params["weight"] == key
    assert free(architecture) == [6, 8, 8]
    expected = (
        num_parameters(teacher.conv) + num_parameters(teacher.last) + num_parameters(teacher.fc)
    )
    assert architecture.num_params == expected + 8 * 8 * 9 + 8
    images = torch.randn(2, *SHAPE)
    by_state = build(architecture, inherit_from=teacher.state_dict()).eval()
    again = build(architecture, inherit_from=by_state.state_dict()).eval()
    assert torch.equal(by_state(images), teacher(images))
    assert torch.equal(again(images), teacher(images))
    state = {k: v for k, v in teacher.state_dict().items() if not k.startswith("part.")}
    with pytest.raises(WeightsError, match=rf"neither '{key}' nor 'part\."):
        build(architecture, inherit_from=state)


def test_a_computed_weight_that_is_larger_than_its_parameters_is_not_folded():
    class Expanded(nn.Module):
        def __init__(self):
            super().__init__()
            self.kernel = nn.Parameter(torch.randn(1, 1, 3, 3))

        def forward(self, x):
            return F.conv2d(x, self.kernel.expand(8, 1, 3, 3), groups=8, padding=1)

    teacher = Net(lambda net, x: net.part(x), part=Expanded())
    architecture = check(teacher)
    assert "opaque" in ops(architecture)
    assert architecture.num_params == num_parameters(teacher)


def test_filters_in_buffers_stay_buffers_and_follow_the_channels(tmp_path):
    class Blur(nn.Module):
        def __init__(self):
            super().__init__()
            taps = torch.tensor([1.0, 2.0, 1.0])
            self.register_buffer(
                "filter", (taps[:, None] * taps / 16)[None, None], persistent=False
            )
            self.register_buffer("fixed", torch.randn(8, 8, 1, 1))

        def forward(self, x):
            x = F.conv2d(x, self.filter.expand(x.shape[1], 1, 3, 3), stride=2, groups=x.shape[1])
            return F.conv2d(x, self.fixed)

    teacher = Net(lambda net, x: net.blur(x), blur=Blur())
    architecture = check(teacher, folder=tmp_path)
    assert "opaque" not in ops(architecture)
    assert architecture.num_params == num_parameters(teacher)
    assert architecture["blur.conv2d_1"].buffer_shapes == {"weight": (8, 8, 1, 1)}
    assert free(architecture) == [6, 8, 8]


def test_a_batch_norm_written_by_hand_is_one(tmp_path):
    class Frozen(nn.Module):
        def __init__(self):
            super().__init__()
            for name in ("scale", "shift", "centre", "spread"):
                self.register_buffer(name, torch.rand(8) + 0.5)

        def forward(self, x):
            return F.batch_norm(
                x, self.centre, self.spread, self.scale, self.shift, False, 0.1, 1e-3
            )

    teacher = Net(lambda net, x: net.norm(x), norm=Frozen())
    architecture = check(teacher, folder=tmp_path)
    assert "batch_norm" in ops(architecture)
    assert architecture.num_params == num_parameters(teacher)
