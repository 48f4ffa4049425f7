"""What is said before a run: counted by torch where torch can count, and by closed forms on tiny networks."""

from __future__ import annotations

import json
import math
import re
import sys

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import raysearch
from raysearch import cli, inspection
from raysearch.architecture import SearchSpace
from raysearch.errors import BudgetError, InputError
from raysearch.models import build, load_teacher, trace

USER_CODE = """
import torch
from torch import nn

class Tiny(nn.Module):
    "Its channels are frozen, and one layer is used twice."
    def __init__(self, num_classes=5):
        super().__init__()
        self.stem = nn.Conv2d(2, 3, 1)
        self.twice = nn.Conv2d(3, 3, 1)
        self.head = nn.Linear(3, num_classes)
    def forward(self, x):
        x = self.twice(self.twice(self.stem(x))).relu()
        return self.head((x + x.amax(1, keepdim=True)).mean((2, 3)))

class Pair(nn.Module):
    def __init__(self, num_classes=5):
        super().__init__()
        self.stem = nn.Conv2d(2, 3, 1)
        self.head = nn.Linear(3, num_classes)
    def forward(self, x):
        return self.head(self.stem(x).relu().mean((2, 3))), x
"""


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    (tmp_path / "looked_at.py").write_text(USER_CODE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "looked_at", raising=False)
    yield
    sys.modules.pop("looked_at", None)
    torch.set_num_threads(threads)


def command(monkeypatch, capsys, *arguments):
    """The exit status and what was printed."""
    monkeypatch.setattr(sys, "argv", ["raysearch", "inspect", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return ended.value.code or 0, *capsys.readouterr()


@pytest.fixture(scope="module")
def digits():
    return raysearch.inspect(raysearch.load_config())


def test_the_default_run_is_described_as_torch_counts_it(digits):
    teacher = load_teacher("resnet14", num_classes=10, input_shape=(1, 8, 8))
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        teacher.eval()(torch.randn(1, 1, 8, 8))
    largest = digits.students["largest"]
    assert largest.num_params == sum(p.numel() for p in teacher.parameters())
    assert largest.num_params == sum(layer.num_params for layer in digits.layers)
    assert largest.macs * 2 == counter.get_total_flops()
    assert largest.macs == sum(layer.macs for layer in digits.layers)
    assert (digits.classes, digits.input_shape) == (10, (1, 8, 8))


def test_every_student_is_a_network_with_the_costs_that_are_told(digits):
    architecture = trace(load_teacher("resnet14", num_classes=10, input_shape=(1, 8, 8)), (1, 8, 8))
    space = SearchSpace(architecture)
    for row in digits.students.values():
        student = space.apply(row.architecture)
        module = build(student)
        state = module.state_dict().values()
        assert row.num_params == sum(p.numel() for p in module.parameters())
        weights = sum(t.numel() * t.element_size() for t in state)
        assert row.memory_bytes == weights + student.peak_memory_bytes
        assert 0 < row.latency_ms < math.inf
    sizes = [digits.students[name].num_params for name in ("smallest", "median", "largest")]
    assert sizes == sorted(sizes)
    assert digits.students["uniform"].num_params <= digits.limits["params"]
    sampled = space.num_params(space.sample(inspection.SAMPLE, seed=0))
    below, above = (np.mean(sampled < sizes[1]), np.mean(sampled > sizes[1]))
    assert max(below, above) <= 0.5


def test_the_documented_keys_are_those_of_the_json(digits):
    found = json.loads(json.dumps(digits.to_dict(), allow_nan=False))
    documented = re.findall(r"^    (\w+)  +\w", inspection.__doc__ or "", re.M)
    assert list(found) == documented
    for row in (*found["layers"], *found["groups"], *found["frozen"], *found["students"].values()):
        assert all(key in inspection.__doc__ for key in row)
    assert found["budget"]["feasible"] is True
    assert found["removable"] == sum(layer["removable"] for layer in found["layers"])


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("search.method=gpp", "search.method is 'gpp'.*did you mean 'gp'"),
        ("search.options={colour: red}", "search.options.*colour"),
        ("search.options={candidates: many}", "search.options"),
        ("search.warm_start=nope", "search.warm_start is 'nope'"),
        ("schedule.name=foo", "schedule.name: 'foo'"),
        ("distill.metrics=nope:x", "distill.metrics: nope cannot be imported"),
    ],
)
def test_what_a_run_would_refuse_is_refused(override, words):
    with pytest.raises(InputError, match=words) as looked:
        raysearch.inspect(raysearch.load_config(None, override))
    with pytest.raises(InputError) as prepared:
        raysearch.prepare(raysearch.load_config(None, override))
    assert str(looked.value) == str(prepared.value)


def test_the_number_of_students_is_that_of_all_their_edits():
    class Chain(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(nn.Conv2d(2, 3, 1), nn.ReLU(), nn.Conv2d(3, 70, 1), nn.Tanh())
            self.head = nn.Linear(70, 4)

        def forward(self, x):
            return self.head(self.net(x).mean((2, 3)))

    config = raysearch.load_config(
        {"teacher": {"input_shape": [2, 4, 4]}, "space": {"operations": ["remove", "shrink"]}}
    )
    found = raysearch.inspect(config, teacher=Chain())
    widths = 3 * 9  # 1, 2, 3; and 8, 16, ..., 64, 70
    assert found.removable == 2
    assert 10**found.log10_students == pytest.approx(widths * 2**2)
    assert found.model == "Chain"


def test_frozen_channels_say_why(monkeypatch, capsys):
    arguments = ["teacher.model=looked_at:Tiny", "teacher.input_shape=[2,5,6]", "budget=null"]
    status, text, _ = command(monkeypatch, capsys, *arguments, "--json")
    found = json.loads(text)
    assert status == 0
    reasons = {group["reason"] for group in found["frozen"]}
    assert "it is the network's input" in reasons
    assert any("over the channels" in reason for reason in reasons)
    assert found["classes"] == 5
    assert sum(layer["num_params"] for layer in found["layers"]) == 9 + 12 + 20  # twice counts once
    assert found["budget"] == {"limits": {}, "feasible": True, "reason": None}
    assert "uniform" not in found["students"]


def test_one_of_several_outputs_is_looked_at(monkeypatch, capsys):
    arguments = ["teacher.model=looked_at:Pair", "teacher.input_shape=[2,5,6]", "budget=null"]
    status, _, error = command(monkeypatch, capsys, *arguments)
    assert status == 2
    assert "teacher.output_index" in error
    status, text, _ = command(monkeypatch, capsys, *arguments, "teacher.output_index=0")
    assert status == 0
    assert "2 x 5 x 6 -> 5 classes" in text


def test_the_text_shows_layers_groups_students_and_the_budget(digits, monkeypatch, capsys):
    monkeypatch.setattr("raysearch.api.inspect", lambda config: digits)
    status, text, _ = command(monkeypatch, capsys)
    assert status == 0
    for layer in digits.layers:
        assert f" {layer.name} " in text
    for row in digits.students.values():
        assert f"{row.num_params:,}" in text
    assert f"About 10^{math.floor(digits.log10_students)} students" in text
    assert "The budget can be met: at most 8,748 parameters." in text
    assert "it is the network's output" in text


def test_a_budget_that_cannot_be_met_is_told_with_the_error_of_the_run(monkeypatch, capsys):
    status, text, error = command(monkeypatch, capsys, "budget.params=1e-3", "--json")
    assert status == 2
    found = json.loads(text)
    architecture = trace(load_teacher("resnet14", num_classes=10, input_shape=(1, 8, 8)), (1, 8, 8))
    with pytest.raises(BudgetError) as caught:
        SearchSpace(architecture, budget={"params": 1e-3})
    assert error == f"raysearch: {caught.value}\n"
    assert found["budget"] == {"limits": {}, "feasible": False, "reason": str(caught.value)}
    assert set(found["students"]) == {"largest", "median", "smallest"}


PAIR = ["teacher.model=looked_at:Pair", "teacher.input_shape=[2,5,6]", "teacher.output_index=0"]


def test_memory_and_latency_are_limits_and_an_accuracy_is_a_note(monkeypatch, capsys):
    budget = "budget={latency_ms: 1000, memory: 0.9, accuracy: 0.5}"
    status, text, _ = command(monkeypatch, capsys, *PAIR, budget, "--json")
    found = json.loads(text)
    assert status == 0
    assert set(found["budget"]["limits"]) == {"latency_ms", "memory"}
    assert found["students"]["uniform"]["memory_bytes"] <= found["budget"]["limits"]["memory"]
    assert any("known after training" in note for note in found["notes"])


def test_a_latency_that_cannot_be_met_is_told(monkeypatch, capsys):
    status, text, error = command(monkeypatch, capsys, *PAIR, "budget.latency_ms=1e-7")
    assert status == 2
    assert error.startswith("raysearch: budget.latency_ms")
    assert "budget.latency_ms" in text


def test_data_that_are_missing_are_a_note_where_the_input_shape_is_given(
    tmp_path, monkeypatch, capsys
):
    config = tmp_path / "config.yaml"
    config.write_text("data: {name: image_folder, path: nowhere}\nteacher: {model: looked_at:Tiny}")
    status, _, error = command(monkeypatch, capsys, "config.yaml")
    assert status == 2
    assert "nowhere" in error
    status, text, _ = command(
        monkeypatch, capsys, "config.yaml", "teacher.input_shape=[2,5,6]", "budget=null", "--json"
    )
    assert status == 0
    (note,) = json.loads(text)["notes"]
    assert "nowhere" in note


BAD = {
    "an input shape of other images": (
        ["data.name=digits", "teacher.input_shape=[3,8,8]"],
        ["teacher.input_shape", "digits"],
    ),
    "an unknown teacher": (["teacher.model=resnet15"], ["resnet15"]),
    "an input shape that the teacher rejects": (
        ["teacher.model=looked_at:Tiny", "teacher.input_shape=[3,8,8]"],
        ["looked_at:Tiny", "[3, 8, 8]"],
    ),
    "a missing file": (["nowhere.yaml"], ["nowhere.yaml"]),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_sentence(name, monkeypatch, capsys):
    arguments, words = BAD[name]
    status, text, error = command(monkeypatch, capsys, *arguments)
    assert (status, text) == (2, "")
    assert error.startswith("raysearch: ")
    assert error.count("\n") == 1
    for word in words:
        assert word in error
