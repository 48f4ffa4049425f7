"""Networks that move channels: what they are traced to, and that every student of theirs is right."""

import importlib.util
from functools import cache

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from raysearch.architecture import Architecture, Edits, SearchSpace
from raysearch.architecture.encoding import ALL_TYPES, encode_architecture
from raysearch.errors import UnsupportedTeacher
from raysearch.models import build, export_student, num_parameters, trace
from tests.measures import peak_bytes
from tests.models.moving import Shuffle, all_networks

SHAPE = (3, 16, 16)
NETWORKS = all_networks()


@cache
def traced_network(name):
    torch.manual_seed(0)
    make, shape = NETWORKS[name]
    teacher = make().eval()
    return teacher, trace(teacher, shape)


@pytest.fixture(params=NETWORKS)
def traced(request):
    return traced_network(request.param)


def test_the_teacher_is_rebuilt_bit_for_bit(traced):
    teacher, architecture = traced
    rebuilt = build(architecture, inherit_from=teacher).eval()
    with torch.no_grad():
        for batch in (1, 3):
            images = torch.randn(batch, *SHAPE)
            assert torch.equal(rebuilt(images), teacher(images))
    assert architecture.num_params == num_parameters(teacher)
    assert set(rebuilt.state_dict()) == set(teacher.state_dict())
    assert Architecture.from_json(architecture.to_json()) == architecture


def test_random_students_train_and_have_the_counts_that_were_predicted(traced):
    teacher, architecture = traced
    for grouping in ("coupled", "by_size"):
        space = SearchSpace(architecture, grouping=grouping)
        batch = space.sample(4, seed=0)
        params, macs, memory = space.num_params(batch), space.macs(batch), space.memory(batch)
        encoded = space.encode(batch, types=ALL_TYPES)
        for row, edits in enumerate(batch):
            student = space.apply(edits)
            assert Architecture.from_json(student.to_json()) == student
            assert (student.num_params, student.macs) == (params[row], macs[row])
            assert student.memory_bytes == memory[row]
            assert np.array_equal(encode_architecture(student, types=ALL_TYPES), encoded[row])
            module = build(student, inherit_from=teacher).train()
            assert num_parameters(module) == student.num_params
            logits = module(torch.randn(4, *SHAPE))
            assert logits.shape == (4, 10)
            logits.square().sum().backward()
            assert all(parameter.grad is not None for parameter in module.parameters())
            counter = FlopCounterMode(display=False)
            with counter, torch.no_grad():
                module.eval()(torch.randn(1, *SHAPE))
            assert counter.get_total_flops() == 2 * student.macs


def test_the_generated_source_gives_the_same_logits(traced, tmp_path):
    teacher, architecture = traced
    space = SearchSpace(architecture)
    student = space.apply(space.sample(1, seed=1)[0])
    module = build(student, inherit_from=teacher).eval()
    export_student(tmp_path, student, module)
    spec = importlib.util.spec_from_file_location("student", tmp_path / "model.py")
    source = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(source)
    images = torch.randn(2, *SHAPE)
    with torch.no_grad():
        assert torch.equal(source.Student().eval()(images), module(images))


def test_counted_memory_is_what_a_pass_holds(traced):
    architecture = traced[1]
    space = SearchSpace(architecture)
    for network in (architecture, *(space.apply(edits) for edits in space.sample(2, seed=0))):
        peak = peak_bytes(build(network).eval(), torch.zeros(1, *SHAPE))
        strided = any("strided" in layer.attrs for layer in network.layers)
        # students of one channel may lie densely where their teacher did not, and need no copies then
        assert peak == network.peak_memory_bytes or (strided and peak < network.peak_memory_bytes)


def test_only_what_mixes_channels_is_frozen():
    frozen = {}
    for name in NETWORKS:
        space = SearchSpace(traced_network(name)[1])
        frozen[name] = [g.size for g in space.frozen_groups if g.size not in (3, 10)]
    # ECA convolves over the channels, CBAM reduces over them; all others keep every channel free
    assert frozen.pop("EfficientAttention") == [12, 1, 1]
    assert frozen.pop("PlaceAttention") == [12, 1, 16, 2, 1]
    assert not any(frozen.values())


def test_stacked_branches_share_their_channels_with_the_weights_of_their_attention():
    groups = SearchSpace(traced_network("SelectiveKernel")[1]).groups
    assert {g.size: set(g.producers) for g in groups} == {
        8: {"stem.0"},
        12: {"near.0", "far.0", "weigh"},
        6: {"squeeze"},
    }


def test_a_shuffle_by_hand_is_one_layer_like_torchs_own():
    class Own(Shuffle):
        def shuffle(self, x):
            return nn.functional.channel_shuffle(x, self.groups)

    class Flattened(Shuffle):
        def shuffle(self, x):
            return x.unflatten(1, (self.groups, -1)).permute(0, 2, 1, 3, 4).flatten(1, 2)

    found = [trace(make(), SHAPE) for make in (Shuffle, Own, Flattened)]
    assert [layer.op for layer in found[0].layers].count("channel_shuffle") == 2
    assert found[0].id == found[1].id == found[2].id


def test_widths_of_shuffled_channels_are_multiples_of_the_groups():
    space = SearchSpace(traced_network("Shuffle")[1], operations=("shrink",))
    shuffled = [group for group in space.groups if group.size == 8 and "stem.0" in group.producers]
    assert sorted(group.alignment for group in shuffled) == [1, 2]  # one half only is shuffled


def test_slices_follow_the_widths():
    space = SearchSpace(traced_network("CrossStage")[1], operations=("shrink",))
    widths = {"block.1.0": 3, "block.0.0": 5, "last.0": 7}
    left = [
        3 if "block.1.0" in g.producers else widths.get(g.producers[0], 5) for g in space.groups
    ]
    student = space.apply(Edits(widths=tuple(left)))
    cuts = [layer.attrs for layer in student.layers if layer.op == "slice"]
    assert [(cut["start"], cut["stop"]) for cut in cuts] == [(0, 5), (5, 8)]
    assert student["stem.0"].attrs["out_channels"] == 8


class Moved(nn.Module):
    """A convolution, something that is done to its map, and a head for whatever comes of it."""

    def __init__(self, move, features):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.fc = nn.Linear(features, 5)
        self.move = move

    def forward(self, x):
        return self.fc(self.move(self.conv(x)).flatten(1))


MOVES = {
    "chunks of different sizes": (lambda x: torch.cat(x.chunk(3, 1)[::2], 1), 5 * 36),
    "tensor_split": (lambda x: x.tensor_split((3, 5), dim=1)[1], 2 * 36),
    "split over places": (lambda x: x.split([2, 4], -1)[0], 8 * 12),
    "negative ends": (lambda x: x[:, -3:, 1:-1], 3 * 24),
    "every second channel": (lambda x: x[:, ::2], 4 * 36),
    "one channel": (lambda x: x[:, 3], 36),
    "unbound halves": (
        lambda x: torch.maximum(*x.unflatten(1, (2, -1)).unbind(1)),
        4 * 36,
    ),
    "one row": (lambda x: x[..., 2, :], 8 * 6),
    "a new axis": (lambda x: x[:, None].sum(1), 8 * 36),
    "moveaxis": (lambda x: x.moveaxis((2, 3), (1, 2)).amax((1, 2)), 8),
    "space to depth": (
        lambda x: x.view(-1, 8, 3, 2, 3, 2).permute(0, 1, 3, 5, 2, 4).reshape(-1, 32, 3, 3),
        32 * 9,
    ),
    "depth to space": (
        lambda x: x.view(-1, 2, 2, 2, 6, 6).permute(0, 1, 4, 2, 5, 3).reshape(-1, 2, 12, 12),
        2 * 144,
    ),
    "flatten from the last axis": (lambda x: x.permute(0, 2, 3, 1).reshape(x.shape[0], -1), 288),
    "a softmax over places": (lambda x: x.flatten(2).softmax(-1), 288),
    "expanded before a product": (
        lambda x: x * x.mean((2, 3), keepdim=True).expand(-1, -1, 6, 6),
        288,
    ),
    "squeezed and unsqueezed": (lambda x: x.mean((2, 3), keepdim=True).squeeze()[..., None], 8),
}


@pytest.mark.parametrize("name", MOVES)
def test_a_move_is_traced_and_its_students_are_the_teacher_without_channels(name):
    teacher = Moved(*MOVES[name]).eval()
    architecture = trace(teacher, (3, 6, 6))
    space = SearchSpace(architecture, operations=("shrink",))
    for edits in [space.smallest(), *space.sample(3, seed=0)]:
        student = space.apply(edits)
        module = build(student, inherit_from=teacher)
        assert num_parameters(module) == student.num_params == space.num_params(edits)[0]
        assert module(torch.randn(2, 3, 6, 6)).shape == (2, 5)
    every_second = name == "every second channel"
    assert len(space.groups) == 0 if every_second else len(space.groups) > 0


BATCH_MOVES = {
    "transposed and back": lambda x: x.transpose(0, 1).transpose(0, 1),
    "permuted and back": lambda x: x.permute(1, 0, 2, 3).permute(1, 0, 2, 3),
    "merged with the channels": lambda x: x.reshape(-1, 4, 6, 6).relu().reshape(-1, 8, 36),
    "stacked before": lambda x: torch.stack([x, x], 0).sum(0),
}


@pytest.mark.parametrize("name", BATCH_MOVES)
def test_moves_of_the_batch_axis_that_are_undone_keep_all_channels(name):
    teacher = Moved(BATCH_MOVES[name], 288).eval()
    architecture = trace(teacher, (3, 6, 6))
    assert SearchSpace(architecture).groups == ()
    images = torch.randn(3, 3, 6, 6)
    rebuilt = build(architecture, inherit_from=teacher).eval()
    assert torch.equal(rebuilt(images), teacher(images))


@pytest.mark.parametrize("move", [lambda x: x[:2], lambda x: x.roll(1, 0), lambda x: x[::2]])
def test_moves_of_the_batch_axis_are_refused(move):
    with pytest.raises(UnsupportedTeacher):
        trace(Moved(move, 288), (3, 6, 6))


def test_a_write_into_a_slice_is_never_a_wrong_student():
    class Written(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 3)
            self.fc = nn.Linear(8, 5)

        def forward(self, x):
            x = self.conv(x)
            x[:, :4].mul_(2.0)
            return self.fc(x.mean((2, 3)))

    teacher = Written().eval()
    images = torch.randn(3, 3, 6, 6)
    rebuilt = build(trace(teacher, (3, 6, 6)), inherit_from=teacher).eval()
    assert torch.equal(rebuilt(images), teacher(images))
