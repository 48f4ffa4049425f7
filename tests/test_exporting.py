"""Exports of finished students: read back by what is not ours, and compared with the student's own logits."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from torch import nn

import raysearch
from raysearch import cli, exporting
from raysearch.architecture import SearchSpace
from raysearch.errors import ConfigError, ExportError, InputError, WeightsError
from raysearch.models import build, export_student, formats, load_teacher, trace
from raysearch.models.tracing.capture import reason

SHAPE = (1, 8, 8)
PREPROCESSING = {"scale": 1 / 16, "mean": [0.3], "std": [0.4]}
BATCHES = (1, 2, 5)


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def student():
    """A student with removed layers, odd widths and skips: (architecture, module)."""
    torch.manual_seed(0)
    teacher = load_teacher("resnet14", num_classes=10, input_shape=SHAPE)
    space = SearchSpace(trace(teacher, SHAPE), budget={"params": 0.3})
    students = [space.apply(edits) for edits in space.sample(8, seed=4)]
    longest = max(students, key=lambda a: max(len(slot) for x in a.layers for slot in x.inputs))
    return longest, build(longest, inherit_from=teacher).eval()


@pytest.fixture
def run(student, tmp_path):
    """The folder of a finished run, as far as export reads it."""
    folder = tmp_path / "run"
    for name in ("001", "002"):
        export_student(folder / "students" / name, *student, preprocessing=PREPROCESSING)
    (folder / "best").symlink_to("students/001")
    (folder / "data.json").write_text(json.dumps({"preprocessing": PREPROCESSING}))
    return folder


def answers(student):
    """Images and the trained student's logits, for each batch size."""
    images = [torch.randn(batch, *SHAPE) for batch in BATCHES]
    with torch.no_grad():
        return [(x, student[1](x)) for x in images]


def command(monkeypatch, capsys, *arguments):
    """The exit status and what was printed."""
    monkeypatch.setattr(sys, "argv", ["raysearch", "export", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return ended.value.code, *capsys.readouterr()


def test_a_program_gives_the_students_logits_for_any_batch(student, run, monkeypatch, capsys):
    status, text, _ = command(monkeypatch, capsys, run, "--format", "torch")
    path = run / "export" / "student-001.pt2"
    assert status == 0
    assert f"written: {path}" in text
    assert "mean [0.3]" in text
    notes = {"preprocessing.json": ""}
    program = torch.export.load(path, extra_files=notes).module()
    for images, logits in answers(student):
        assert torch.equal(program(images), logits)
    assert json.loads(notes["preprocessing.json"])["std"] == [0.4]
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_an_onnx_file_gives_the_students_logits_for_any_batch(student, run):
    onnx = pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    done = raysearch.export(run, "onnx", run / "student.onnx", student="2")
    session = runtime.InferenceSession(str(run / "student.onnx"))
    for images, logits in answers(student):
        (found,) = session.run(None, {"images": images.numpy()})
        np.testing.assert_allclose(found, logits.numpy(), rtol=0, atol=1e-5 * logits.abs().max())
    (notes,) = [p for p in onnx.load(done.path).metadata_props if p.key == "preprocessing"]
    assert json.loads(notes.value)["mean"] == [0.3]
    assert done.size_bytes == done.path.stat().st_size


def test_the_source_is_used_from_its_folder_without_raysearch(student, run, tmp_path):
    done = raysearch.Student(run / "best", {}).export("source", tmp_path / "mine")
    assert {file.name for file in done.path.iterdir()} == {
        "architecture.json",
        "model.py",
        "weights.safetensors",
    }
    torch.save(answers(student), tmp_path / "answers.pt")
    script = f"""
import sys
sys.modules["raysearch"] = None
import torch
torch.set_num_threads(1)
{done.load}
for images, logits in torch.load("answers.pt", weights_only=True):
    assert torch.equal(model(images), logits)
"""
    read = subprocess.run(
        [sys.executable, "-I", "-c", script], cwd=tmp_path, capture_output=True, text=True
    )
    assert read.returncode == 0, read.stderr


def test_a_student_that_left_its_run_keeps_its_preprocessing(run, tmp_path):
    alone = tmp_path / "alone"
    (run / "students" / "002").rename(alone)
    done = raysearch.export(alone, "source")
    assert done.path == alone / "export" / "student"
    assert done.takes.endswith("with scale 0.0625, mean [0.3], std [0.4]")
    assert (done.path / "model.py").read_text() == (alone / "model.py").read_text()


def test_an_existing_folder_gets_the_file_and_a_former_export_is_replaced(run, tmp_path):
    (tmp_path / "student-001.pt2").write_text("old")
    done = raysearch.export(run, "torch", tmp_path)
    assert done.path == tmp_path / "student-001.pt2"
    assert done.path.stat().st_size == done.size_bytes > 1000


def test_a_students_number_may_be_a_number(run):
    assert raysearch.export(run, "torch", student=2).path.name == "student-002.pt2"


class Off(nn.Module):
    """A network whose logits are a little off."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, x):
        return self.module(x) * 1.0001


def test_what_differs_from_the_student_is_thrown_away(run, tmp_path, monkeypatch, capsys):
    honest = formats.FORMATS["source"]
    broken = formats.Format("", honest.write, lambda path: Off(honest.read(path)), "")
    monkeypatch.setattr(formats, "FORMATS", {"source": broken})
    monkeypatch.setattr(exporting, "FORMATS", {"source": broken})
    target = tmp_path / "out" / "student"
    status, text, error = command(
        monkeypatch, capsys, run, "--format", "source", "--output", target
    )
    assert status == 1
    assert not text
    assert "differ" in error
    assert error.count("\n") == 1
    assert not list((tmp_path / "out").iterdir())


class Centred(nn.Module):
    """Its logits are small differences of large numbers, so that they are mostly what float32 rounds."""

    def __init__(self, big):
        super().__init__()
        self.head = nn.Linear(16, 3)
        self.big = nn.Parameter(torch.tensor(big))

    def forward(self, x):
        return (self.head(x.flatten(1)) + self.big) - self.big


def shifted(by):
    """The honest reading of the source with another constant added."""
    honest = formats.FORMATS["source"]

    def read(path):
        module = honest.read(path)
        return lambda images: module(images) + by

    return {"source": formats.Format("", honest.write, read, "")}


@pytest.mark.parametrize(
    ("big", "share", "good"),
    [(0.0, 5e-5, False), (0.0, 5e-6, True), (300.0, 2e-5, True), (300.0, 1e-3, False)],
)
def test_what_rounding_explains_is_no_difference(tmp_path, monkeypatch, big, share, good):
    """The bound follows the network's own rounding, here of about 300 * 2 ** -24 = 2e-5."""
    torch.manual_seed(0)
    teacher = Centred(big)
    with torch.no_grad():
        teacher.head.bias.copy_(torch.tensor([0.3, -0.7, 1.0]))
        teacher.head.weight.mul_(0.01)
    architecture = trace(teacher, (1, 4, 4))
    export_student(tmp_path, architecture, build(architecture, inherit_from=teacher))
    monkeypatch.setattr(exporting, "FORMATS", shifted(share))
    if good:
        assert raysearch.export(tmp_path, "source").difference == pytest.approx(share, rel=0.6)
    else:
        with pytest.raises(ExportError, match="differ"):
            raysearch.export(tmp_path, "source")


def test_an_exporters_reason_is_that_of_its_innermost_error(run, tmp_path, monkeypatch):
    def fail(*_, **__):
        try:
            raise LookupError(
                "No ONNX function found for aten.adaptive_max_pool2d\nFailure message: x"
            )
        except LookupError as error:
            story = "Failed to convert. \x1b[96mThis is step 3/3\x1b[0m"
            raise RuntimeError(story) from error

    monkeypatch.setattr(torch.export, "export", fail)
    with pytest.raises(ExportError) as caught:
        raysearch.export(run, "torch", tmp_path / "out.pt2")
    assert "(LookupError: No ONNX function found for aten.adaptive_max_pool2d)" in str(caught.value)


def test_no_colours_are_left_in_a_reason():
    assert reason(ValueError("\x1b[31m\nred\x1b[0m thing")) == "ValueError: red thing"


def test_an_exporter_that_fails_is_one_sentence_and_leaves_nothing(run, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise ValueError("no such operator\nand a long story")

    monkeypatch.setattr(torch.export, "export", fail)
    with pytest.raises(ExportError, match=r"ValueError: no such operator\), so nothing"):
        raysearch.export(run, "torch", tmp_path / "out.pt2")
    assert not list(tmp_path.glob("*.pt2"))


@pytest.mark.skipif(find_spec("onnx") is None, reason="asks for a package that is there")
def test_a_precision_that_onnx_cannot_be_checked_in_is_refused(tmp_path):
    teacher = nn.Sequential(nn.Flatten(), nn.Linear(12, 3)).to(torch.bfloat16)
    architecture = trace(teacher, (3, 2, 2))
    export_student(tmp_path, architecture, build(architecture, inherit_from=teacher))
    with pytest.raises(ConfigError, match="bfloat16"):
        raysearch.export(tmp_path, "onnx")
    assert raysearch.export(tmp_path, "torch").difference == 0


def unfinished(run):
    for name in ("001", "002"):
        for file in (run / "students" / name).iterdir():
            file.unlink()
    (run / "config.yaml").write_text("{}")


def spoil(file, content):
    def change(run):
        (run / "students" / "001" / file).write_bytes(content)

    return change


BAD = {
    "unknown format": (None, ["--format", "onxx"], ["format", "onxx", "onnx, torch, source"]),
    "unfinished run": (unfinished, [], ["run", "no finished student", "not finished"]),
    "unknown student": (None, ["--student", "007"], ["student", "'007'", "001, 002"]),
    "student 0": (None, ["--student", "0"], ["student", "'0'", "001, 002"]),
    "student that is a path": (None, ["--student", "../x"], ["student", "'../x'"]),
    "output below a file": (None, ["--output", "run/data.json/x"], ["output", "data.json"]),
    "output that is a file": (None, ["--output", "run/data.json"], ["output", "give a folder"]),
    "output that is the student": (None, ["--output", "run/students/001"], ["the student itself"]),
    "broken architecture": (
        spoil("architecture.json", b'{"version": 1'),
        [],
        ["001/architecture.json"],
    ),
    "architecture that is no text": (spoil("architecture.json", b"\xff\xfe"), [], ["001"]),
    "broken weights": (spoil("weights.safetensors", b"junk"), [], ["weights.safetensors"]),
    "no format": (None, ["--format", ""], ["format", "onnx, torch, source"]),
    "data.json without preprocessing": (
        lambda run: (run / "data.json").write_text("[]"),
        [],
        ["data.json", "preprocessing"],
    ),
    "broken data.json": (
        lambda run: (run / "data.json").write_text("{"),
        [],
        ["data.json", "damaged"],
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_sentence(name, run, monkeypatch, capsys):
    spoiled, arguments, words = BAD[name]
    if spoiled is not None:
        spoiled(run)
    monkeypatch.chdir(run.parent)
    before = sorted(run.parent.rglob("*"))
    formatted = [] if "--format" in arguments else ["--format", "source"]
    status, text, error = command(monkeypatch, capsys, "run", *formatted, *arguments)
    assert status == 2, error
    assert not text
    assert error.startswith("raysearch: ")
    assert error.count("\n") == 1
    for word in words:
        assert word in error
    assert sorted(run.parent.rglob("*")) == before


@pytest.mark.parametrize("folder", ["nowhere", "empty"])
def test_what_is_no_run_is_refused(folder, tmp_path, monkeypatch, capsys):
    (tmp_path / "empty").mkdir()
    status, _, error = command(monkeypatch, capsys, tmp_path / folder, "--format", "torch")
    assert status == 2
    assert folder in error


def test_weights_of_another_student_are_refused(run, student, tmp_path):
    architecture = trace(nn.Sequential(nn.Flatten(), nn.Linear(4, 3)), (1, 2, 2))
    export_student(tmp_path / "other", architecture, build(architecture))
    wider = trace(nn.Sequential(nn.Flatten(), nn.Linear(4, 5)), (1, 2, 2))
    export_student(tmp_path / "wider", wider, build(wider))
    weights = tmp_path / "other" / "weights.safetensors"
    weights.write_bytes((tmp_path / "wider" / "weights.safetensors").read_bytes())
    with pytest.raises(WeightsError, match=r"1\.weight"):
        raysearch.export(tmp_path / "other", "source")
    weights.write_bytes((run / "best" / "weights.safetensors").read_bytes())
    with pytest.raises(WeightsError, match=r"'1\.weight' is missing"):
        raysearch.export(tmp_path / "other", "source")


def test_an_architecture_of_absurd_size_is_refused_before_it_is_built(tmp_path):
    architecture = trace(nn.Sequential(nn.Flatten(), nn.Linear(4, 3)), (1, 2, 2))
    export_student(tmp_path, architecture, build(architecture))
    file = tmp_path / "architecture.json"
    absurd = file.read_text().replace('"out_features":3', '"out_features":900000000000')
    file.write_text(absurd.replace('"shape":[3]', '"shape":[900000000000]'))
    with pytest.raises(InputError, match="900000000000"):
        raysearch.export(tmp_path, "source")


def test_without_onnx_the_message_names_the_extra(run, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    status, _, error = command(monkeypatch, capsys, run, "--format", "onnx")
    assert status == 2
    assert error.count("\n") == 1
    assert "pip install 'raysearch[onnx]'" in error
