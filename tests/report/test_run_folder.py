"""Run folders are read back whole, cut, torn, and hostile."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from raysearch.errors import RunFolderError
from raysearch.report.run_folder import RunFolder


def test_a_finished_run_is_read_completely(complete: Path) -> None:
    run = RunFolder.read(complete)
    assert not run.partial
    assert run.problems == ()
    assert [row.name for row in run.students] == ["001", "002", "003"]
    assert [row.name for row in run.baselines] == ["random"]
    assert len([row for row in run.evaluations if row.stage == "search"]) == 32
    assert len([row for row in run.evaluations if row.stage == "random"]) == 32
    assert run.teacher.test_accuracy == 0.981
    assert run.best is not None
    assert run.best.curve[-1].epoch == 20
    assert run.best_architecture is not None
    assert run.best_architecture.num_params == run.best.scores.num_params


def test_the_best_link_decides_which_student_is_best(complete: Path) -> None:
    (complete / "best").unlink()
    (complete / "best").symlink_to("students/002")
    run = RunFolder.read(complete)
    assert run.best_name == "002"
    assert [row.name for row in run.students] == ["002", "001", "003"]


def test_without_the_link_the_first_student_is_best(complete: Path) -> None:
    (complete / "best").unlink()
    assert RunFolder.read(complete).best_name == "001"


def test_a_torn_last_line_is_dropped_in_silence(partial: Path) -> None:
    run = RunFolder.read(partial)
    assert run.partial
    assert len(run.evaluations) == 9
    assert run.problems == ()
    assert run.best is None


def test_a_damaged_line_in_the_middle_is_dropped_and_reported(partial: Path) -> None:
    file = partial / "observations.jsonl"
    lines = file.read_text().splitlines()
    lines[3] = lines[3][:20]
    lines[5] = "[1, 2]"
    file.write_text("\n".join(lines) + "\n")
    run = RunFolder.read(partial)
    assert len(run.evaluations) == 7
    assert run.problems == ("3 damaged lines of observations.jsonl are left out.",)


@pytest.mark.parametrize(
    "name", ["summary.json", "data.json", "students/001/metrics.json", "teacher/architecture.json"]
)
def test_a_damaged_file_is_left_out_and_reported(complete: Path, name: str) -> None:
    (complete / name).write_text('{"a": ')
    run = RunFolder.read(complete)
    assert run.problems == (f"{name} is damaged and is left out.",)


def test_numbers_that_are_none_are_missing(complete: Path) -> None:
    file = complete / "students/001/metrics.json"
    metrics = json.loads(file.read_text())
    metrics |= {"accuracy": float("nan"), "num_params": "many", "macs": 10**400, "reward": True}
    file.write_text(json.dumps(metrics))
    best = RunFolder.read(complete).best
    assert best is not None
    assert (best.scores.accuracy, best.scores.num_params, best.scores.macs) == (None, None, None)
    assert best.reward is None


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match=r"There is no run at .*nowhere"):
        RunFolder.read(tmp_path / "nowhere")
    with pytest.raises(RunFolderError, match=r"has no config\.yaml"):
        RunFolder.read(tmp_path)


@pytest.mark.parametrize("text", ["a: [1", "- 1", "", "\0"])
def test_a_damaged_configuration_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(RunFolderError) as caught:
        RunFolder.read(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("budget", "limit"),
    [
        ({"params": 0.5}, 7181),
        ({"params": "10%"}, 1436),
        ({"params": "2k"}, 2000),
        ({"macs": 0.5}, None),
        ({"params": "x"}, None),
    ],
)
def test_the_budget_is_shown_in_parameters(partial: Path, budget: dict, limit: int | None) -> None:
    config = json.dumps({"budget": budget})  # JSON is YAML
    (partial / "config.yaml").write_text(config)
    run = RunFolder.read(partial)
    assert run.teacher.num_params == 14362
    assert run.limit("params") == limit
