"""Students whose layers keep some of their inputs, as modules: they are the student with the dropped inputs' weights at zero."""

import copy
import importlib.util
import pickle

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from raysearch.architecture import Architecture, Edits, SearchSpace
from raysearch.architecture.channels import analyse
from raysearch.exporting import export
from raysearch.models import build, export_student, keep_sets, num_parameters, trace
from raysearch.models.gather import Gather, runs
from raysearch.models.inherit import descends
from raysearch.models.teachers.lenet import lenet
from tests.measures import peak_bytes
from tests.thinned import thinned

SEEDS = range(20)


class Coloured(nn.Module):
    """A convolution of three colours, a residual sum in front of a linear layer, and one of permuted rows."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.deep = nn.Conv2d(6, 6, 3, padding=1, bias=False)
        self.rows = nn.Linear(6, 12)
        self.fc = nn.Linear(12 * 16, 8)
        self.side = nn.Linear(12 * 16, 8)
        self.logits = nn.Linear(8, 5)

    def forward(self, x):
        x = self.norm(self.stem(x)).relu()
        x = self.rows((x + self.deep(x)).permute(0, 3, 2, 1)).relu().flatten(1)
        return self.logits((self.fc(x) + self.side(x)).relu())


TEACHERS = {
    "lenet300": (lambda: lenet("lenet300", 10, (1, 14, 14)), (1, 14, 14)),
    "lenet5": (lambda: lenet("lenet5", 4, (3, 16, 16)), (3, 16, 16)),
    "coloured": (Coloured, (3, 4, 4)),
}


@pytest.fixture(scope="module")
def teachers():
    """Name -> (teacher in double precision, its space, images)."""
    torch.manual_seed(0)
    found = {}
    for name, (make, shape) in TEACHERS.items():
        teacher = make().double().eval()
        space = SearchSpace(trace(teacher, shape))
        found[name] = (teacher, space, torch.randn(3, *shape, dtype=torch.float64))
    return found


def plain(edits):
    return Edits(edits.remove, edits.widths, edits.skips)


def zeroed(module, space, edits):
    """The module with the weights of the inputs that edits drop at zero."""
    with torch.no_grad():
        for place, kept in edits.inputs:
            weight = module.get_submodule(space.teacher.layers[place].name).weight
            mask = torch.zeros(weight.shape[1], dtype=weight.dtype)
            mask[list(kept)] = 1
            weight *= mask.view(1, -1, *[1] * (weight.ndim - 2))
    return module


@pytest.mark.parametrize("name", TEACHERS)
def test_it_is_the_student_with_the_dropped_inputs_at_zero(name, teachers):
    """With the channels of a ranking, from the teacher's weights; counts are the module's."""
    teacher, space, images = teachers[name]
    sizes = [variable.size for variable in analyse(space.teacher).variables]
    thin = 0
    for seed in SEEDS:
        edits = thinned(space, seed)
        thin += len(edits.inputs)
        student, other = space.apply(edits), space.apply(plain(edits))
        scores = [np.random.default_rng(seed).random(size) for size in sizes]
        keep = keep_sets(student, space.teacher, scores)
        module = build(student, inherit_from=teacher, keep=keep).eval()
        whole = build(other, inherit_from=teacher, keep=keep_sets(other, space.teacher, scores))
        expected = zeroed(whole.eval(), space, edits)(images)
        torch.testing.assert_close(module(images), expected, rtol=1e-9, atol=1e-9)
        assert descends(student, space.teacher)
        assert num_parameters(module) == student.num_params == space.num_params(edits)[0]
        with FlopCounterMode(display=False) as counter:
            module(images[:1])
        assert counter.get_total_flops() == 2 * student.macs
        assert list(module.state_dict()) == list(whole.state_dict())
    assert thin > 20


@pytest.mark.parametrize("name", TEACHERS)
def test_its_own_weights_are_taken_over_as_they_stand(name, teachers):
    """As from a checkpoint, into a module that is made anew; through copies and pickles, and in another precision."""
    teacher, space, images = teachers[name]
    student = space.apply(thinned(space, 1))
    module = build(student, inherit_from=teacher).eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    logits = module(images)
    again = build(Architecture.from_json(student.to_json()), inherit_from=module.state_dict())
    loaded = build(student)
    loaded.load_state_dict({key: value.float() for key, value in module.state_dict().items()})
    for other in (again, copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert torch.equal(other.eval()(images), logits)
        assert list(other.state_dict()) == list(module.state_dict())
    torch.testing.assert_close(loaded.eval()(images.float()).double(), logits, rtol=1e-4, atol=1e-4)
    loaded.train()(images.float()).sum().backward()
    assert all(parameter.grad is not None for parameter in loaded.parameters())


@pytest.mark.parametrize("name", TEACHERS)
def test_counted_memory_is_what_a_pass_holds(name, teachers):
    _, space, images = teachers[name]
    for seed in range(4):
        student = space.apply(thinned(space, seed))
        module = build(student).eval()
        peak = peak_bytes(module, images[:1].float())
        state = [*module.parameters(), *module.buffers()]
        weights = sum(tensor.numel() * tensor.element_size() for tensor in state)
        assert (student.peak_memory_bytes, student.memory_bytes) == (peak, peak + weights)


@pytest.mark.parametrize("name", TEACHERS)
def test_a_built_student_can_be_traced(name, teachers):
    teacher, space, images = teachers[name]
    module = build(space.apply(thinned(space, 2)), inherit_from=teacher).eval()
    traced = trace(module, tuple(images.shape[1:]))
    assert traced.num_params == num_parameters(module)
    torch.testing.assert_close(build(traced, inherit_from=module).eval()(images), module(images))


@pytest.mark.parametrize("name", TEACHERS)
def test_exports_give_the_same_logits(name, teachers, tmp_path):
    """`model.py` loads its weights strictly; `export` itself compares what it wrote with the student, at two batch sizes."""
    teacher, space, images = teachers[name]
    student = space.apply(thinned(space, 3))
    module = build(student, inherit_from=teacher).float().eval()
    folder = tmp_path / "student"
    export_student(folder, student, module)
    spec = importlib.util.spec_from_file_location("generated", folder / "model.py")
    generated = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generated)
    with torch.no_grad():
        assert torch.equal(generated.Student().eval()(images.float()), module(images.float()))
    lines = (folder / "model.py").read_text().splitlines()
    assert max(map(len, lines)) <= 100
    assert list(generated.Student(weights=None).state_dict()) == list(module.state_dict())
    assert export(folder, "torch", tmp_path / "student.pt2").difference < 1e-6
    assert export(folder, "onnx", tmp_path / "student.onnx").difference < 1e-5


def test_places_are_written_as_runs():
    assert runs([0, 1, 2, 5, 7, 8]) == "0-2 5 7-8"
    kept = [3, 4, 9]
    assert Gather(1, kept)(torch.arange(24).view(2, 12)).tolist() == [[3, 4, 9], [15, 16, 21]]
