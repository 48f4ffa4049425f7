"""A network around one operation, and what is asked of every teacher that is traced."""

import importlib.util

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from raysearch.architecture import Architecture, SearchSpace
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
