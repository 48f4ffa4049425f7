"""Inherited weights: a student is the teacher with the channels that it lacks set to zero after every layer."""

import numpy as np
import pytest
import torch
from torch import fx, nn

from raysearch.architecture import Architecture, Layer, SearchSpace
from raysearch.models import build, load_teacher, trace
from raysearch.models.inherit import plan
from raysearch.models.provenance import follow


class Masked(fx.Interpreter):
    """Runs the rebuilt teacher; after each layer, keeps the channels that `kept` lists for a tensor of that many channels."""

    def __init__(self, module, kept):
        super().__init__(module)
        self.kept = kept
        self.position = 0

    def run_node(self, n):
        value = super().run_node(n)
        if n.op in ("call_module", "call_function", "placeholder"):
            mask = torch.zeros(value.shape[1], dtype=value.dtype)
            mask[self.kept[self.position]] = 1
            value = value * mask.view(1, -1, *[1] * (value.ndim - 2))
            self.position += 1
        return value


@pytest.mark.parametrize(
    ("name", "shape"), [("resnet14", (1, 8, 8)), ("resnet18", (3, 8, 8)), ("vgg11", (1, 12, 12))]
)
def test_slicing_equals_masking_the_channels_behind_the_first(name, shape, trained):
    teacher = trained(load_teacher(name, num_classes=10, input_shape=shape)).double().eval()
    architecture = trace(teacher, shape)
    whole = build(architecture, inherit_from=teacher).eval()
    space = SearchSpace(architecture, operations=("shrink",), budget={"params": 0.4})
    images = torch.randn(2, *shape, dtype=torch.float64)
    for edits in space.sample(3, seed=0):
        student = space.apply(edits)
        kept = [np.arange(layer.shape[0]) for layer in student.layers]
        expected = Masked(whole, kept).run(images)
        found = build(student, inherit_from=teacher).eval()(images)
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


class Joined(nn.Module):
    """Concatenation, grouped and depthwise convolutions, and a flattening of a map that is not 1x1."""

    def __init__(self):
        super().__init__()
        self.left = nn.Conv2d(3, 4, 3, padding=1)
        self.right = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(12)
        self.deep = nn.Conv2d(12, 24, 3, padding=1, groups=12)
        self.point = nn.Conv2d(24, 8, 1)
        self.group = nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.fc = nn.Linear(8 * 4, 5)

    def forward(self, x):
        x = self.norm(torch.cat((self.left(x), self.right(x)), 1))
        x = self.point(torch.relu(self.deep(x)))
        return self.fc(nn.functional.avg_pool2d(self.group(x), 2).flatten(1))


def resized(architecture, changes):
    """The architecture with other attributes and channels: {layer: (channels, attributes)}."""
    layers = []
    for layer in architecture.layers:
        channels, attrs = changes.get(layer.name, (layer.shape[0], {}))
        shape = (channels, *layer.shape[1:])
        layers.append(
            Layer(layer.name, layer.op, layer.inputs, {**layer.attrs, **attrs}, shape, layer.params)
        )
    return Architecture(architecture.input_shape, tuple(layers), architecture.output)


@pytest.fixture
def joined(trained):
    teacher = trained(Joined()).double().eval()
    architecture = trace(teacher, (3, 4, 4))
    student = resized(
        architecture,
        {
            "left": (2, {"out_channels": 2}),
            "right": (3, {"out_channels": 3}),
            "cat": (5, {}),
            "norm": (5, {"num_features": 5}),
            "deep": (10, {"in_channels": 5, "out_channels": 10, "groups": 5}),
            "relu": (10, {}),
            "point": (4, {"in_channels": 10, "out_channels": 4}),
            "group": (4, {"in_channels": 4, "out_channels": 4}),
            "avg_pool2d": (4, {}),
            "flatten": (16, {}),
            "fc": (5, {"in_features": 16}),
        },
    )
    return teacher, architecture, student


def expected_channels(left, right, point, group):
    """What every tensor of `Joined` keeps, worked out by hand from four choices."""
    wide = [*left, *(4 + channel for channel in right)]
    deep = [2 * channel + copy for channel in wide for copy in (0, 1)]
    flat = [4 * channel + place for channel in group for place in range(4)]
    order = (range(3), left, right, wide, wide, deep, deep, point, group, group, flat, range(5))
    return [np.array(channels) for channels in order]


def check_against_masking(teacher, architecture, student, kept, keep=None):
    images = torch.randn(2, 3, 4, 4, dtype=torch.float64)
    expected = Masked(build(architecture, inherit_from=teacher).eval(), kept).run(images)
    found = build(student, inherit_from=teacher, keep=keep).eval()(images)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_concatenation_depthwise_groups_and_flattening_are_followed(joined):
    teacher, architecture, student = joined
    # a grouped convolution reads and writes the first channels of each of its two blocks
    kept = expected_channels([0, 1], [0, 1, 2], [0, 1, 4, 5], [0, 1, 4, 5])
    shapes = {key: tuple(tensor.shape) for key, tensor in teacher.state_dict().items()}
    for (context, _, leaving), channels in zip(follow(student, shapes, {}), kept, strict=True):
        assert leaving.channels.tolist() == channels.tolist(), context.layer.name
    check_against_masking(teacher, architecture, student, kept)


def test_any_channels_can_be_kept(joined):
    teacher, architecture, student = joined
    keep = {"left": [3, 1], "right": [7, 0, 4], "point": [3, 1, 7, 5], "group": [2, 0, 6, 7]}
    kept = expected_channels(*keep.values())
    check_against_masking(teacher, architecture, student, kept, keep)


def test_the_whole_teacher_is_taken_as_it_stands(joined):
    teacher, architecture, _ = joined
    shapes = {key: tuple(tensor.shape) for key, tensor in teacher.state_dict().items()}
    for parts in plan(architecture, shapes).values():
        assert all(part.is_complete(shapes[part.key], shapes[part.key]) for part in parts.values())


def test_channels_that_the_teacher_lacks_are_initialised_afresh(trained):
    teacher = trained(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)))
    wider = resized(
        trace(teacher, (3, 4, 4)), {"0": (6, {"out_channels": 6}), "1": (6, {"num_features": 6})}
    )
    torch.manual_seed(0)
    student = build(wider, inherit_from=teacher)
    torch.manual_seed(0)
    fresh = nn.Conv2d(3, 6, 3)
    assert torch.equal(student.get_submodule("0").weight[:4], teacher[0].weight)
    assert torch.equal(student.get_submodule("0").weight[4:], fresh.weight[4:])
    assert torch.equal(student.get_submodule("1").running_var[:4], teacher[1].running_var)
    assert torch.equal(student.get_submodule("1").running_var[4:], torch.ones(2))


class OptionA(nn.Module):
    """A shortcut that pads with zero channels."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 1)
        self.conv = nn.Conv2d(4, 8, 3, padding=1)
        self.fc = nn.Linear(8, 2)

    def forward(self, x):
        x = self.stem(x)
        x = nn.functional.pad(x, (0, 0, 0, 0, 2, 2)) + self.conv(x)
        return self.fc(x.mean((2, 3)))


def test_a_sum_with_a_padded_shortcut_has_the_channels_of_its_other_term():
    teacher = OptionA()
    architecture = trace(teacher, (3, 4, 4))
    student = resized(
        architecture,
        {
            "stem": (3, {"out_channels": 3}),
            "conv": (5, {"in_channels": 3, "out_channels": 5}),
            "pad": (5, {"pads": [0, 0, 0, 0, 1, 1]}),
            "add": (5, {}),
            "mean": (5, {}),
            "fc": (2, {"in_features": 5}),
        },
    )
    keep = {"conv": [7, 1, 2, 0, 5]}
    module = build(student, inherit_from=teacher, keep=keep)
    assert torch.equal(module.get_submodule("fc").weight, teacher.fc.weight[:, keep["conv"]])
