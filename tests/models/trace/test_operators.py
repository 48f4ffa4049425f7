"""Operations with parameters, computed weights and operations without a rule, in small networks as users write them.

Each teacher is traced (which proves its logits), and random students of it are held against independent truth: torch's tensors and
operation counter, gradients, the JSON round trip, and the generated source.
"""

import copy
import importlib.util
import json
import math
import pickle

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from raysearch.architecture import Architecture, SearchSpace
from raysearch.errors import InvalidArchitecture, UnsupportedTeacher, WeightsError
from raysearch.models import build, export_student, num_parameters, trace

SHAPE = (3, 12, 10)


class Net(nn.Module):
    """conv, then `middle` on [B, 8, H, W] with parts of its own, then conv and a classifier."""

    def __init__(self, middle, *, width=8, out=8, **parts):
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3, padding=1)
        for name, part in parts.items():
            setattr(self, name, part)
        self.middle = middle
        self.last = nn.Conv2d(out, 6, 1)
        self.fc = nn.Linear(6, 5)

    def forward(self, x):
        x = F.relu(self.last(self.middle(self, F.relu(self.conv(x)))))
        return self.fc(x.mean((2, 3)))


def check(teacher, shape=SHAPE, folder=None, students=3):
    """Traces a teacher and checks random students of it; returns the teacher's architecture."""
    with torch.no_grad():
        for parameter in teacher.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)  # no zeros, no ones
    teacher.eval()
    architecture = trace(teacher, shape)
    assert Architecture.from_json(architecture.to_json()) == architecture
    space = SearchSpace(architecture)
    batch = space.sample(students, 0)
    counts = zip(batch, space.num_params(batch), space.macs(batch), strict=True)
    for number, (edits, params, macs) in enumerate(counts):
        student = space.apply(edits)
        assert Architecture.from_json(student.to_json()) == student
        module = build(student, inherit_from=teacher)
        assert student.num_params == params == num_parameters(module)
        images = torch.randn(2, *shape)
        module(images).square().sum().backward()
        assert all(p.grad is not None for p in module.parameters())
        module.eval()
        counter = FlopCounterMode(display=False)
        with counter, torch.no_grad():
            module(images[:1])
        assert student.macs == macs == counter.get_total_flops() // 2
        if folder is not None and number == 0:
            check_source(folder, student, module, images)
    return architecture


def check_source(folder, student, module, images):
    export_student(folder, student, module)
    spec = importlib.util.spec_from_file_location("student_model", folder / "model.py")
    generated = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generated)
    with torch.no_grad():
        found, expected = generated.Student().eval()(images), module(images)
    torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)


def ops(architecture):
    return [layer.op for layer in architecture.layers]


def free(architecture):
    return sorted(group.size for group in SearchSpace(architecture).groups)


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


class Attention(nn.Module):
    """Non-local attention with a gate that is a parameter."""

    def __init__(self):
        super().__init__()
        self.qkv, self.gate = nn.Conv2d(8, 24, 1), nn.Parameter(torch.zeros(1))

    def forward(self, x):
        q, k, v = self.qkv(x).flatten(2).chunk(3, 1)
        weights = torch.softmax(torch.bmm(q.transpose(1, 2), k) / math.sqrt(8), -1)
        return x + self.gate * torch.bmm(v, weights.transpose(1, 2)).view_as(x)


class Heads(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2)
        self.lstm = nn.LSTM(8, 4, bidirectional=True, batch_first=True)

    def forward(self, x):
        tokens = x.flatten(2).permute(2, 0, 1)
        tokens = self.attention(tokens, tokens, tokens)[0].transpose(0, 1)
        out, (last, _) = self.lstm(tokens)
        both = out + torch.cat([last[0], last[1]], 1)[:, None]
        return both.transpose(1, 2).reshape(x.shape)


class Merged(nn.Module):
    """A convolution on the batch and a part of the channels together."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 3, padding=1)

    def forward(self, x):
        b, c, h, w = x.shape
        return self.conv(x.reshape(b * 4, c // 4, h, w)).reshape(b, c, h, w)


class Channels(nn.Module):
    """CBAM: maxima and means over the channels."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 1, 3, padding=1)

    def forward(self, x):
        pooled = torch.cat([x.amax(1, keepdim=True), x.mean(1, keepdim=True)], 1)
        return x * torch.sigmoid(self.conv(pooled))


class Efficient(nn.Module):
    """ECA: a 1-d convolution along the channels."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(1, 1, 3, padding=1, bias=False)

    def forward(self, x):
        y = self.conv(x.mean((2, 3)).unsqueeze(1)).sigmoid()
        return x * y.view(x.shape[0], -1, 1, 1)


def grid(_, x):
    """Coordinates made in forward."""
    rows = torch.linspace(-1, 1, x.shape[2], device=x.device)
    columns = torch.arange(x.shape[3], device=x.device, dtype=x.dtype)
    return x + rows[:, None] * columns


def noise_free(_, x):
    flips = torch.where(x > 0.1, x, torch.zeros_like(x))
    return flips.double().cumsum(2).float() + F.one_hot(x.argmax(1), 8).permute(0, 3, 1, 2)


QUIRKS = {
    "attention": (lambda net, x: net.part(x), Attention),
    "heads": (lambda net, x: net.part(x), Heads),
    "the batch merged with channels": (lambda net, x: net.part(x), Merged),
    "CBAM": (lambda net, x: net.part(x), Channels),
    "ECA": (lambda net, x: net.part(x), Efficient),
    "maxout": (
        lambda _, x: x.reshape(x.shape[0], 4, 2, 12, 10).amax(2).repeat(1, 2, 1, 1),
        nn.Identity,
    ),
    "einsum": (lambda _, x: torch.einsum("bchw,bdhw->bcd", x, x)[..., None], nn.Identity),
    "coordinates": (grid, nn.Identity),
    "other types": (noise_free, nn.Identity),
    "unfold": (lambda _, x: F.unfold(x, 3, padding=1).view(-1, 8, 9, 12, 10).sum(2), nn.Identity),
    "autocast switched off": (
        lambda net, x: net.part(x),
        lambda: type(
            "Off",
            (nn.Conv2d,),
            {"forward": torch.autocast("cpu", enabled=False)(nn.Conv2d.forward)},
        )(8, 8, 1),
    ),
    "resized": (
        lambda _, x: F.interpolate(F.interpolate(x, scale_factor=2), (7, 9), mode="bilinear"),
        nn.Identity,
    ),
}


@pytest.mark.parametrize(("middle", "part"), QUIRKS.values(), ids=QUIRKS.keys())
def test_what_has_no_rule_is_frozen_and_replayed(middle, part, tmp_path):
    teacher = Net(middle, part=part())
    architecture = check(teacher, folder=tmp_path)
    assert architecture.num_params == num_parameters(teacher)
    assert 6 in free(architecture)


def test_interpolation_leaves_the_channels_free():
    middle, part = QUIRKS["resized"]
    architecture = check(Net(middle, part=part()))
    assert ops(architecture).count("resize") == 2
    assert free(architecture) == [6, 8]


def test_the_reason_of_frozen_channels_names_the_layer_and_the_operation():
    architecture = check(Net(QUIRKS["attention"][0], part=Attention()))
    reasons = {group.reason for group in SearchSpace(architecture).frozen_groups}
    assert any("part" in reason and "bmm" in reason for reason in reasons)


def test_a_one_dimensional_network_is_traced(tmp_path):
    teacher = nn.Sequential(
        nn.Conv1d(2, 8, 5, stride=2),
        nn.InstanceNorm1d(8, affine=True),
        nn.PReLU(8),
        nn.ConvTranspose1d(8, 6, 4, stride=2),
        nn.GroupNorm(1, 6),
        nn.AdaptiveAvgPool1d(3),
        nn.Flatten(),
        nn.Linear(18, 4),
    )
    assert free(check(teacher, (2, 41), tmp_path)) == [6, 8]


def test_a_video_network_is_traced(tmp_path):
    teacher = nn.Sequential(
        nn.Conv3d(1, 8, 3, padding=1),
        nn.GroupNorm(2, 8),
        nn.PReLU(),
        nn.ConvTranspose3d(8, 6, 2, stride=2),
        nn.InstanceNorm3d(6),
        nn.AvgPool3d(2),
        nn.Flatten(),
        nn.Linear(6 * 3 * 4 * 5, 4),
    )
    assert free(check(teacher, (1, 3, 4, 5), tmp_path)) == [6, 8]


def write_parts(_, x):
    x[:, :3].mul_(2)
    x[:, 5, 2:] = 0
    x[:, :, ::2] += 1
    mask = torch.zeros(12, 10, device=x.device)
    mask[3:5, 2] = 1
    return x + mask


def write_behind_a_view(_, x):
    first = x[:, 1:4]
    x[:, :3].mul_(2)  # `first` changes, too
    return torch.cat([first, x], 1)[:, :8]


def test_a_write_into_a_part_is_equal_or_refused(tmp_path):
    assert "opaque" in ops(check(Net(write_parts), folder=tmp_path))
    with pytest.raises(UnsupportedTeacher, match="does not give the teacher's logits"):
        trace(Net(write_behind_a_view), SHAPE)


class Cached(nn.Module):
    """Attention biases that the first forward pass computes and keeps, as LeViT's do."""

    def __init__(self):
        super().__init__()
        self.bias, self.cache = nn.Parameter(torch.randn(1)), None

    def forward(self, x):
        if self.cache is None:
            self.cache = torch.arange(120.0 * 120).reshape(1, 120, 120).remainder(7) * self.bias
        x = x.flatten(2)
        return torch.matmul(x, self.cache.softmax(-1)).reshape(-1, 8, 12, 10)


def test_larger_constants_become_buffers(tmp_path):
    architecture = check(Net(lambda net, x: net.part(x), part=Cached()), folder=tmp_path)
    rebuilt = build(architecture)
    large = [b for b in rebuilt.buffers() if b.numel() == 120 * 120]
    assert len(large) == 1
    assert float(large[0].abs().max()) > 0


def test_a_write_into_a_copy_leaves_the_source():
    def copied(_, x):
        kept = x.clone()
        x.mul_(3)
        kept.add_(1)
        return kept - x

    assert "opaque" not in ops(check(Net(copied)))


def test_a_local_response_norm_leaves_the_channels_free(tmp_path):
    norm = nn.LocalResponseNorm(5, alpha=0.1, beta=0.5, k=2.0)
    architecture = check(Net(lambda net, x: net.norm(x), norm=norm), folder=tmp_path)
    assert ops(architecture)[3] == "local_response_norm"
    assert free(architecture) == [6, 8]
    teacher = nn.Sequential(
        nn.Conv1d(2, 8, 3), nn.LocalResponseNorm(3), nn.Flatten(), nn.Linear(56, 3)
    )
    assert free(check(teacher, (2, 9))) == [8]


def test_indices_of_a_pooling_are_replayed():
    def unpool(_, x):
        y, indices = F.max_pool2d(x, 2, return_indices=True)
        return F.max_unpool2d(y, indices, 2)

    assert "opaque" in ops(check(Net(unpool)))


def test_an_opaque_layer_refuses_other_input_shapes():
    architecture = trace(Net(QUIRKS["attention"][0], part=Attention()).eval(), SHAPE)
    place = next(i for i, layer in enumerate(architecture.layers) if layer.op == "opaque")
    data = architecture.to_dict()
    attrs = data["layers"][place]["attrs"]
    attrs["in_shapes"] = [[9, 9] for _ in attrs["in_shapes"]]
    with pytest.raises(InvalidArchitecture, match="must keep the shapes"):
        Architecture.from_json(json.dumps(data))


@pytest.mark.parametrize(
    "target",
    [
        "aten.from_file.default",
        "aten.relu_.default",
        "aten.item.default",
        "aten.no_such.default",
        "aten.__class__.mro",
        "aten.set_.source_Storage",
        "aten.resize_.default",
    ],
)
def test_a_program_calls_nothing_but_functions_of_tensors(target):
    architecture = trace(Net(QUIRKS["attention"][0], part=Attention()).eval(), SHAPE)
    data = architecture.to_dict()
    layer = next(layer for layer in data["layers"] if layer["op"] == "opaque")
    layer["attrs"]["program"]["steps"][-1][0] = target
    with pytest.raises(InvalidArchitecture, match="aten"):
        build(Architecture.from_json(json.dumps(data)))


def test_modules_may_have_the_names_of_keywords(tmp_path):
    class Inner(nn.Module):
        def __init__(self):
            super().__init__()
            self.add_module("class", nn.Conv2d(8, 8, 1))
            self.add_module("0", nn.Sequential())
            getattr(self, "0").add_module("def", nn.PReLU(8))
            self.register_parameter("lambda", nn.Parameter(torch.ones(8, 1, 1)))

        def forward(self, x):
            x = getattr(getattr(self, "0"), "def")(getattr(self, "class")(x))
            return x * getattr(self, "lambda")

    teacher = Net(lambda net, x: getattr(net, "import")(x), **{"import": Inner()})
    architecture = check(teacher, folder=tmp_path)
    rebuilt = build(architecture, inherit_from=teacher).eval()
    assert set(rebuilt.state_dict()) == set(teacher.state_dict())
    images = torch.randn(2, *SHAPE)
    again = pickle.loads(pickle.dumps(rebuilt))
    for copied in (again, copy.deepcopy(rebuilt)):
        assert torch.equal(copied(images), teacher(images))


class TiedTransposed(nn.Module):
    """A linear layer that is used backwards, too, by its transposed weight."""

    def __init__(self):
        super().__init__()
        self.conv, self.wide = nn.Conv2d(3, 8, 3), nn.Linear(8, 9, bias=False)
        self.fc = nn.Linear(8, 4)

    def forward(self, x):
        x = torch.relu(self.conv(x)).mean((2, 3))
        return self.fc(nn.functional.linear(torch.relu(self.wide(x)), self.wide.weight.t()))


def test_a_weight_that_is_used_as_it_is_and_transformed_stays_one():
    teacher = TiedTransposed()
    architecture = trace(teacher, (3, 8, 8))
    assert architecture.num_params == sum(p.numel() for p in teacher.parameters())
    assert [layer.op for layer in architecture.layers].count("opaque") == 1
