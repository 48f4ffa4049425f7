"""Building modules: fresh ones, teachers again, and random students of a search space."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from raysearch.architecture import Architecture, Layer, SearchSpace
from raysearch.errors import InvalidArchitecture, WeightsError
from raysearch.models import build, load_teacher, num_parameters, trace

SHAPE = (1, 8, 8)


@pytest.fixture(scope="module")
def teacher():
    torch.manual_seed(1)
    return load_teacher("resnet14", num_classes=10, input_shape=SHAPE)


@pytest.fixture(scope="module")
def space(teacher):
    return SearchSpace(trace(teacher, SHAPE), budget={"params": 0.3})


def test_every_random_student_builds_trains_and_has_the_counts_that_were_predicted(teacher, space):
    images = torch.randn(4, *SHAPE)
    for edits in space.sample(20, seed=0):
        student = space.apply(edits)
        for module in (build(student), build(student, inherit_from=teacher)):
            logits = module.train()(images)
            assert logits.shape == (4, 10)
            logits.square().sum().backward()
            assert all(parameter.grad is not None for parameter in module.parameters())
            assert num_parameters(module) == student.num_params
            assert list(module.state_dict()) == [
                key for key in teacher.state_dict() if key in module.state_dict()
            ]
        counter = FlopCounterMode(display=False)
        with counter, torch.no_grad():
            module.eval()(images[:1])
        assert counter.get_total_flops() == 2 * student.macs


def test_the_rebuilt_teacher_trains_like_the_teacher(teacher):
    ours, theirs = build(trace(teacher, SHAPE), inherit_from=teacher), copy.deepcopy(teacher)
    images, labels = torch.randn(8, *SHAPE), torch.arange(8)
    for module in (ours, theirs):
        module.train()
        optimiser = torch.optim.SGD(module.parameters(), lr=0.1)
        for _ in range(2):
            optimiser.zero_grad()
            nn.functional.cross_entropy(module(images), labels).backward()
            optimiser.step()
    for key, tensor in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[key], tensor)


def test_a_module_pickles_deep_copies_and_serves_again_as_a_source(space, teacher):
    student = space.apply(space.sample(1, seed=3)[0])
    module = build(student, inherit_from=teacher).eval()
    images = torch.randn(2, *SHAPE)
    logits = module(images)
    for again in (
        pickle.loads(pickle.dumps(module)),
        copy.deepcopy(module),
        build(student, inherit_from=module),
        build(Architecture.from_json(student.to_json()), inherit_from=module.state_dict()),
    ):
        assert list(again.state_dict()) == list(module.state_dict())
        assert torch.equal(again.eval()(images), logits)


def test_a_student_shares_no_memory_with_the_teacher(teacher):
    module = build(trace(teacher, SHAPE), inherit_from=teacher)
    before = teacher.conv1.weight.clone()
    with torch.no_grad():
        for tensor in module.state_dict().values():
            tensor.zero_()
    assert torch.equal(teacher.conv1.weight, before)
    assert all(parameter.requires_grad for parameter in module.parameters())


def test_a_fresh_module_is_initialised_by_torch_and_follows_the_seed(space):
    student = space.teacher
    states = []
    for seed in (5, 5, 6):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            states.append(build(student).state_dict())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert not torch.equal(states[0]["conv1.weight"], states[2]["conv1.weight"])
    torch.manual_seed(5)
    assert torch.equal(states[0]["conv1.weight"], nn.Conv2d(1, 16, 3, bias=False).weight)


def test_inheriting_everything_draws_no_random_numbers(teacher, space):
    before = torch.get_rng_state()
    build(space.teacher, inherit_from=teacher)
    assert torch.equal(torch.get_rng_state(), before)


def test_activations_are_out_of_place_so_that_any_tensor_can_be_read_again():
    class InPlace(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3, padding=1)
            self.act = nn.ReLU(inplace=True)
            self.conv2 = nn.Conv2d(4, 4, 3, padding=1)
            self.fc = nn.Linear(4, 2)

        def forward(self, x):
            return self.fc(self.conv2(self.act(self.conv(x))).mean((2, 3)))

    module = InPlace().eval()
    architecture = trace(module, (3, 6, 6))
    layers = [
        Layer(layer.name, layer.op, (("act", "conv"),), layer.attrs, layer.shape, layer.params)
        if layer.name == "conv2"
        else layer
        for layer in architecture.layers
    ]
    student = build(Architecture((3, 6, 6), tuple(layers), "fc"), inherit_from=module).eval()
    images = torch.randn(2, 3, 6, 6)
    before = module.conv(images)
    expected = module.fc(module.conv2(before.relu() + before).mean((2, 3)))
    torch.testing.assert_close(student(images), expected)


def test_a_free_chain_without_parameter_names_takes_those_of_its_layers():
    layers = (
        Layer("x", "input", shape=(4,)),
        Layer(
            "a.b", "linear", (("x",),), {"in_features": 4, "out_features": 3, "bias": True}, (3,)
        ),
        Layer("act", "unary", (("a.b",),), {"fn": "relu", "args": [], "kwargs": {}}, (3,)),
    )
    module = build(Architecture((4,), layers, "act"))
    assert list(module.state_dict()) == ["a.b.weight", "a.b.bias"]
    assert module(torch.randn(2, 4)).shape == (2, 3)


def test_weights_of_another_network_are_refused_with_the_missing_name(teacher, space):
    state = dict(teacher.state_dict())
    del state["stages.1.0.conv1.weight"]
    with pytest.raises(WeightsError, match=r"stages\.1\.0\.conv1\.weight"):
        build(space.teacher, inherit_from=state)
    with pytest.raises(WeightsError, match="have no"):
        build(space.teacher, inherit_from={})


PLAIN = {"fn": "relu", "args": [], "kwargs": {}}


@pytest.mark.parametrize(
    ("name", "op", "attrs"),
    [
        ("y", "unary", {**PLAIN, "fn": "system"}),
        ("y", "unary", {**PLAIN, "kwargs": {"inplace=print(1), x": 1}}),
        ("y", "binary", {"fn": "eval"}),
        ("y", "dropout", {"fn": "fancy", "p": 0.5}),
        ("y", "reduce", {"fn": "load", "dims": [0], "keepdim": True}),
        ("y", "adaptive_pool", {"kind": "x", "output_size": [1]}),
        ('0"), print("', "dropout", {"fn": "dropout", "p": 0.5}),
    ],
)
def test_an_architecture_cannot_name_code_that_is_not_in_the_tables(name, op, attrs):
    slots = (("x",), ("x",)) if op == "binary" else (("x",),)
    layers = (Layer("x", "input", shape=(4,)), Layer(name, op, slots, attrs, (4,)))
    with pytest.raises(InvalidArchitecture):
        build(Architecture((4,), layers, name))
