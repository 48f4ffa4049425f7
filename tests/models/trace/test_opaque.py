"""What has no rule of its own: replayed with its channels frozen, or read as what it amounts to."""

import copy
import json
import math
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from raysearch.architecture import Architecture, SearchSpace
from raysearch.errors import InvalidArchitecture, UnsupportedTeacher
from raysearch.models import build, num_parameters, trace
from tests.models.tracing import SHAPE, Net, check, free, ops


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
