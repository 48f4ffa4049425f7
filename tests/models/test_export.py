"""Exported students: they are loaded in a process that cannot import raysearch."""

import os
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn

from raysearch.architecture import Architecture, Edits, SearchSpace
from raysearch.errors import WeightsError
from raysearch.models import build, export_student, load_teacher, trace

PREPROCESSING = {"scale": 1 / 16, "mean": [0.3], "std": [0.4]}

READER = """
import sys

sys.modules["raysearch"] = None
import importlib.util
import pathlib

import torch

torch.set_num_threads(1)
for folder in sorted(pathlib.Path(".").iterdir()):
    spec = importlib.util.spec_from_file_location(folder.name, folder / "model.py")
    model = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(model)
    images, logits = torch.load(folder / "expected.pt", weights_only=True)
    student = model.Student().eval()
    assert torch.equal(student(images), logits), (folder, student(images) - logits)
    again = model.Student(weights=str(folder / "weights.safetensors")).eval()
    assert torch.equal(again(images), logits), folder
    fresh = model.Student(weights=None)
    assert list(fresh.state_dict()) == list(student.state_dict()), folder
    assert fresh.train()(images).shape == logits.shape, folder
    print(folder.name)
"""


def is_well_laid_out(path):
    """Whether `ruff format` would leave the sources as they are, and `ruff check` finds nothing."""
    ruff = [sys.executable, "-m", "ruff"]
    common = ["--isolated", "--line-length", "100", str(path)]
    rules = ["--select", "F,E,W,I,B,RET", "--ignore", "E501"]
    for command in ([*ruff, "format", "--diff", *common], [*ruff, "check", *rules, *common]):
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    return True


class Odd(nn.Module):
    """Names and calls that are awkward to write down."""

    def __init__(self):
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(8, 3, 3, 3))
        self.add_module("1", nn.Conv2d(8, 8, 1))
        self.add_module("a-b", nn.Sequential(nn.Conv2d(8, 8, 1, groups=2), nn.BatchNorm2d(8)))
        self.shared = nn.Conv2d(8, 8, 3, padding="same", bias=False)
        self.tied = nn.Conv2d(8, 8, 3, padding=1)
        self.tied.weight = self.shared.weight
        self.head = nn.Linear(16, 5)

    def forward(self, x):
        x = 1 - F.hardtanh(F.conv2d(x, self.kernel), -3.0, float("inf")) * 0.5
        x = x * torch.sigmoid(self.get_submodule("a-b")(self.get_submodule("1")(x)))
        x = self.shared(self.tied(self.shared(x)))
        x = torch.cat((F.adaptive_avg_pool2d(x, 1), x.amax((2, 3), keepdim=True)), 1)
        return F.softmax(self.head(F.dropout(x.flatten(1), 0.1, self.training)), -1)


def a_student(name, shape, **options):
    teacher = load_teacher(name, num_classes=10, input_shape=shape)
    space = SearchSpace(trace(teacher, shape), **options)
    students = [space.apply(edits) for edits in space.sample(8, seed=4)]
    longest = max(students, key=lambda a: max(len(slot) for x in a.layers for slot in x.inputs))
    return longest, build(longest, inherit_from=teacher)


def a_gatherer():
    """Layers that keep some of their inputs: some in a row, and more than fit on a line."""
    teacher = load_teacher("lenet300", num_classes=10, input_shape=(1, 16, 16))
    space = SearchSpace(trace(teacher, (1, 16, 16)))
    inputs = ((space.teacher.index["fc1"], tuple(range(0, 255, 2))), (4, (0, 1, 2, 7, 9, 10)))
    student = space.apply(Edits((), space.largest().widths, (), inputs))
    return student, build(student, inherit_from=teacher)


def students():
    """Name -> (architecture, module): edited networks, long sums, and awkward names."""
    half = {"budget": {"params": 0.5}}
    odd = Odd()
    architecture = trace(odd, (3, 9, 7))
    return {
        "resnet": a_student("resnet14", (1, 8, 8), **half),
        "vgg": a_student("vgg11", (1, 8, 8), **half),
        "mobilenet": a_student("torchvision:mobilenet_v3_small", (3, 32, 32), **half),
        "skips": a_student("resnet14", (1, 8, 8), operations=("skip",)),
        "odd": (architecture, build(architecture, inherit_from=odd)),
        "gatherer": a_gatherer(),
    }


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("students")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    for name, (architecture, module) in students().items():
        images = torch.randn(3, *architecture.input_shape)
        with torch.no_grad():
            logits = module.eval()(images)
        export_student(folder / name, architecture, module)
        torch.save((images, logits), folder / name / "expected.pt")
    return folder


def test_exported_students_give_the_same_logits_where_raysearch_cannot_be_imported(exported):
    done = subprocess.run(
        [sys.executable, "-I", "-c", READER], cwd=exported, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == sorted(path.name for path in exported.iterdir())


def test_exported_sources_are_well_laid_out(exported):
    assert is_well_laid_out(exported)


def test_the_architecture_and_the_weights_alone_give_the_same_logits(exported):
    for folder in exported.iterdir():
        module = build(Architecture.from_json((folder / "architecture.json").read_text()))
        module.load_state_dict(load_file(folder / "weights.safetensors"))
        images, logits = torch.load(folder / "expected.pt", weights_only=True)
        assert torch.equal(module.eval()(images), logits)


def test_half_precision_is_kept(tmp_path):
    teacher = nn.Sequential(nn.Flatten(), nn.Linear(12, 3)).to(torch.bfloat16)
    architecture = trace(teacher, (3, 2, 2))
    module = build(architecture, inherit_from=teacher)
    export_student(tmp_path, architecture, module)
    assert load_file(tmp_path / "weights.safetensors")["1.weight"].dtype is torch.bfloat16
    assert "self.to(torch.bfloat16)" in (tmp_path / "model.py").read_text()


def test_preprocessing_is_part_of_the_source(tmp_path):
    teacher = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    architecture = trace(teacher, (1, 2, 2))
    export_student(tmp_path, architecture, build(architecture), preprocessing=PREPROCESSING)
    assert is_well_laid_out(tmp_path / "model.py")
    names: dict = {"__file__": str(tmp_path / "model.py"), "__name__": "model"}
    exec((tmp_path / "model.py").read_text(), names)
    pixels = torch.randint(0, 17, (5, 1, 2, 2), dtype=torch.uint8)
    torch.testing.assert_close(names["preprocess"](pixels), (pixels / 16 - 0.3) / 0.4)


def test_the_same_student_gives_the_same_files(tmp_path):
    teacher = load_teacher("resnet14", num_classes=10, input_shape=(1, 8, 8))
    architecture = trace(teacher, (1, 8, 8))
    module = build(architecture, inherit_from=teacher)
    for folder in ("a", "b", "b"):
        export_student(tmp_path / folder, architecture, module)
    files = {"architecture.json", "weights.safetensors", "model.py"}
    assert {path.name for path in (tmp_path / "b").iterdir()} == files
    for name in files:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_a_write_that_fails_leaves_the_old_file_and_no_litter(tmp_path, monkeypatch):
    teacher = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    architecture = trace(teacher, (1, 2, 2))
    export_student(tmp_path, architecture, build(architecture))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        export_student(tmp_path, architecture, build(architecture))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_module_of_another_architecture_is_refused(tmp_path):
    small = trace(nn.Sequential(nn.Flatten(), nn.Linear(4, 3)), (1, 2, 2))
    large = trace(nn.Sequential(nn.Flatten(), nn.Linear(4, 5)), (1, 2, 2))
    other = trace(nn.Sequential(nn.Linear(4, 3)), (4,))
    with pytest.raises(WeightsError, match=r"1\.weight"):
        export_student(tmp_path, small, build(large))
    with pytest.raises(WeightsError, match=r"no '1\.weight'"):
        export_student(tmp_path, small, build(other))


def test_a_teacher_is_exported_without_the_parts_that_its_logits_do_not_need(tmp_path):
    class WithHead(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 3)
            self.auxiliary = nn.Linear(4, 2)

        def forward(self, x):
            return (self.fc(x), self.auxiliary(x)) if self.training else self.fc(x)

    teacher = WithHead()
    export_student(tmp_path, trace(teacher, (4,)), nn.DataParallel(teacher))
    assert set(load_file(tmp_path / "weights.safetensors")) == {"fc.weight", "fc.bias"}
