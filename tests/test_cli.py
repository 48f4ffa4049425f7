"""The command line as a person meets it: exit status, one sentence on stderr, a run that is killed and continued."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save, save_file

from raysearch import resume
from raysearch.models import load_teacher

ROOT = Path(__file__).resolve().parents[1]
SMALL = ["teacher.epochs=3", "finish.epochs=1", "finish.students=1", "distill.epochs=2"]


@pytest.fixture
def environment():
    return {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "RAY_AUTH_MODE": "disabled",
    }


def raysearch(*arguments, cwd, environment):
    return subprocess.run(
        [sys.executable, "-m", "raysearch", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env=environment,
    )


USER_CODE = """
import torch
from torch import nn

def raises(**kwargs):
    raise RuntimeError("the disk is on fire")

def wrong_labels():
    import numpy as np
    x, y = np.zeros((40, 1, 8, 8), np.uint8), np.arange(40) % 4
    y[7] = -3
    return (x, y), (x, y)

def small_images():
    import numpy as np
    x, y = np.zeros((40, 1, 2, 2), np.uint8), np.arange(40) % 4
    return (x, y), (x, y)

def not_a_module():
    return 3

class Big(nn.Module):
    "Wants 32x32 colour."
    def __init__(self, num_classes=10):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.head = nn.Linear(4 * 30 * 30, num_classes)
    def forward(self, x):
        return self.head(self.conv(x).relu().flatten(1))

class Flow(nn.Module):
    "Decides by looking at the data."
    def __init__(self, num_classes=10):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.head = nn.Linear(4 * 64, num_classes)
    def forward(self, x):
        x = self.conv(x)
        if x.sum() > 0:
            x = x.relu()
        return self.head(x.flatten(1))

class Batch(nn.Module):
    "Knows how many images come at once."
    def __init__(self, num_classes=10):
        super().__init__()
        self.head = nn.Linear(64, num_classes)
    def forward(self, x):
        return self.head(x.reshape(2, 64))

class Large(Batch):
    def forward(self, x):
        return self.head(x.reshape(32, 64))

class Two(nn.Module):
    "Gives its features too."
    def __init__(self, num_classes=10):
        super().__init__()
        self.head = nn.Linear(64, num_classes)
    def forward(self, x):
        x = x.flatten(1)
        return {"features": x, "logits": self.head(x)}

class Opening:
    "Pretends to be an algorithm."
    def ask(self):
        return None

def broken_scheduler():
    raise KeyError("rung")
"""


@pytest.fixture(scope="module")
def seven():
    """The teacher's weights for seven classes."""
    return save(load_teacher("resnet14", num_classes=7, input_shape=(1, 8, 8)).state_dict())


@pytest.fixture
def folder(tmp_path, seven):
    (tmp_path / "mine.py").write_text(USER_CODE)
    (tmp_path / "notes.txt").write_text("not weights")
    save_file({"conv1.weight": torch.zeros(3, 3)}, tmp_path / "other.safetensors")
    (tmp_path / "seven.safetensors").write_bytes(seven)
    (tmp_path / "empty").mkdir()
    return tmp_path


BAD = {
    "unknown method": (["search.method=gpp"], ["search.method", "gpp", "gp"]),
    "unknown option of a method": (["search.options.beta=3"], ["search.options.beta", "gp"]),
    "method that is no algorithm": (["search.method=mine:Opening"], ["mine:Opening", "tell"]),
    "method that cannot be imported": (["search.method=nowhere:X"], ["nowhere:X"]),
    "unknown scheduler": (["schedule.name=asah"], ["schedule.name", "asah", "asha"]),
    "unknown option of a scheduler": (["schedule.rungs=3"], ["schedule.rungs"]),
    "scheduler that raises": (["schedule.name=mine:broken_scheduler"], ["schedule.name", "rung"]),
    "unknown data": (["data.name=digitz"], ["data.name", "digitz"]),
    "folder that is not there": (
        ["data.name=image_folder", "data.path=nowhere"],
        ["data.path", "nowhere"],
    ),
    "folder without images": (
        ["data.name=image_folder", "data.path=empty"],
        ["empty"],
    ),
    "data callable that raises": (["data.name=mine:raises"], ["mine:raises", "on fire"]),
    "labels outside the classes": (["data.name=mine:wrong_labels"], ["-3", "7"]),
    "images too small": (["data.name=mine:small_images", "teacher.model=mine:Big"], ["mine:Big"]),
    "unknown teacher": (["teacher.model=resnet15"], ["teacher.model", "resnet15", "resnet14"]),
    "teacher that raises": (["teacher.model=mine:raises"], ["mine:raises", "on fire"]),
    "teacher that is no module": (["teacher.model=mine:not_a_module"], ["mine:not_a_module"]),
    "teacher that takes other images": (["teacher.model=mine:Big"], ["mine:Big"]),
    "teacher with control flow": (["teacher.model=mine:Flow"], ["Flow"]),
    "teacher with the batch size in its code": (
        ["teacher.model=mine:Batch"],
        ["mine:Batch", "batch size"],
    ),
    "teacher with a large batch size in its code": (
        ["teacher.model=mine:Large"],
        ["mine:Large", "batch of 32"],
    ),
    "teacher of several outputs": (
        ["teacher.model=mine:Two"],
        ["mine:Two", "teacher.output_index", "['features', 'logits']"],
    ),
    "output that is not there": (
        ["teacher.model=mine:Two", "teacher.output_index=logit"],
        ["mine:Two", "teacher.output_index", "'logit'"],
    ),
    "output that is not the logits": (
        ["teacher.model=mine:Two", "teacher.output_index=features"],
        ["mine:Two", "64", "10 classes"],
    ),
    "index of a single output": (
        ["teacher.output_index=0"],
        ["resnet14", "teacher.output_index", "one Tensor"],
    ),
    "output index that is no index": (
        ["teacher.output_index=1.5"],
        ["teacher.output_index", "1.5"],
    ),
    "unknown teacher of timm": (["teacher.model=timm:resnet15"], ["timm:resnet15"]),
    "unknown teacher of torchvision": (
        ["teacher.model=torchvision:resnet15"],
        ["torchvision:resnet15", "resnet1"],
    ),
    "input shape of other images": (["teacher.input_shape=[3,32,32]"], ["teacher.input_shape"]),
    "weights that are missing": (["teacher.weights=gone.pt"], ["teacher.weights", "gone.pt"]),
    "weights that are no weights": (["teacher.weights=notes.txt"], ["notes.txt"]),
    "weights that do not fit": (["teacher.weights=other.safetensors"], ["other.safetensors"]),
    "weights for other classes": (
        ["teacher.weights=seven.safetensors"],
        ["seven.safetensors", "[7, 64]", "[10, 64]"],
    ),
    "budget that nothing meets": (["budget.params=3"], ["smallest"]),
    "negative budget": (["budget.params=-0.1"], ["budget.params", "-0.1"]),
    "budget that is no number": (["budget.params=little"], ["budget.params", "little"]),
    "too many CPUs": (["resources.cpus=4096"], ["resources.cpus", "4096"]),
    "too many GPUs": (["resources.gpus=64"], ["resources.gpus", "64"]),
    "too much at once": (["search.concurrency=4096"], ["search.concurrency", "4096"]),
    "storage that is a file": (["run.storage=notes.txt"], ["run.storage", "notes.txt"]),
    "validation that takes all": (["data.validation=0.9999"], ["validation"]),
}


def assert_refused(arguments, words, folder, monkeypatch, capsys):
    """One sentence with these words, status 2, and nothing is started; in this process, so that it is quick."""
    import ray

    from raysearch import cli

    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    running = ray.is_initialized()
    monkeypatch.setattr(sys, "argv", ["raysearch", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    error = capsys.readouterr().err
    assert ended.value.code == 2, error
    assert error.startswith("raysearch: ")
    assert error.count("\n") == 1
    assert "Traceback" not in error
    for word in words:
        assert word in error
    assert ray.is_initialized() == running
    assert not (folder / "runs").exists()


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_sentence_and_nothing_is_started(name, folder, monkeypatch, capsys):
    overrides, words = BAD[name]
    assert_refused(["run", *overrides], words, folder, monkeypatch, capsys)


BAD_COMPARISONS = {
    "no method": ([], ["methods", "empty"]),
    "unknown method": (["--methods", "random,gpp"], ["gpp", "gp"]),
    "a method that is none": (["--methods", "mine:Opening"], ["mine:Opening", "tell"]),
    "a method twice": (["--methods", "gp,gp"], ["'gp'", "twice"]),
    "no seed": (["--methods", "gp", "--seeds", "0"], ["seeds", "0"]),
    "seeds in words": (["--methods", "gp", "--seeds", "two"], ["seeds", "two"]),
    "another measure": (["--methods", "gp", "--equal", "hours"], ["equal", "hours"]),
    "another metric": (["--methods", "gp", "--metric", "f1"], ["metric", "f1"]),
    "a folder that is taken": (["--methods", "gp", "--storage", ".", "--name", "empty"], ["empty"]),
    "a name that is none": (["--methods", "gp", "--name", "a/b"], ["run.name", "a/b"]),
    "a table that is missing": (["--methods", "gp", "--table", "no.parquet"], ["no.parquet"]),
    "unknown key": (["--methods", "gp", "search.trails=3"], ["search.trails", "trials"]),
    "a budget that nothing meets": (["--methods", "gp", "budget.params=3"], ["smallest"]),
}


@pytest.mark.parametrize("name", BAD_COMPARISONS)
def test_a_comparison_with_bad_input_is_one_sentence_too(name, folder, monkeypatch, capsys):
    arguments, words = BAD_COMPARISONS[name]
    assert_refused(["compare", *arguments], words, folder, monkeypatch, capsys)


def test_a_process_ends_with_status_two_and_one_line(folder, environment):
    done = raysearch("run", "search.trials=0", cwd=folder, environment=environment)
    assert done.returncode == 2
    assert done.stderr == "raysearch: search.trials: 0 is not valid; it must be at least 1\n"


def test_a_folder_that_hides_our_packages_is_found_before_ray_starts(folder, environment):
    (folder / "searchers").mkdir()
    (folder / "searchers" / "__init__.py").write_text("")
    done = raysearch("run", cwd=folder, environment=environment)
    assert done.returncode == 2
    assert "'searchers'" in done.stderr
    assert "rename" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_help_and_the_package_load_nothing_heavy():
    script = "import sys, raysearch, raysearch.cli; print([m for m in ('torch', 'ray', 'botorch', 'pandas') if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout == "[]\n"


def test_the_methods_and_the_options_of_one_are_told(folder, monkeypatch, capsys):
    from typer.testing import CliRunner

    from raysearch.cli import app

    def told(*arguments):
        done = CliRunner().invoke(app, ["methods", *arguments], env={"COLUMNS": "300"})
        assert done.exit_code == 0
        return done.output

    assert "evolution" in told()
    rows = [line.split() for line in told("evolution").splitlines()[1:]]
    assert [row[:2] for row in rows[:2]] == [["population", "12"], ["tournament", "8"]]
    assert "no options" in told("uniform")
    words = ["did you mean 'evolution'"]
    assert_refused(["methods", "evolutoin"], words, folder, monkeypatch, capsys)


def test_resuming_what_is_no_run_is_refused(folder, monkeypatch, capsys):
    assert_refused(["resume", "empty"], ["empty: no run's folder"], folder, monkeypatch, capsys)


def lines(path):
    return path.read_text().count("\n") if path.exists() else 0


def start(arguments, folder, environment):
    return subprocess.Popen(
        [sys.executable, "-m", "raysearch", *arguments],
        cwd=folder,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # a suite that a shell put into the background has SIGINT ignored, and its children inherit that
        preexec_fn=functools.partial(signal.signal, signal.SIGINT, signal.default_int_handler),
    )


def wait_for_lines(process, log, count):
    """Returns when the log has that many lines; fails when the process ends before."""
    while lines(log) < count:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.1)


def stop(process, log, *, after, by):
    """Sends the signal when the log has that many lines; returns the whole lines that were left, and what was said."""
    wait_for_lines(process, log, after)
    os.kill(process.pid, by)
    _, errors = process.communicate()
    left = log.read_bytes()
    return left[: left.rfind(b"\n") + 1], errors


def test_a_run_that_is_killed_and_then_interrupted_continues(folder, environment, ray_cluster):
    """Killed with the Ray that it started; continued by the command line on the Ray of the tests, and interrupted; continued in this
    process."""
    import ray

    run = folder / "runs" / "cut"
    log = run / "observations.jsonl"
    arguments = ["run", *SMALL, "search.trials=8", "baselines=[uniform]", "run.name=cut"]
    process = start(arguments, folder, environment)
    killed, _ = stop(process, log, after=2, by=signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert not (run / "report.html").exists()

    attached = {**environment, "RAY_ADDRESS": ray.get_runtime_context().gcs_address}
    process = start(["resume", str(run), "cluster.address=auto"], folder, attached)
    # one more than there are: it must be at work, not still importing
    after = killed.count(b"\n") + 1
    interrupted, errors = stop(process, log, after=after, by=signal.SIGINT)
    assert process.returncode == 130, errors
    assert f"resume {run}" in errors
    assert interrupted.startswith(killed)
    assert not (run / "report.html").exists()

    resume(run, progress=False)
    assert log.read_bytes().startswith(interrupted)
    records = [json.loads(line) for line in log.read_text().splitlines()]
    assert len(records) == 8
    assert len({record["architecture_id"] for record in records}) == 8
    assert (run / "report.html").stat().st_size > 0
    summary = json.loads((run / "summary.json").read_text())
    assert sum(summary["trials"].values()) == 8
