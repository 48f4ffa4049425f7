"""Runs that are continued: what is refused, what is found damaged, and who may work on a folder."""

import json
import os
import signal
import subprocess
import sys
import textwrap

import pytest
from safetensors.torch import save_file
from torch import zeros

import raysearch
from raysearch.cli import _show
from raysearch.config import load_config
from raysearch.errors import ConfigError, RunFolderError, RunInterrupted, Terminated
from raysearch.files import RunFiles
from raysearch.lock import locked
from raysearch.observations import EVALUATION, ObservationLog
from raysearch.problem import reopen
from raysearch.recovery import (
    forget_lost,
    read_card,
    read_session,
    read_teacher_graph,
    read_teacher_weights,
)
from raysearch.resuming import continued_config, fewer_trials
from raysearch.termination import sigterm_interrupts, sigterm_kept

# The lock


def test_a_folder_that_a_process_works_on_is_refused_until_that_process_is_killed(tmp_path):
    files = RunFiles(tmp_path)
    files.config.write_text(load_config().to_yaml())
    script = f"""
        import time
        from pathlib import Path
        from raysearch.lock import locked
        with locked(Path({str(files.lock)!r})):
            print("locked", flush=True)
            time.sleep(600)
    """
    worker = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, text=True
    )
    assert worker.stdout is not None
    try:
        assert worker.stdout.readline() == "locked\n"
        with pytest.raises(RunFolderError, match=rf"worked on by process {worker.pid} \("):
            raysearch.resume(tmp_path, progress=False)
    finally:
        worker.kill()
        worker.wait()
        worker.stdout.close()
    with locked(files.lock):
        assert files.lock.read_text().split()[0] == str(os.getpid())


def test_a_file_system_without_locks_is_worked_on_without(tmp_path, monkeypatch):
    def refuse(handle, operation):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("raysearch.lock.fcntl.flock", refuse)
    with locked(tmp_path / "lock"), locked(tmp_path / "lock"):
        pass


# The configuration


@pytest.mark.parametrize("text", ["", "# nothing\n", "search:\n  trials: 4\n"])
def test_a_damaged_configuration_is_not_continued_with_defaults(tmp_path, text):
    file = tmp_path / "config.yaml"
    file.write_text(text)
    with pytest.raises(
        RunFolderError, match=r"config\.yaml: damaged \(no section '\w+'\); restore"
    ):
        continued_config(file, ["search.trials=9"])


@pytest.mark.parametrize("override", ["search.method=random", "search={method: random}"])
def test_another_method_is_refused_when_a_run_is_continued(tmp_path, override):
    file = tmp_path / "config.yaml"
    file.write_text(load_config().to_yaml())
    with pytest.raises(ConfigError, match=r"search\.method: 'random' asked.*by 'gp'; start a new"):
        continued_config(file, [override])
    kept = continued_config(file, ["search.method=gp", "search.trials=99"])
    assert kept == load_config({"search": {"trials": 99}})


@pytest.mark.parametrize(
    "key", ["objective=f", "budget.params=0.5", "distill.lr=1", "data.mode=L", "teacher.epochs=3"]
)
def test_what_gives_the_results_their_meaning_is_refused(tmp_path, key):
    file = tmp_path / "config.yaml"
    file.write_text(load_config().to_yaml())
    with pytest.raises(ConfigError, match="start a new run"):
        continued_config(file, [key])


def test_fewer_trials_than_there_were_are_told():
    assert fewer_trials(8, 8) is None
    note = fewer_trials(3, 8)
    assert note is not None
    assert "3 asked" in note
    assert "8 students" in note


# The logs and the teacher

LINE = dict.fromkeys(EVALUATION, "x") | {"status": "full", "value": 1.0, "curve": []}


@pytest.mark.parametrize(
    ("damaged", "reason"),
    [
        ('{"architecture": "x", "arch', "Unterminated string"),
        ("[1]", "a list, not an object"),
        ("{}", "no 'architecture'"),
        (json.dumps({**LINE, "value": None}), "value is None"),
        ("\udcff", "utf-8"),
    ],
)
def test_a_damaged_line_is_named_by_file_and_number(tmp_path, damaged, reason):
    file = tmp_path / "observations.jsonl"
    good = json.dumps(LINE)
    text = f"{good}\n{damaged}\n{good}\n{good[:9]}"
    file.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(RunFolderError, match=rf"{file}: line 2 is damaged \(.*{reason}") as told:
        ObservationLog(file, holds=EVALUATION)
    assert "delete that line" in str(told.value)
    assert len(str(told.value).splitlines()) == 1
    file.write_text(f"{good}\n{good}\n{good[:9]}")
    assert ObservationLog(file, holds=EVALUATION).records == [LINE, LINE]


def test_a_damaged_teacher_is_named(tmp_path):
    files = RunFiles(tmp_path)
    files.teacher.mkdir()
    with pytest.raises(RunFolderError, match=r"teacher/architecture\.json: missing; restore"):
        read_teacher_graph(files)
    (files.teacher / "architecture.json").write_text("{}")
    with pytest.raises(RunFolderError, match=r"teacher/architecture\.json: damaged"):
        read_teacher_graph(files)
    files.teacher_card.write_text("{}")
    with pytest.raises(RunFolderError, match=r"teacher/card\.json: damaged \(no 'accuracy'\)"):
        read_card(files)


def test_teacher_weights_that_are_gone_or_cut_are_named(tmp_path):
    files = RunFiles(tmp_path)
    files.teacher.mkdir()
    path = files.teacher / "weights.safetensors"
    with pytest.raises(RunFolderError, match=r"weights\.safetensors: missing; restore"):
        read_teacher_weights(files)
    save_file({"w": zeros(9)}, path)
    assert read_teacher_weights(files)["w"].shape == (9,)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(RunFolderError, match=r"weights\.safetensors: damaged; restore"):
        read_teacher_weights(files)


def test_data_without_their_hash_are_named(tmp_path):
    files = RunFiles(tmp_path)
    files.teacher.mkdir()
    files.teacher_card.write_text("{}")
    files.data.write_text("{}")
    with pytest.raises(RunFolderError, match=r"data\.json: damaged \(no 'hash'\); restore"):
        reopen(load_config(), files)


@pytest.mark.parametrize(
    "content", [[], {}, {"seconds": {}, "training_s": 0, "pending": [{"edits": 1}]}]
)
def test_a_damaged_session_is_named(tmp_path, content):
    files = RunFiles(tmp_path)
    assert read_session(files) == ({}, [])
    files.session.write_text(json.dumps(content))
    with pytest.raises(RunFolderError, match=r"session\.json: damaged \("):
        read_session(files)


def test_full_trainings_whose_weights_are_gone_are_taken_from_the_students_or_forgotten(tmp_path):
    files = RunFiles(tmp_path)
    log = ObservationLog(files.finished)
    for key, status in (
        ("kept", "full"),
        ("exported", "full"),
        ("lost", "full"),
        ("bad", "failed"),
    ):
        log.append(
            {"architecture_id": key, "trial_id": f"t-{key}", "stage": "finish", "status": status}
        )
    files.weights.mkdir()
    save_file({"w": zeros(1)}, files.weights / "finish-kept.safetensors")
    for number, (key, trial) in enumerate([("exported", "t-exported"), ("lost", "t-other")]):
        student = files.students / f"{number:03d}"
        student.mkdir(parents=True)
        save_file({"w": zeros(number + 2)}, student / "weights.safetensors")
        metrics = {"architecture_id": key, "trial_id": trial}
        (student / "metrics.json").write_text(json.dumps(metrics))
    forget_lost(log, files)
    assert [record["architecture_id"] for record in log.records] == ["kept", "exported", "bad"]
    copied = files.weights / "finish-exported.safetensors"
    assert copied.read_bytes() == (files.students / "000" / "weights.safetensors").read_bytes()
    assert len(ObservationLog(files.finished).records) == 4  # the file keeps its lines


# SIGTERM


def be_terminated(replaced):
    with sigterm_interrupts():
        with sigterm_kept():  # as Ray does
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        try:
            signal.raise_signal(signal.SIGTERM)
        except KeyboardInterrupt:
            if replaced:  # as Ray does too
                raise KeyboardInterrupt from None
            raise


@pytest.mark.parametrize("replaced", [False, True])
def test_sigterm_interrupts_and_says_so_in_the_exit_status(tmp_path, replaced):
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Terminated) as told:
        be_terminated(replaced)
    assert signal.getsignal(signal.SIGTERM) == before
    assert isinstance(told.value, KeyboardInterrupt)
    assert RunInterrupted(tmp_path, cause=told.value).status == 143
    assert RunInterrupted(tmp_path, cause=KeyboardInterrupt()).status == 130


# Notes


def test_the_notes_of_a_run_reach_the_terminal(tmp_path, monkeypatch, capsys):
    summary = {"verdict": "good", "notes": ["1 of 4 classes [c] has no training image", "two"]}
    RunFiles(tmp_path).summary.write_text(json.dumps(summary))
    monkeypatch.setattr("raysearch.report.terminal_table", lambda folder: "table")
    _show(tmp_path)
    said = capsys.readouterr().out.splitlines()
    assert "note: 1 of 4 classes [c] has no training image" in said
    assert "note: two" in said
