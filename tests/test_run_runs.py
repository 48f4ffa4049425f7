"""A whole run of a method of one's own whose students come out of runs, killed and continued: what lies in the folder, and what the kill loses."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import raysearch
import trainables
from raysearch import load_config, prepare
from raysearch.errors import ConfigError
from raysearch.trials import trainable_of
from searchers.registry import resolve
from tests.trainables.bayesnas import tiny

ROOT = Path(__file__).resolve().parents[1]
EPOCHS = 12  # of a run, so that the kill finds the third one in its midst
SMALL = {
    "teacher": {"epochs": 3},
    "budget": None,
    "search": {
        "method": f"{tiny.HERE}:SavingAlgorithm",
        "trials": 3,
        "concurrency": 1,
        "options": {"lambdas": [0.02, 0.2, 2.0], "epochs": EPOCHS},
    },
    "distill": {"epochs": 1},
    "finish": {"epochs": 1, "students": 1},
    "schedule": {"name": "fifo"},
    "baselines": [],
    "cluster": {"address": "auto"},
}


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@dataclass(frozen=True)
class Cut:
    """What lay in the folder when the process was killed: the log of runs, and the third run as the session had it."""

    folder: Path
    runs: bytes
    third: dict[str, Any]


@dataclass(frozen=True)
class Continued:
    """The finished run, and what it showed on the way."""

    result: raysearch.Result
    shown: str

    @property
    def path(self) -> Path:
        return self.result.path


@pytest.fixture(scope="module")
def cut(ray_cluster, tmp_path_factory):
    """A process that is killed in the midst of its third run; it uses the Ray of the tests, which is cheaper than one of its own."""
    import ray

    home = tmp_path_factory.mktemp("killed")
    (home / "config.yaml").write_text(json.dumps(SMALL))
    folder = home / "runs" / "cut"
    address = ray.get_runtime_context().gcs_address
    process = subprocess.Popen(
        [sys.executable, "-m", "raysearch", "run", "config.yaml", "run.name=cut"],
        cwd=home,
        env={**os.environ, "PYTHONPATH": str(ROOT), "RAY_ADDRESS": address},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while not (folder / "weights" / "run-002.partial").exists():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    going = json.loads((folder / "session.json").read_text())["pending"]
    third = next(one["extra"] for one in going if one["extra"].get("run") == 2)
    return Cut(folder, (folder / "runs.jsonl").read_bytes(), third)


@pytest.fixture(scope="module")
def finished(cut):
    """What was killed, continued with a grid that is longer by one lambda, and with more finalists than there will be students."""
    longer = ["search.trials=4", "search.options.lambdas=[0.02, 0.2, 2.0, 0.6]"]
    shown = io.StringIO()
    with contextlib.redirect_stderr(shown):
        result = raysearch.resume(cut.folder, [*longer, "finish.students=9"])
    return Continued(result, shown.getvalue())


def test_a_killed_process_loses_no_run_and_repeats_none_and_a_longer_grid_extends_it(cut, finished):
    """The third run was cut in its midst: it comes back with its lambda, and goes on where it was saved."""
    assert (cut.folder / "runs.jsonl").read_bytes().startswith(cut.runs)
    runs = lines(cut.folder / "runs.jsonl")
    assert sorted(run["run"] for run in runs) == [0, 1, 2, 3]
    assert next(run["lam"] for run in runs if run["run"] == 2) == cut.third["lam"]
    again = lines(cut.folder / "tune" / "session-2" / "runs-002" / "result.json")
    assert again[0]["epochs_done"] > 1
    assert again[-1]["epochs_done"] == EPOCHS
    assert len(again[-1]["reward_curve"]) == EPOCHS


def test_each_run_is_a_line_with_its_students_and_each_student_says_where_it_is_from(finished):
    runs = lines(finished.path / "runs.jsonl")
    assert {run["run"]: run["lam"] for run in runs} == {0: 0.02, 1: 0.2, 2: 2.0, 3: 0.6}
    assert all(run["status"] == "full" and run["epochs_done"] == EPOCHS for run in runs)
    assert finished.result.summary["runs"] == {"full": 4}
    found = {run["run"]: {one["architecture"] for one in run["students"]} for run in runs}
    records = lines(finished.path / "observations.jsonl")
    assert len(records) == sum(finished.result.summary["trials"].values()) == 4
    assert all(record["start"] == "run" for record in records)
    assert all(record["architecture"] in found[record["from_run"]] for record in records)
    assert len({record["from_run"] for record in records}) > 1


def test_histories_are_kept_and_weights_that_nothing_asks_for_are_not(finished):
    histories = sorted(file.name for file in (finished.path / "bayesnas").iterdir())
    assert histories == ["run-000.json", "run-001.json", "run-002.json", "run-003.json"]
    weights = {file.name for file in (finished.path / "weights").iterdir()}
    assert not any(name.endswith(".partial") for name in weights)
    records = lines(finished.path / "observations.jsonl")
    left = {name for name in weights if name.startswith("start-")}
    runs = lines(finished.path / "runs.jsonl")
    asked = {record["architecture_id"] for record in records}
    found = {(one["architecture_id"], run["run"]) for run in runs for one in run["students"]}
    unasked = {f"start-{key}-{run:03d}.safetensors" for key, run in found if key not in asked}
    begun = {
        f"start-{record['architecture_id']}-{record['from_run']:03d}.safetensors"
        for record in records
    }
    assert unasked <= left <= unasked | begun


def test_the_display_counts_what_there_was_to_do(finished):
    """The runs, the students, and the full trainings (the uniform student's is one of them, or one of the students is it): not what was asked for."""
    counts = re.findall(r"search (\d+)/(\d+)[^\n]* in ", finished.shown)
    done = [
        len(lines(finished.path / name))
        for name in ("runs.jsonl", "observations.jsonl", "finished.jsonl")
    ]
    assert done[:2] == [4, 4]
    assert counts == [(str(sum(done)), str(sum(done)))]


def test_a_finished_run_is_not_trained_again(finished):
    before = (finished.path / "runs.jsonl").read_bytes()
    raysearch.resume(finished.path, progress=False)
    assert (finished.path / "runs.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"budget": {"accuracy": 0.9}, "search": SMALL["search"]},
            ["budget.accuracy", "params, macs and memory"],
        ),
        ({"search": {"method": f"{tiny.HERE}:TinyAlgorithm", "options": {"lr": 7}}}, ["lr", "7"]),
        ({"search": {"method": f"{__name__}:Lost"}}, ["nowhere:X", "could not be imported"]),
        ({"search": {"method": f"{__name__}:Other"}}, ["collections:OrderedDict", "derived"]),
    ],
)
def test_what_runs_cannot_do_is_said_before_anything_is_trained(changes, words, monkeypatch):
    monkeypatch.setitem(sys.modules, __name__, sys.modules.get(__name__) or _module())
    with pytest.raises(ConfigError) as error:
        prepare(load_config({"budget": None, **changes}))
    assert all(word in str(error.value) for word in words)
    assert "\n" not in str(error.value)


class Lost(tiny.TinyAlgorithm):
    trainable = "nowhere:X"


class Other(tiny.TinyAlgorithm):
    trainable = "collections:OrderedDict"


def _module():
    from types import SimpleNamespace

    return SimpleNamespace(Lost=Lost, Other=Other)


def test_methods_name_the_trainable_of_their_trials():
    expected = {
        "gp": trainables.DistillationTrainable,
        "bayes_compression": trainables.BayesCompressionTrainable,
        "bayes_nas": trainables.BayesNASTrainable,
        f"{tiny.HERE}:TinyAlgorithm": tiny.TinyTrainable,
    }
    assert {name: trainable_of(resolve(name)) for name in expected} == expected
