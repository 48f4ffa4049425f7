"""Students of every quirk live without raysearch: written, read by a process that cannot import it, compared."""

import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from raysearch.architecture import Architecture, SearchSpace
from raysearch.errors import TraceError
from raysearch.models import build, export_student
from tests.acceptance.networks import CASES

READER = """
import importlib.util, json, pathlib, sys, traceback

sys.modules["raysearch"] = None
import torch

torch.set_num_threads(1)
found = {}
for folder in sorted(path for path in pathlib.Path(".").iterdir() if path.is_dir()):
    try:
        spec = importlib.util.spec_from_file_location(folder.name, folder / "model.py")
        model = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(model)
        images, logits = torch.load(folder / "expected.pt", weights_only=True)
        student = model.Student().eval()
        difference = float((student(images) - logits).abs().max())
        fresh = model.Student(weights=None).train()
        fresh(images).square().sum().backward()
        without = [name for name, p in fresh.named_parameters() if p.grad is None]
        found[folder.name] = {"difference": difference, "without gradient": without}
    except Exception:
        found[folder.name] = {"error": traceback.format_exc()}
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def exported(networks, tmp_path_factory):
    """The folder, and what the other process found in it."""
    root = tmp_path_factory.mktemp("students")
    for name, case in CASES.items():
        try:
            module, architecture = networks(name)
        except TraceError:
            continue  # test_quirks.py tells
        student = SearchSpace(architecture).sample(1, seed=4)
        student = SearchSpace(architecture).apply(student[0])
        built = build(student, inherit_from=module).train()
        images = torch.randn(3, *case.shape)
        built(images)  # statistics of its own
        export_student(root / name, student, built)
        with torch.no_grad():
            torch.save((images, built.eval()(images)), root / name / "expected.pt")
    done = subprocess.run(
        [sys.executable, "-I", "-c", READER], cwd=root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return root, json.loads(done.stdout)


@pytest.mark.parametrize("name", list(CASES))
def test_an_exported_student_gives_the_same_logits_without_us(exported, name):
    root, found = exported
    assert found[name].get("error") is None, found[name]["error"]
    assert found[name]["difference"] < 1e-5
    assert found[name]["without gradient"] == []
    images, logits = torch.load(root / name / "expected.pt", weights_only=True)
    architecture = Architecture.from_json((root / name / "architecture.json").read_text())
    again = build(architecture, inherit_from=load_file(root / name / "weights.safetensors")).eval()
    torch.testing.assert_close(again(images), logits, rtol=0, atol=1e-5)
