"""Counted memory against the tensors that a pass really holds."""

import pytest
import torch
from torch import nn

from raysearch.architecture import Architecture, Layer, SearchSpace
from raysearch.models import build, load_teacher, trace
from tests.measures import peak_bytes


@pytest.mark.parametrize("name", ["resnet14", "torchvision:mobilenet_v3_small"])
def test_counted_memory_is_what_a_pass_holds(name):
    shape = (3, 32, 32)
    teacher = trace(load_teacher(name, num_classes=10, input_shape=shape), shape)
    space = SearchSpace(teacher)
    students = [space.apply(edits) for edits in space.sample(4, seed=0)]
    for architecture in (teacher, *students):
        module = build(architecture).eval()
        peak = peak_bytes(module, torch.zeros(1, *shape))
        assert architecture.peak_memory_bytes == peak
        state = [*module.parameters(), *module.buffers()]
        weights = sum(tensor.numel() * tensor.element_size() for tensor in state)
        assert architecture.memory_bytes == peak + weights


def test_equal_sums_in_front_of_two_layers_are_two_tensors():
    """One that both share would live until the second, which is not what is counted."""
    shape = (3, 8, 8)
    layers = [Layer("x", "input", shape=shape)]
    for name in "abcd":
        slot = ("a", "b") if name in "cd" else ("x",)
        attrs = {"fn": "relu", "args": [], "kwargs": {}}
        layers.append(Layer(name, "unary", (slot,), attrs, shape))
    layers.append(Layer("e", "add", (("c",), ("d",)), {}, shape))
    architecture = Architecture(shape, tuple(layers), "e")
    assert architecture.peak_memory_bytes == peak_bytes(build(architecture), torch.zeros(1, *shape))


class Permuted(nn.Module):
    """A linear layer that reads a tensor whose axes were permuted, as it is."""

    def __init__(self, width, dims, *, bias):
        super().__init__()
        self.conv, self.dims = nn.Conv2d(3, width, 3, padding=1), dims
        self.wide = nn.Linear(width, 12, bias=bias)
        self.fc = nn.Linear(12, 4)

    def forward(self, x):
        x = self.wide(self.conv(x).permute(self.dims))
        return self.fc(x.relu().mean((1, 2)))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dims", [(0, 2, 3, 1), (0, 3, 2, 1)], ids=["view", "copy"])
def test_a_linear_layer_of_a_permuted_tensor_holds_what_torch_holds(dims, bias):
    shape = (3, 6, 5)
    teacher = trace(Permuted(8, dims, bias=bias).eval(), shape)
    space = SearchSpace(teacher)
    batch = space.sample(4, seed=0)
    students = [space.apply(edits) for edits in batch]
    assert space.memory(batch).tolist() == [student.memory_bytes for student in students]
    for architecture in (teacher, *(s for s in students if s["conv"].shape[0] > 1)):
        peak = peak_bytes(build(architecture).eval(), torch.zeros(1, *shape))
        assert architecture.peak_memory_bytes == peak


def test_a_wide_linear_layer_of_a_permuted_tensor_is_traced_bit_for_bit():
    """A copy in front of it would let torch add the bias within the product, in another order."""
    assert trace(Permuted(1024, (0, 2, 3, 1), bias=True).eval(), (3, 6, 5))["wide"].op == "linear"


@pytest.mark.parametrize("move", ["add", "sort", "none"])
def test_a_norm_that_lays_a_tensor_out_anew_stays(move):
    """Without it the linear layer would read a permuted tensor; what an opaque layer makes may be one."""

    class Rows(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.LayerNorm(8)
            self.wide, self.fc = nn.Linear(8, 8), nn.Linear(8, 4)

        def forward(self, x):
            x = self.conv(x).permute(0, 2, 3, 1)
            if move == "none":
                x = x.contiguous()
            x = torch.sort(x, dim=1)[0] if move == "sort" else x + x.relu()
            return self.fc(self.wide(self.norm(x)).mean((1, 2)))

    teacher = trace(Rows().eval(), (3, 6, 5))
    removable = {teacher.layers[place].name for place in SearchSpace(teacher).removable}
    assert ("norm" in removable) == (move == "none")
