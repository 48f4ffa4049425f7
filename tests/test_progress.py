"""The progress display: plain lines without a terminal, one picture on a terminal, and never an exception into the run."""

from __future__ import annotations

import io
import re
import threading

import pytest
from rich.console import Console

from raysearch.phase import Phase, Training, TrialResult
from raysearch.progress import QUIET_S, Progress, picture
from raysearch.terminal import ASCII, UNICODE, Glyphs, SafeStream, is_lively


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    """A stream that claims to be a terminal."""

    def isatty(self) -> bool:
        return True


def _search(progress: Progress, clock: Clock, trials: int = 8, step: float = 10.0) -> None:
    progress.phase("search")
    for number in range(trials):
        progress.trial_started(f"t{number}")
        clock.now += step / 2
        progress.trial_result(f"t{number}", 2, 4, 0.1, 0.5)
        clock.now += step / 2
        if number == 2:
            progress.trial_finished(f"t{number}", "diverged")
        else:
            progress.trial_finished(f"t{number}", "ok", 0.5 + number / 100, 0.9, 4132)


def test_without_a_terminal_each_trial_is_a_plain_line() -> None:
    stream, clock = io.StringIO(), Clock()
    with Progress(total_trials=8, stream=stream, now=clock) as progress:
        _search(progress, clock)
    text = stream.getvalue()
    lines = text.splitlines()
    assert "\x1b" not in text
    assert lines[0] == "[0:00] search 0/8"
    assert lines[1].startswith(
        "[0:10] search 1/8: reward 0.500, accuracy 90.0 %, 4,132 parameters; best reward 0.500"
    )
    assert "search 3/8: diverged" in lines[3]
    assert (
        lines[-1]
        == "[1:20] ✓ search 8/8 in 1 min 20 s; best: reward 0.570, accuracy 90.0 %, 4,132 parameters; 1 failed"
    )
    assert len(lines) == 1 + 8 + 1


def test_quick_trials_give_a_line_every_few_seconds_only() -> None:
    stream, clock = io.StringIO(), Clock()
    with Progress(total_trials=1000, stream=stream, now=clock) as progress:
        _search(progress, clock, trials=1000, step=0.01)
    assert 3 <= len(stream.getvalue().splitlines()) <= 4 + 10 / QUIET_S


def test_the_epochs_of_the_teacher_are_steps_of_its_phase() -> None:
    stream, clock = io.StringIO(), Clock()
    with Progress(stream=stream, now=clock) as progress:
        progress.phase("teacher", total=4, text="resnet14 on digits")
        for epoch in range(4):
            clock.now += 5
            progress.advance(accuracy=0.5 + epoch / 10, loss=0.25, epoch=epoch)
        progress.phase("finish")
    lines = stream.getvalue().splitlines()
    assert lines[0] == "[0:00] teacher 0/4, resnet14 on digits"
    assert lines[1] == "[0:05] teacher 1/4, accuracy 50.0 %, loss 0.250, epoch 0, about 15 s left"
    assert lines[5] == "[0:20] ✓ teacher 4/4 in 20 s; accuracy 80.0 %, loss 0.250, epoch 3"
    assert lines[-1].endswith("✓ finish in 0.0 s")


def test_notes_always_appear_and_stay_on_one_line() -> None:
    stream = io.StringIO()
    with Progress(stream=stream, now=Clock()) as progress:
        progress.note("no test part:\n15 % split off \x1b[31m[bold]x")
    assert stream.getvalue() == "[0:00] no test part: 15 % split off  [31m[bold]x\n"


def test_silence_is_kept_on_request() -> None:
    stream, clock = Terminal(), Clock()
    with Progress(total_trials=3, stream=stream, enabled=False, now=clock) as progress:
        _search(progress, clock, trials=3)
        progress.note("x")
    assert stream.getvalue() == ""


@pytest.mark.parametrize(("name", "value"), [("TERM", "dumb"), ("CI", "true")])
def test_a_dumb_terminal_and_ci_get_plain_lines(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("CI", raising=False)
    assert is_lively(SafeStream(Terminal()))
    assert not is_lively(SafeStream(io.StringIO()))
    monkeypatch.setenv(name, value)
    stream, clock = Terminal(), Clock()
    with Progress(total_trials=2, stream=stream, now=clock) as progress:
        _search(progress, clock, trials=2)
    assert "\x1b" not in stream.getvalue()
    assert "search 2/2" in stream.getvalue()


def test_a_terminal_gets_a_picture_that_goes_and_lines_that_stay() -> None:
    stream, clock = Terminal(), Clock()
    console = Console(file=stream, force_terminal=True, width=100, legacy_windows=False)
    with Progress(
        total_trials=8, budget_text="at most 4,200", console=console, enabled=True, now=clock
    ) as progress:
        _search(progress, clock)
        progress.note("a note")
    text = stream.getvalue()
    assert "\x1b[?25l" in text
    assert text.rstrip("\n").rfind("\x1b[?25h") > text.rfind("\x1b[?25l")  # the cursor is back
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
    assert "a note" in plain
    assert "✓ search 8/8 in 1 min 20 s" in plain


def _drawn(phase: Phase, *, width: int = 90, glyphs: Glyphs = UNICODE, now: float = 130.0) -> str:
    console = Console(file=io.StringIO(), width=width, record=True)
    console.print(picture(phase, glyphs, budget="at most 4,200 parameters", now=now))
    return console.export_text()


def _busy_phase() -> Phase:
    phase = Phase("search", total=32, start=100.0)
    for number in range(12):
        phase = phase.finished(
            TrialResult(str(number), "ok", 0.5 + number / 50, 0.9, 4132), compared=True
        )
    return phase.finished(TrialResult("bad", "diverged"), compared=True).with_report(
        "a", Training(2, 4), 1, 120.0
    )


def test_the_picture_names_what_a_person_wants_to_know() -> None:
    text = _drawn(_busy_phase())
    for word in (
        "13/32",
        "1 running",
        "1 failed",
        "0:30 elapsed",
        "left",
        "reward 0.720",
        "90.0 %",
        "4,132 parameters",
    ):
        assert word in text, word
    assert "at most 4,200 parameters" in text
    assert "▁" in text
    assert "█" in text
    assert "0.500 to 0.720" in text


@pytest.mark.parametrize("width", [20, 40, 60, 200])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    lines = _drawn(_busy_phase(), width=width).splitlines()
    assert len(lines) == 4
    assert max(map(len, lines)) <= width


def test_ascii_is_used_where_the_encoding_has_no_more() -> None:
    assert Glyphs.of("utf-8") is UNICODE
    assert Glyphs.of("latin-1") is ASCII
    assert Glyphs.of("no such encoding") is ASCII
    assert _drawn(_busy_phase(), glyphs=ASCII).isascii()
    raw = io.BytesIO()
    stream, clock = io.TextIOWrapper(raw, encoding="ascii"), Clock()
    with Progress(total_trials=2, stream=stream, now=clock) as progress:
        _search(progress, clock, trials=2)
        progress.note("Prüfung – fertig")
    stream.flush()
    assert b"Pr?fung - fertig" in raw.getvalue()


def test_the_time_left_follows_from_the_pace_and_counts_running_trials() -> None:
    phase = Phase("search", total=10, start=0.0)
    assert phase.left_s(50.0) is None
    for number in range(2):
        phase = phase.finished(TrialResult(str(number), "ok", 0.5), compared=True)
    assert phase.left_s(20.0) == pytest.approx(80.0)  # 2 of 10 in 20 s
    for trial in ("a", "b"):
        phase = phase.with_report(trial, Training(2, 4), 1, 30.0)
    assert phase.left_s(30.0) == pytest.approx(70.0)  # 3 of 10 in 30 s


def test_the_time_left_is_told_by_epochs_where_they_are_known() -> None:
    """Ten students of 4 epochs and one of 100, an epoch a second on each of two slots."""
    phase = Phase("search", total=11, start=0.0).counted(0, 11, 140.0)
    assert phase.left_s(50.0) is None
    for trial in ("a", "b"):
        phase = phase.with_started(trial)
    for epoch in (1, 2, 3):  # workers took 20 s to start
        for trial in ("a", "b"):
            phase = phase.with_report(trial, Training(epoch, 4), 1, 20.0 + epoch)
    # 5 epochs since the first report, 134 are left
    assert phase.left_s(23.0) == pytest.approx(134 * 2 / 5)
    for trial in ("a", "b"):
        phase = phase.with_report(trial, Training(4, 4), 1, 24.0)
        phase = phase.finished(TrialResult(trial, "ok", 0.5), compared=True)
    assert phase.pace.left == 132
    phase = phase.counted(2, 11, 132.0)
    assert phase.left_s(24.0) == pytest.approx(132 * 3 / 7)
    assert "about 57 s left" in phase.line(24.0)


def test_epochs_of_an_earlier_session_do_not_speed_up_the_estimate() -> None:
    phase = Phase("search", total=2, done=1, inherited=1, start=0.0).counted(1, 2, 100.0)
    phase = phase.with_report("a", Training(60, 100), 10, 10.0)
    phase = phase.with_report("a", Training(70, 100), 10, 20.0)
    assert phase.left_s(20.0) == pytest.approx(30.0)


def test_a_long_training_gives_a_line_now_and_then() -> None:
    stream, clock = io.StringIO(), Clock()
    with Progress(stream=stream, now=clock) as progress:
        progress.phase("search", total=2)
        progress.trial_started("a")
        for epoch in range(1, 101):
            clock.now += 1
            progress.trial_result("a", epoch, 100)
            progress.counted(0, 2, 200.0)
    lines = stream.getvalue().splitlines()
    assert lines[1:4] == [
        "[0:30] search 0/2, 1 in training, about 2 min 50 s left",
        "[1:00] search 0/2, 1 in training, about 2 min 20 s left",
        "[1:30] search 0/2, 1 in training, about 1 min 50 s left",
    ]
    assert len(lines) == 5


def test_steps_of_an_earlier_session_do_not_speed_up_the_estimate() -> None:
    phase = Phase("search", total=10, done=6, inherited=6, start=0.0)
    assert phase.left_s(10.0) is None
    assert phase.finished(TrialResult("x", "ok", 0.5), compared=True).left_s(10.0) == pytest.approx(
        30.0
    )


def test_only_full_compared_results_can_be_the_best() -> None:
    phase = Phase("search")
    phase = phase.finished(TrialResult("a", "stopped", 0.9), compared=True)
    phase = phase.finished(TrialResult("b", "ok", 0.8), compared=False)
    phase = phase.finished(TrialResult("c", "ok", float("nan")), compared=True)
    phase = phase.finished(TrialResult("d", "invalid", 0.99), compared=True)
    assert phase.best is None
    phase = phase.finished(TrialResult("e", "ok", 0.1), compared=True)
    assert phase.best is not None
    assert phase.best.trial_id == "e"
    assert phase.done == 5
    assert phase.failed == 1


def test_a_sparkline_spans_its_values_and_keeps_the_peaks() -> None:
    assert UNICODE.sparkline([0.0, 0.5, 1.0], 10) == "▁▅█"
    assert UNICODE.sparkline([3.0, 3.0], 10) == "██"
    assert UNICODE.sparkline([], 10) == ""
    assert UNICODE.sparkline([0.0, 1.0, 0.0, 0.2], 2) == "█▁"
    assert len(UNICODE.sparkline(list(range(1000)), 32)) <= 32


class Broken(io.StringIO):
    """A stream whose other end is gone."""

    def isatty(self) -> bool:
        return True

    def write(self, text: str, /) -> int:
        raise BrokenPipeError(len(text))

    def flush(self) -> None:
        raise BrokenPipeError


@pytest.mark.parametrize("enabled", [None, True])
@pytest.mark.parametrize("kind", ["broken", "closed"])
def test_a_stream_that_fails_does_not_reach_the_run(enabled: bool | None, kind: str) -> None:
    stream = Broken()
    if kind == "closed":
        stream = io.StringIO()
        stream.close()
    caught: list[object] = []
    hook, threading.excepthook = threading.excepthook, caught.append
    clock = Clock()
    try:
        with Progress(total_trials=4, stream=stream, enabled=enabled, now=clock) as progress:
            _search(progress, clock, trials=4)
            progress.note("x")
    finally:
        threading.excepthook = hook
    assert caught == []


def test_an_interrupt_passes_through_and_gives_the_cursor_back() -> None:
    stream = Terminal()
    console = Console(file=stream, force_terminal=True, width=80, legacy_windows=False)

    def interrupted() -> None:
        with Progress(console=console, enabled=True) as progress:
            progress.phase("search", total=3)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert "\x1b[?25h" in stream.getvalue()
    assert "cut: search 0/3" in stream.getvalue()


def test_events_of_many_threads_are_all_counted_and_lines_stay_whole() -> None:
    stream, clock = io.StringIO(), Clock()
    progress = Progress(total_trials=400, stream=stream, now=clock)

    def work(worker: int) -> None:
        for number in range(50):
            progress.trial_started(f"{worker}.{number}")
            progress.trial_finished(f"{worker}.{number}", "ok", 0.5, 0.9, 10)
            progress.note(f"note {worker}.{number}")

    with progress:
        progress.phase("search")
        threads = [threading.Thread(target=work, args=(worker,)) for worker in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    lines = stream.getvalue().splitlines()
    assert sum(bool(re.fullmatch(r"\[0:00\] note \d\.\d+", line)) for line in lines) == 400
    assert "search 400/400" in lines[-1]


def test_closing_twice_is_harmless() -> None:
    stream = io.StringIO()
    progress = Progress(stream=stream, now=Clock())
    with progress:
        progress.phase("search", total=1)
    before = stream.getvalue()
    progress.close()
    assert stream.getvalue() == before
