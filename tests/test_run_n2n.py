"""Whole runs of N2N in its paper's form: students that are networks of their own, constraints, policies, and a continued search."""

from __future__ import annotations

import json

import pytest
import torch

import raysearch
from raysearch.architecture import Architecture
from raysearch.errors import RunError, RunFolderError
from raysearch.models import build
from searchers.state import load_state

HERE = "tests.test_run_n2n"
CLASSES = [f"class_accuracy/{number}" for number in range(10)]


def power(module, architecture):
    """One's own metric: so many watts a parameter."""
    return {"power": 1e-4 * architecture.num_params}


CONFIG = {
    "teacher": {"epochs": 3},
    "budget": None,
    "search": {
        "method": "n2n",
        "trials": 6,
        "concurrency": 1,
        "first": [],
        "options": {
            "faithful": True,
            "rollouts": 2,
            "constraints": ["power <= 9", "class_accuracy/3 >= 0.01", "latency_ms <= 1000"],
        },
    },
    "distill": {
        "loss": "logits_mse",
        "epochs": 1,
        "inherit": "none",
        "report": ["class_accuracy", "latency_ms"],
        "metrics": f"{HERE}:power",
    },
    "schedule": {"name": "fifo"},
    "finish": {"epochs": 1, "students": 1, "init": "fresh"},
    "baselines": [],
}


@pytest.fixture(scope="module")
def storage(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def learned(ray_cluster, storage):
    return raysearch.compress(config=CONFIG, storage=str(storage), name="n2n", progress=False)


def lines(result):
    text = (result.path / "observations.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def test_each_line_says_which_policy_proposed_it_and_what_was_asked_for(learned):
    found = lines(learned)
    assert len(found) == 6
    assert len({line["rollout"] for line in found}) == 6
    for line in found:
        student = Architecture.from_compact(line["architecture"])
        assert (student.id, student.num_params) == (line["architecture_id"], line["num_params"])
        assert line["method_stage"] in ("remove", "shrink")
        assert isinstance(line["iteration"], int)
        assert line["power"] == pytest.approx(1e-4 * student.num_params)
        assert line["latency_ms"] > 0
        assert {*CLASSES} <= set(line)
        assert all(0 <= line[name] <= 1 for name in CLASSES)


def test_the_policies_are_kept_and_shown(learned):
    names = {file.name for file in (learned.path / "policy").iterdir()}
    assert {"policy-remove.safetensors", "policy-remove.json", "policy.json"} <= names
    report = (learned.path / "report.html").read_text()
    assert "What the policies learned" in report
    assert "Layer removal" in report


def test_the_student_is_exported_and_gives_the_same_logits(learned, tmp_path):
    best = learned.best
    text = (best.path / "architecture.json").read_text()
    again = build(Architecture.from_json(text), inherit_from=best.module).eval()
    images = torch.rand(4, 1, 8, 8)
    with torch.no_grad():
        assert torch.equal(again(images), best.module.eval()(images))
    assert raysearch.export(learned, "torch", tmp_path / "student.pt2").path.exists()
    table = (learned.path / "results.csv").read_text()
    assert best.metrics["architecture"] in table


def test_a_finished_search_goes_on_with_what_it_has_learned(learned):
    """The rollouts' numbers go on, and the state knows no evaluation that the log has not."""
    before = lines(learned)
    more = raysearch.resume(learned.path, ["search.trials=9"], progress=False)
    after = lines(more)
    assert after[:6] == before
    numbers = [line["rollout"] for line in after]
    assert len(set(numbers)) == len(after) == 9
    assert min(numbers[6:]) > max(numbers[:6])
    state = load_state((more.path / "search_state.json").read_text())
    assert state["num_told"] <= 9
    config = (more.path / "config.yaml").read_text()
    with pytest.raises(
        RunFolderError, match=r"search\.options\.hidden_removal 30, and now it is 20"
    ):
        raysearch.resume(learned.path, ["search.options.hidden_removal=20"], progress=False)
    (more.path / "search_state.json").write_text("{")
    with pytest.raises(RunFolderError, match=r"search_state\.json.*delete it"):
        raysearch.resume(learned.path, ["search.trials=10"], progress=False)
    assert (more.path / "config.yaml").read_text() == config  # what was refused is not kept


def test_a_constraint_on_what_no_trial_reports_ends_the_run_with_a_sentence(learned, storage):
    config = {**CONFIG, "distill": {**CONFIG["distill"], "metrics": None}}
    with pytest.raises(RunError, match=r"'power <= 9' needs 'power'.*distill\.metrics"):
        raysearch.compress(config=config, storage=str(storage), name="powerless", progress=False)
