"""Tracing whole teachers: the oracles are the teacher's own logits, its tensors, and torch's operation counter."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from raysearch.architecture import Architecture
from raysearch.errors import TraceError, UnsupportedTeacher
from raysearch.models import build, load_teacher, num_parameters, trace

TEACHERS = [
    ("resnet14", (1, 8, 8)),
    ("torchvision:resnet18", (3, 32, 32)),
    ("vgg11", (1, 28, 28)),
    ("torchvision:mobilenet_v2", (3, 33, 47)),
]  # more of torchvision's in tests/acceptance/test_capture.py


@pytest.mark.parametrize(("name", "shape"), TEACHERS)
def test_a_traced_teacher_is_rebuilt_bit_for_bit_with_exact_counts(name, shape, trained):
    teacher = trained(load_teacher(name, num_classes=10, input_shape=shape)).eval()
    architecture = trace(teacher, shape)
    rebuilt = build(architecture, inherit_from=teacher).eval()
    with torch.no_grad():
        for batch in (1, 3):
            images = torch.randn(batch, *shape)
            assert torch.equal(rebuilt(images), teacher(images))
    assert list(rebuilt.state_dict()) == list(teacher.state_dict())
    assert architecture.num_params == num_parameters(teacher)
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        teacher(torch.randn(1, *shape))
    assert architecture.macs * 2 == counter.get_total_flops()
    assert Architecture.from_json(architecture.to_json()) == architecture


def test_the_training_flags_and_the_state_are_left_as_they_were(trained):
    teacher = trained(load_teacher("resnet14", num_classes=10, input_shape=(1, 8, 8))).train()
    teacher.bn1.eval()  # a frozen BatchNorm
    flags = [module.training for module in teacher.modules()]
    state = {key: tensor.clone() for key, tensor in teacher.state_dict().items()}
    trace(teacher, (1, 8, 8))
    assert [module.training for module in teacher.modules()] == flags
    assert all(torch.equal(tensor, state[key]) for key, tensor in teacher.state_dict().items())


def test_tracing_twice_gives_the_same_architecture_whatever_the_weights(trained):
    teacher = load_teacher("resnet14", num_classes=10, input_shape=(1, 8, 8))
    first = trace(teacher, (1, 8, 8))
    assert trace(trained(teacher), (1, 8, 8)) == first


def test_tracing_draws_nothing_from_the_global_generator():
    teacher = load_teacher("resnet14", num_classes=10, input_shape=(1, 8, 8))
    before = torch.get_rng_state()
    trace(teacher, (1, 8, 8))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_data_parallel_wrapper_is_looked_through():
    teacher = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    assert trace(nn.DataParallel(teacher), (3, 2, 2)) == trace(teacher, (3, 2, 2))


def test_a_rebuilt_network_can_be_traced_again():
    teacher = load_teacher("resnet14", num_classes=10, input_shape=(1, 8, 8))
    architecture = trace(teacher, (1, 8, 8))
    again = trace(build(architecture), (1, 8, 8))
    assert again.id == architecture.id


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_teacher_may_have_another_precision(dtype):
    teacher = load_teacher("resnet14", num_classes=10, input_shape=(1, 8, 8)).to(dtype)
    rebuilt = build(trace(teacher, (1, 8, 8)), inherit_from=teacher)
    assert {tensor.dtype for tensor in rebuilt.parameters()} == {dtype}


class Outputs(nn.Module):
    def __init__(self, pack):
        super().__init__()
        self.fc = nn.Linear(4, 3)
        self.pack = pack

    def forward(self, x):
        return self.pack(self.fc(x), x)


@pytest.mark.parametrize(
    ("pack", "index"),
    [
        (lambda logits, x: (x, logits), 1),
        (lambda logits, x: [logits, [x, 3]], 0),
        (lambda logits, x: {"features": x, "logits": logits}, "logits"),
        (lambda logits, _: (logits,), 0),
    ],
)
def test_output_index_picks_one_of_several_outputs(pack, index):
    assert trace(Outputs(pack), (4,), output_index=index).output == "fc"


@pytest.mark.parametrize(
    ("pack", "index", "words"),
    [
        (lambda logits, x: (x, logits), None, "2 outputs [0, 1]"),
        (lambda logits, x: {"a": x, "b": logits}, None, "['a', 'b']"),
        (lambda logits, x: (x, logits), 2, "output_index is 2"),
        (lambda logits, x: {"a": x, "b": logits}, "c", "output_index is 'c'"),
        (lambda logits, _: logits.sum().item(), None, "float"),
        (lambda _, x: x, None, "not computed"),
        (lambda _, __: None, None, "NoneType"),
        (lambda logits, _: str(logits.shape), None, "str"),
    ],
)
def test_an_output_that_is_not_one_tensor_is_refused_in_one_sentence(pack, index, words):
    with pytest.raises(TraceError) as caught:
        trace(Outputs(pack), (4,), output_index=index)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_network_whose_logits_are_not_finite_is_refused():
    teacher = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    nn.init.constant_(teacher[1].weight, float("nan"))
    with pytest.raises(TraceError, match="not finite"):
        trace(teacher, (3, 2, 2))


@pytest.mark.parametrize("shape", [(), (3, 0, 2), (3, -1, 2), 12, ("a",), (2.5,)])
def test_an_input_shape_that_is_none_is_refused(shape):
    with pytest.raises(TraceError, match="input_shape"):
        trace(nn.Flatten(), shape)


def test_what_is_not_a_module_is_refused():
    with pytest.raises(TraceError, match="function"):
        trace(lambda x: x, (3, 2, 2))  # type: ignore[arg-type]


def test_a_random_network_is_refused_because_its_logits_cannot_be_reproduced():
    class Noisy(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 3)

        def forward(self, x):
            return self.fc(nn.functional.dropout(x, 0.5, training=True))

    with pytest.raises(UnsupportedTeacher, match="does not give the teacher's logits"):
        trace(Noisy(), (4,))
