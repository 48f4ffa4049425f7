"""Whole runs on the bundled digits, small enough for a test: what lies in the folder, and what is true of it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from sklearn.datasets import load_digits

import raysearch
from raysearch.errors import ConfigError, RunFolderError

SMALL = {
    "teacher": {"epochs": 3},
    "search": {"trials": 5, "concurrency": 1, "options": {"num_initial": 2}},
    "distill": {"epochs": 2},
    "finish": {"epochs": 2, "students": 2},
}


@pytest.fixture(scope="module")
def storage(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def finished(ray_cluster, storage):
    """A finished run on the digits with 5 % of the teacher's parameters."""
    return raysearch.compress(config=SMALL, storage=str(storage), name="finished", progress=False)


def observations(path):
    return [json.loads(line) for line in (path / "observations.jsonl").read_text().splitlines()]


def test_the_folder_holds_what_is_promised(finished):
    for name in [
        "config.yaml",
        "data.json",
        "summary.json",
        "observations.jsonl",
        "surrogate.parquet",
        "results.csv",
        "report.html",
        "teacher/weights.safetensors",
        "students/001/architecture.json",
        "students/001/weights.safetensors",
        "students/001/model.py",
        "students/001/metrics.json",
        "best/model.py",
    ]:
        assert (finished.path / name).stat().st_size > 0, name
    assert (finished.path / "best").readlink() == Path("students/001")
    summary = finished.summary
    for part in (summary["teacher"], summary["best"], *summary["baselines"].values()):
        assert {"accuracy", "test_accuracy", "num_params", "macs"} <= set(part)
    assert set(summary["baselines"]) == {"uniform", "random"}
    assert sum(summary["trials"].values()) == 5 == len(observations(finished.path))
    assert summary["versions"]["torch"] == torch.__version__.split("+")[0]


def test_every_student_fits_the_budget_counted_from_its_tensors(finished):
    teacher = load_file(finished.path / "teacher" / "weights.safetensors")
    buffers = ("running_mean", "running_var", "num_batches_tracked")

    def count(state):
        return sum(t.numel() for name, t in state.items() if not name.endswith(buffers))

    limit = 0.05 * count(teacher)
    for student in finished.students:
        num_params = count(load_file(student.path / "weights.safetensors"))
        assert num_params == student.num_params
        assert 0.9 * limit <= num_params <= limit


def test_validation_and_test_rows_are_disjoint(finished):
    data = json.loads((finished.path / "data.json").read_text())
    validation, test = set(data["validation"]), set(data["test"])
    assert validation
    assert test
    assert not validation & test
    assert max(validation | test) < len(load_digits().target)


def test_the_best_student_works_without_raysearch(finished, tmp_path):
    """In a process that cannot import raysearch, on pixels that scikit-learn gives."""
    data = json.loads((finished.path / "data.json").read_text())
    digits = load_digits()
    rows = np.array(data["test"])
    np.savez(tmp_path / "test.npz", x=digits.images[rows][:, None], y=digits.target[rows])
    script = f"""
        import sys
        sys.modules["raysearch"] = None
        sys.path.insert(0, {str(finished.path / "best")!r})
        import numpy as np, torch
        from model import Student
        arrays = np.load({str(tmp_path / "test.npz")!r})
        scale, mean, std = {data["preprocessing"]["scale"]}, {data["preprocessing"]["mean"]}, {data["preprocessing"]["std"]}
        x = torch.tensor(arrays["x"], dtype=torch.float32)
        x = (x * scale - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
        with torch.no_grad():
            predicted = Student().eval()(x).argmax(1).numpy()
        print((predicted == arrays["y"]).mean())
        fresh = Student(weights=None)
        assert any((a != b).any() for a, b in zip(fresh.parameters(), Student().parameters()))
    """
    done = subprocess.run(
        [sys.executable, "-I", "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) == pytest.approx(finished.best.test_accuracy, abs=1e-9)


def test_the_exported_module_gives_the_reported_validation_accuracy(finished):
    data = json.loads((finished.path / "data.json").read_text())
    digits = load_digits()
    rows = np.array(data["validation"])
    pre = data["preprocessing"]
    x = (torch.tensor(digits.images[rows][:, None]).float() * pre["scale"] - pre["mean"][0]) / pre[
        "std"
    ][0]
    for student in finished.students:
        with torch.no_grad():
            predicted = student.module(x).argmax(1).numpy()
        assert (predicted == digits.target[rows]).mean() == pytest.approx(
            student.accuracy, abs=1e-9
        )


def test_the_best_student_is_the_best_on_validation_and_never_worse_than_the_uniform_one(finished):
    """Within a budget by the cross-entropy, which is less of a lottery than the accuracy."""
    losses = [student.metrics["loss"] for student in finished.students]
    assert losses == sorted(losses)
    assert losses[0] <= finished.summary["baselines"]["uniform"]["loss"]


def test_the_uniform_student_is_among_the_search_s_first_candidates(finished):
    uniform = next(s for s in finished.students if s.metrics["origin"] == "uniform")
    first = [record["architecture_id"] for record in observations(finished.path)]
    assert uniform.metrics["architecture_id"] in first
    assert uniform.metrics["search"] is not None


def full_ids(path):
    records = observations(path)
    return [record["architecture_id"] for record in records if record["status"] == "full"]


def test_what_the_model_knew_of_each_full_student_is_kept_and_shown(finished):
    frame = pd.read_parquet(finished.path / "surrogate.parquet")
    assert sorted(frame["architecture_id"]) == sorted(full_ids(finished.path))
    values = {record["architecture_id"]: record["value"] for record in observations(finished.path)}
    assert list(frame["value"]) == [values[key] for key in frame["architecture_id"]]
    assert (frame["loo_sd"] > 0).all()
    assert "What the search&#x27;s model knew" in (finished.path / "report.html").read_text()


def test_the_same_seed_gives_the_same_run_at_concurrency_one(finished, storage):
    """Baselines or not. The first run is extended only below."""
    again = raysearch.compress(
        config={**SMALL, "baselines": ["uniform"]},
        storage=str(storage),
        name="again",
        progress=False,
    )
    keys = ("architecture", "value", "status", "curve", "predicted", "predicted_sd")
    first, second = (
        [{k: r.get(k) for k in keys} for r in observations(run.path)] for run in (finished, again)
    )
    assert first == second
    made = [record for record in observations(again.path) if record.get("origin") == "model"]
    assert made
    assert all(record["predicted_sd"] > 0 for record in made)
    assert finished.best.metrics["test_accuracy"] == again.best.metrics["test_accuracy"]
    one, two = (load_file(run.best.path / "weights.safetensors") for run in (finished, again))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_resuming_a_finished_run_repeats_nothing_and_more_trials_extend_it(finished):
    before = observations(finished.path)
    config = finished.path / "config.yaml"
    again = raysearch.resume(finished.path, progress=False)
    assert observations(again.path) == before
    longer = raysearch.resume(finished.path, ["search.trials=7"], progress=False)
    after = observations(longer.path)
    assert after[:5] == before
    assert len({record["architecture_id"] for record in after}) == 7
    assert sum(longer.summary["trials"].values()) == 7
    assert raysearch.load_config(config).search.trials == 7
    frame = pd.read_parquet(longer.path / "surrogate.parquet")
    assert sorted(frame["architecture_id"]) == sorted(full_ids(longer.path))


def test_an_override_that_would_change_the_meaning_of_results_is_refused(finished):
    for override in ("budget.params=0.2", "data.name=mnist", "distill.epochs=9", "run.seed=3"):
        with pytest.raises(ConfigError, match=r"cannot change in a run that has results"):
            raysearch.resume(finished.path, [override])


def test_a_name_that_exists_is_refused(finished, storage):
    with pytest.raises(RunFolderError, match=r"run\.name: 'finished' exists"):
        raysearch.compress(config=SMALL, storage=str(storage), name="finished", progress=False)


class PlainNet(torch.nn.Module):
    """A user's own chain."""

    def __init__(self):
        super().__init__()
        self.features = torch.nn.Sequential(
            torch.nn.Conv2d(1, 8, 3, padding=1),
            torch.nn.BatchNorm2d(8),
            torch.nn.ReLU(),
            torch.nn.MaxPool2d(2),
            torch.nn.Conv2d(8, 16, 3, padding=1),
            torch.nn.ReLU(),
        )
        self.head = torch.nn.Linear(16 * 16, 10)

    def forward(self, x):
        return self.head(self.features(x).flatten(1))


def test_a_module_and_tensors_in_memory_are_compressed_and_resumed(ray_cluster, tmp_path):
    digits = load_digits()
    x = torch.tensor(digits.images[:600, None] / 16, dtype=torch.float32)
    y = torch.tensor(digits.target[:600])
    torch.manual_seed(0)
    teacher = PlainNet()
    optimizer = torch.optim.Adam(teacher.parameters(), 1e-2)
    for _ in range(30):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(teacher(x), y).backward()
        optimizer.step()
    result = raysearch.compress(
        teacher,
        ((x, y), None),
        budget={"params": "40%", "macs": 0.6},
        method="random",
        trials=2,
        epochs=1,
        config={
            "search": {"concurrency": 1},
            "finish": {"students": 1, "epochs": 1},
            "baselines": [],
        },
        storage=str(tmp_path),
        name="mine",
        progress=False,
    )
    teacher_params = sum(p.numel() for p in teacher.parameters())
    assert result.best.num_params == sum(p.numel() for p in result.best.module.parameters())
    assert result.best.num_params <= 0.4 * teacher_params
    assert result.best.macs <= 0.6 * result.summary["teacher"]["macs"]
    assert any("split off" in note for note in result.summary["notes"])
    with torch.no_grad():
        own = (teacher.eval()(x).argmax(1) == y).float().mean()
    # floating-point data are the network's input as they are: the teacher is measured as its owner would
    assert result.summary["teacher"]["accuracy"] == pytest.approx(float(own), abs=0.1)
    again = raysearch.resume(result.path, ["search.trials=3"], progress=False)
    assert sum(again.summary["trials"].values()) == 3


def test_the_tune_script_of_the_readme_runs(ray_cluster, tmp_path):
    text = (Path(__file__).resolve().parents[1] / "README.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, re.S)
    script = next(block for block in blocks if "GPSearch" in block)
    for old, new in {
        "num_samples=20": "num_samples=2",
        "max_concurrent_trials=2": "max_concurrent_trials=1",
        '{"budget": {"params": 0.1}}': '{**SMALL, "budget": {"params": 0.1}}',
        "    tune_config=": f"    run_config=tune.RunConfig(storage_path={str(tmp_path)!r}),\n    tune_config=",
    }.items():
        assert old in script
        script = script.replace(old, new)
    names: dict = {"SMALL": SMALL}
    exec(script, names)
    assert len(names["results"]) == 2
    assert names["student"].num_params <= names["problem"].space.limits["params"]


def test_an_accuracy_floor_within_memory_and_latency_limits_runs_to_its_verdict(
    ray_cluster, tmp_path
):
    budget = {"memory": "60%", "latency_ms": 50.0, "accuracy": "60%"}
    result = raysearch.compress(
        config={
            "teacher": {"epochs": 3},
            "search": {"trials": 3, "concurrency": 1},
            "distill": {"epochs": 1},
            "finish": {"epochs": 1, "students": 1},
            "baselines": [],
        },
        budget=budget,
        storage=str(tmp_path),
        progress=False,
    )
    summary, teacher = result.summary, result.summary["teacher"]
    floor = summary["budget"]["accuracy"]
    assert floor == pytest.approx(0.6 * teacher["accuracy"])
    for record in observations(result.path):
        assert record["memory_bytes"] <= summary["budget"]["memory"]
        assert 0 < record["latency_ms"] <= 50.0
        if record["accuracy"] < floor:
            assert record["value"] == pytest.approx(record["accuracy"] / floor)
    reached = [s for s in result.students if s.accuracy >= floor]
    if reached:
        assert result.best.path == min(reached, key=lambda s: s.metrics["memory_bytes"]).path
    else:
        assert any("no fully trained student" in note for note in summary["notes"])
    state = [*result.best.module.parameters(), *result.best.module.buffers()]
    weights = sum(tensor.numel() * tensor.element_size() for tensor in state)
    assert result.best.architecture.memory_bytes >= weights
    assert summary["budget_use"] in (result.path / "report.html").read_text()
