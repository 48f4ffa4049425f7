"""Any channels can be kept: a student is the teacher with all other channels set to zero after every layer."""

import numpy as np
import pytest
import torch
from torch import fx, nn
from torch.nn import functional as F

from raysearch.architecture import Edits, SearchSpace
from raysearch.architecture.channels import analyse
from raysearch.architecture.groups import group_channels
from raysearch.errors import WeightsError
from raysearch.models import build, trace
from raysearch.models.keep import ChannelRanking, best_of_blocks, keep_sets, variable_widths

from .moving import GroupShuffle, Shuffle, exact_networks
from .nets import LeNet, OptionA, PreAct, small_networks

NETWORKS = {**small_networks(), **exact_networks()}


class Masked(fx.Interpreter):
    """Runs the rebuilt teacher and sets all channels of a layer's output to zero but those kept."""

    def __init__(self, architecture, module, keep):
        super().__init__(module)
        nodes = [node for node in module.graph.nodes if node.op != "get_attr"]
        self.layer_of = dict(_nodes(architecture, nodes))
        self.architecture = architecture
        self.keep = keep

    def run_node(self, n):
        value = super().run_node(n)
        name = self.layer_of.get(n)
        if name is None:
            return value
        axis = self.architecture.axis(name) + 1
        mask = torch.zeros(value.shape[axis], dtype=value.dtype)
        mask[self.keep[name].channels] = 1
        return value * mask.view(-1, *[1] * (value.ndim - 1 - axis))


def _nodes(architecture, nodes):
    """The node that computes each layer: sums of slots have nodes of their own before it."""
    left, summed = iter(nodes), set()
    for layer in architecture.layers:
        count = int(layer.op != "identity")
        if layer.op == "add":
            count = len(layer.inputs) - 1
        if layer.op == "permute":
            count += layer.attrs["contiguous"]
        for slot in layer.inputs:
            count += 0 if slot in summed else len(slot) - 1
            summed.add(slot)
        for place in range(count):
            node = next(left)
            if place == count - 1 and layer.op != "identity":
                yield node, layer.name
    assert next(left).op == "output"


def random_scores(architecture, seed):
    rng = np.random.default_rng(seed)
    return [rng.random(variable.size) for variable in analyse(architecture).variables]


def check_student(teacher, architecture, space, edits, scores, images):
    """The student of `edits` against the student with all channels, masked."""
    student = space.apply(edits)
    wide = space.apply(Edits(edits.remove, space.largest().widths, edits.skips))
    keep = keep_sets(student, architecture, scores)
    assert keep.keys() == student.index.keys()
    whole = build(wide, inherit_from=teacher).eval()
    expected = Masked(wide, whole, keep).run(images)
    found = build(student, inherit_from=teacher, keep=keep).eval()(images)
    assert (found - expected).abs().max() <= 1e-9 * expected.abs().max(), edits


@pytest.mark.parametrize("operations", [("shrink",), ("remove", "shrink", "skip")])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_student_is_the_teacher_without_the_other_channels(name, operations, trained):
    make, shape = NETWORKS[name]
    teacher = trained(make()).double().eval()
    architecture = trace(teacher, shape)
    space = SearchSpace(architecture, operations=operations, budget={"params": 0.4})
    images = torch.randn(2, *shape, dtype=torch.float64)
    students = [space.uniform(), space.smallest(), *space.sample(3, seed=0)]
    for seed, edits in enumerate(students):
        scores = random_scores(architecture, seed)
        check_student(teacher, architecture, space, edits, scores, images)


@pytest.mark.parametrize(("make", "groups"), [(Shuffle, 2), (GroupShuffle, 3)])
def test_behind_a_shuffle_channels_are_where_the_shuffle_has_put_them(make, groups):
    architecture = trace(make(), (3, 16, 16))
    space = SearchSpace(architecture, operations=("shrink",), budget={"params": 0.5})

    def shuffled(labels):
        return F.channel_shuffle(torch.as_tensor(labels)[None, :, None, None], groups).flatten()

    checked = 0
    for seed, edits in enumerate(space.sample(3, seed=0)):
        student = space.apply(edits)
        keep = keep_sets(student, architecture, random_scores(architecture, seed))
        for layer in student.layers:
            theirs = architecture[layer.name]
            before = keep[layer.inputs[0][0]].channels if layer.inputs else None
            found = keep[layer.name]
            if layer.op == "channel_shuffle":
                held = shuffled(before).numpy()
                known = held >= 0
                places = shuffled(np.arange(theirs.shape[0])).numpy()[found.channels]
                assert np.array_equal(places[known], held[known])
            elif layer.op == "slice" and (before != np.sort(before)).any():
                held = before[layer.attrs["start"] : layer.attrs["stop"]]
                known = (held >= theirs.attrs["start"]) & (held < theirs.attrs["stop"])
                assert np.array_equal(found.channels[known] + theirs.attrs["start"], held[known])
            else:
                continue
            assert np.array_equal(found.channels >= 0, known)
            assert found.total == theirs.shape[0]
            checked += 1
    assert checked >= 3


def test_without_scores_the_first_channels_of_every_variable_are_kept(trained):
    teacher = trained(OptionA()).double().eval()
    architecture = trace(teacher, (3, 16, 16))
    space = SearchSpace(architecture, operations=("shrink",), budget={"params": 0.3})
    images = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    for edits in space.sample(3, seed=0):
        check_student(teacher, architecture, space, edits, None, images)
    edits = Edits(widths=tuple(2 for _ in space.groups))
    keep = keep_sets(space.apply(edits), architecture)
    # 4 zero channels, the stem's 8, 4 zero channels: two of each are kept
    assert keep["blocks.1.conv2"].channels.tolist() == [0, 1, 4, 5, 12, 13]


def test_every_group_of_a_grouped_convolution_keeps_its_own_best():
    assert best_of_blocks(np.array([3.0, 1, 2, 9, 8, 7]), 4).tolist() == [0, 3, 4, 5]
    assert best_of_blocks(np.array([3.0, 1, 2, 9, 8, 7]), 4, 2).tolist() == [0, 2, 3, 4]


def test_equal_scores_keep_the_first_and_no_number_is_least():
    assert best_of_blocks(np.array([1.0, 1, 1, 1]), 2).tolist() == [0, 1]
    assert best_of_blocks(np.array([np.nan, -5.0, np.inf, -np.inf]), 2).tolist() == [1, 2]


def test_networks_whose_groups_share_a_width_rank_each_variable_for_itself():
    teacher = nn.Sequential(*(nn.Conv2d(n, 6, 3, padding=1) for n in (3, 6, 6)), nn.Flatten())
    teacher.append(nn.Linear(6 * 16, 4))
    architecture = trace(teacher, (3, 4, 4))
    space = SearchSpace(architecture, grouping="by_size")
    student = space.apply(Edits(widths=(2,)))
    best = [(0, 3), (4, 5), (1, 2)]
    sizes = [variable.size for variable in analyse(architecture).variables]
    scores = [np.zeros(size) for size in sizes]
    free = [place for place, size in enumerate(sizes) if size == 6]
    for place, channels in zip(free, best, strict=True):
        scores[place][list(channels)] = 1
    keep = keep_sets(student, architecture, scores)
    assert [tuple(keep[name].channels.tolist()) for name in "012"] == best


def test_the_widths_of_a_student_are_read_from_its_layers():
    for name in ("option_a", "padded", "densenet", "multiplied"):
        make, shape = small_networks()[name]
        architecture = trace(make(), shape)
        space = SearchSpace(architecture)
        group_of = group_channels(analysis := analyse(architecture)).group_of
        for edits in space.sample(3, seed=1):
            found = variable_widths(space.apply(edits), architecture, analysis)
            for width, group, variable in zip(found, group_of, analysis.variables, strict=True):
                assert width == (variable.size if group < 0 else edits.widths[group])


def test_scores_of_another_teacher_are_refused():
    architecture = trace(LeNet(), (3, 16, 16))
    scores = random_scores(architecture, 0)
    with pytest.raises(WeightsError, match="compute them from this teacher"):
        ChannelRanking(architecture, scores[:-1])


def test_a_list_of_the_wrong_length_is_refused():
    teacher = LeNet()
    architecture = trace(teacher, (3, 16, 16))
    with pytest.raises(WeightsError, match="keep lists 2 channels for layer 'conv1', which has 6"):
        build(architecture, inherit_from=teacher, keep={"conv1": [0, 1]})


def test_a_network_of_other_layers_is_refused_as_ever():
    teacher, stranger = PreAct(), trace(LeNet(), (3, 16, 16))
    ranking = ChannelRanking(trace(teacher, (3, 16, 16)))
    with pytest.raises(WeightsError, match=r"have no '(conv1.bias|conv2.bias|fc1.weight)'"):
        build(stranger, inherit_from=teacher, keep=ranking.keep(stranger))
