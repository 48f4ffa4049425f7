"""Whole runs with pruned students: as the method, as first candidates, and as a baseline."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

import raysearch
from raysearch.architecture import SearchSpace
from raysearch.models import build
from raysearch.models.keep import keep_sets
from raysearch.models.scores import load_scores

TINY = {
    "teacher": {"epochs": 3},
    "distill": {"epochs": 1},
    "finish": {"epochs": 1, "students": 2, "init": "inherit"},
}


@pytest.fixture(scope="module")
def storage(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def pruned(ray_cluster, storage):
    """A finished run of the method prune."""
    pytest.importorskip("torch_pruning")
    config = {**TINY, "search": {"method": "prune"}, "baselines": ["uniform", "prune"]}
    return raysearch.compress(config=config, storage=str(storage), name="p", progress=False)


def channels(records):
    return {record["architecture"]: record.get("channels") for record in records}


def test_the_method_trains_both_students_and_the_uniform_one(pruned):
    found = channels(lines(pruned.path / "observations.jsonl"))
    assert sorted(filter(None, found.values())) == ["prune-l2", "prune-taylor"]
    assert len(found) == 3
    assert all(r["status"] == "full" for r in lines(pruned.path / "observations.jsonl"))
    assert pruned.summary["actor_starts"] <= 2  # once a slot
    finished = channels(lines(pruned.path / "finished.jsonl"))
    assert finished == found
    limit = pruned.summary["budget"]["params"]
    for student in pruned.students:
        assert 0.9 * limit <= student.num_params <= limit
    assert {s.metrics.get("channels") for s in pruned.students} == {*found.values()}


def test_the_pruned_baseline_of_the_same_run_is_not_trained_again(pruned):
    baseline = pruned.summary["baselines"]["prune"]
    assert {"accuracy", "test_accuracy", "num_params", "macs"} <= set(baseline)
    cached = lines(pruned.path / "baselines" / "prune" / "observations.jsonl")
    assert [record["cached"] for record in cached] == [True, True]
    assert "prune" in (pruned.path / "results.csv").read_text()


def test_a_run_that_was_cut_goes_on_with_the_channels_of_its_students(pruned, tmp_path):
    """Cut while one pruned student was in training and before any was finished."""
    folder = tmp_path / "cut"
    shutil.copytree(pruned.path, folder, symlinks=True)
    records = lines(folder / "observations.jsonl")
    lost = next(record for record in records if record.get("channels"))
    keep = [record for record in records if record is not lost]
    (folder / "observations.jsonl").write_text("".join(json.dumps(r) + "\n" for r in keep))
    for name in ("finished.jsonl", "summary.json", "baselines/prune/observations.jsonl"):
        (folder / name).unlink()
    shutil.rmtree(folder / "weights")
    pending = [{"architecture": lost["architecture"], "extra": {"channels": lost["channels"]}}]
    (folder / "session.json").write_text(json.dumps({"pending": pending, "seconds": {}}))
    files = [path.read_bytes() for path in sorted((folder / "teacher").glob("prune-*"))]
    again = raysearch.resume(folder, ["search.concurrency=1"], progress=False)
    whole = channels(lines(pruned.path / "observations.jsonl"))
    assert channels(lines(folder / "observations.jsonl")) == whole
    assert channels(lines(folder / "finished.jsonl")) == whole
    assert files == [path.read_bytes() for path in sorted((folder / "teacher").glob("prune-*"))]
    for student in again.students:
        before = next(s for s in pruned.students if s.architecture.id == student.architecture.id)
        for ours, theirs in zip(
            student.module.state_dict().values(), before.module.state_dict().values(), strict=True
        ):
            assert torch.equal(ours, theirs)  # the same channels, the same training


def test_the_finished_student_began_with_the_channels_that_its_record_names(pruned):
    """One epoch does not move weights far from where they began."""
    record = next(
        r for r in lines(pruned.path / "finished.jsonl") if r.get("channels") == "prune-taylor"
    )
    teacher = load_file(pruned.path / "teacher" / "weights.safetensors")
    architecture = (
        raysearch.Result.read(pruned.path)
        .students[0]
        .architecture.from_json((pruned.path / "teacher" / "architecture.json").read_text())
    )
    student = SearchSpace(architecture).apply(record["architecture"])
    weights = load_file(
        pruned.path / "weights" / f"{record['stage']}-{record['architecture_id']}.safetensors"
    )
    scores = load_scores(pruned.path / "teacher" / "prune-taylor.safetensors", architecture)
    distance = {}
    for name, ranking in (("named", scores), ("first", None)):
        keep = keep_sets(student, architecture, ranking)
        began = build(student, inherit_from=teacher, keep=keep).state_dict()
        distance[name] = sum(
            float((began[key] - weights[key]).norm()) for key in weights if "conv" in key
        )
    assert distance["named"] < 0.7 * distance["first"]


def test_pruned_students_are_first_candidates_and_a_baseline_of_any_search(ray_cluster, storage):
    pytest.importorskip("torch_pruning")
    config = {
        **TINY,
        "search": {
            "method": "gp",
            "trials": 4,
            "first": ["ours-taylor", "uniform", "l2"],
            "concurrency": 1,
        },
        "finish": {**TINY["finish"], "students": 1},
        "baselines": ["prune"],
    }
    result = raysearch.compress(config=config, storage=str(storage), name="f", progress=False)
    records = lines(result.path / "observations.jsonl")
    origins = {record.get("channels") for record in records}
    assert {"prune-ours-taylor", "prune-l2", None} == origins
    assert len(records) == 4
    baseline = lines(result.path / "baselines" / "prune" / "observations.jsonl")
    cached = {record["channels"]: record.get("cached", False) for record in baseline}
    assert cached == {"prune-l2": True, "prune-taylor": False}
    assert set(result.summary["baselines"]) == {"prune"}
    assert (result.path / "baselines" / "prune" / "001" / "model.py").exists()


def test_random_search_without_a_budget_is_esnacs_baseline(ray_cluster, storage):
    """Fresh samples of any size, and the best four by f trained fully; uniform has the size of the best."""
    config = {
        "teacher": {"epochs": 3},
        "search": {"method": "random", "trials": 5, "first": ["uniform"], "concurrency": 1},
        "distill": {"epochs": 1},
        "finish": {"epochs": 1, "students": 4},
        "schedule": {"name": "fifo"},
        "baselines": ["uniform"],
        "budget": None,
    }
    result = raysearch.compress(config=config, storage=str(storage), name="r", progress=False)
    records = lines(result.path / "observations.jsonl")
    teacher = result.summary["teacher"]
    assert {record["origin"] for record in records} == {"sample"}
    sizes = [record["num_params"] / teacher["num_params"] for record in records]
    assert len(set(sizes)) == 5  # nothing is filled
    assert max(sizes) > 1.5 * min(sizes)
    for record in records:
        c = 1 - record["num_params"] / teacher["num_params"]
        f = c * (2 - c) * record["accuracy"] / teacher["accuracy"]
        assert record["value"] == pytest.approx(f)
    assert result.summary["objective"] == "f"
    uniform = result.summary["baselines"]["uniform"]
    assert uniform["num_params"] == pytest.approx(result.best.num_params, rel=0.2)
    best = sorted(records, key=lambda record: -record["value"])[:4]
    trained = [s.metrics["architecture_id"] for s in result.students if s.metrics["search"]]
    assert sorted(trained) == sorted(record["architecture_id"] for record in best)
    rewards = [student.reward for student in result.students]
    assert rewards == sorted(rewards, reverse=True)
