"""The progress display: a live picture on a terminal, now and then a plain line elsewhere. Knows nothing of Ray.

Whoever runs something calls the events of `Progress`, from any thread; the display never raises into the run because its stream is
closed or broken.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Self, TextIO, cast

from raysearch.formatting import clock, count, decimal, percent
from raysearch.phase import Phase, Training, TrialResult
from raysearch.terminal import Glyphs, SafeStream, is_lively

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live

QUIET_S = 3.0  # between two routine lines without a terminal
HEARTBEAT_S = 30.0  # without a line, and a running trial's report gives one
REFRESH_HZ = 4
BAR_WIDTH, SPARK_WIDTH, NAME_WIDTH = 12, 32, 14
EMPTY = Phase("")


class Progress:
    """Shows how far a run is.

    Args:
        total_trials: how many trials the search has; the total of a phase that gives none and is called "search".
        budget_text: the budget for people: "at most 4,200 parameters (5 % of the teacher)".
        stream: where to write; standard error by default.
        enabled: True draws the live picture whatever the stream is, False shows nothing, None draws on a terminal (not with
            TERM=dumb or in CI) and else writes plain lines.
        console: a rich console to draw on instead of `stream`.
        now: the clock, in seconds.
    """

    def __init__(
        self,
        *,
        total_trials: int | None = None,
        budget_text: str = "",
        stream: IO[str] | None = None,
        enabled: bool | None = None,
        console: Console | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._total_trials = total_trials
        self._budget_text = budget_text
        self._stream = SafeStream(sys.stderr if stream is None else stream)
        self._silent = enabled is False
        self._lively = enabled is True or (enabled is None and is_lively(self._stream))
        self._console = console
        self._live: Live | None = None
        self._now = now
        self._lock = threading.Lock()  # guards the state; never held while writing
        self._write_lock = threading.Lock()  # keeps plain lines whole
        self._phase = EMPTY
        self._start = now()
        self._last_line = -QUIET_S
        self._glyphs = Glyphs.of(console.encoding if console else self._stream.encoding)

    def __enter__(self) -> Self:
        self._start = self._now()
        if self._lively and not self._silent:
            self._live = self._open_live()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close(finished=kind is None)

    def phase(
        self, name: str, total: int | None = None, text: str | None = None, done: int = 0
    ) -> None:
        """Begins a phase ("teacher", "search", "finish", ...); the one before is over.

        Args:
            name: shown to the person.
            total: steps until its end (epochs, trials), None if not known.
            text: one more word about it.
            done: steps that an earlier session has done already.
        """
        if total is None and name == "search":
            total = self._total_trials
        now = self._now()
        with self._lock:
            before, self._phase = self._phase, Phase(name, total, text or "", done, done, now)
        self._end_of(before, now)
        of = f" 0/{count(total)}" if total else ""
        self._say(f"{name}{of}{f', {text}' if text else ''}", live=False)

    def advance(self, n: int = 1, **info: Any) -> None:
        """The phase has done `n` more steps; `info` is shown beside ("accuracy" and names that end so as percentages)."""
        with self._lock:
            self._phase = self._phase.advanced(n, _info_text(info))
            phase = self._phase
        self._say(phase.line(self._now()), live=False, quiet_s=QUIET_S)

    def counted(self, done: int, total: int, epochs_left: float | None = None) -> None:
        """Where the phase stands, by somebody who knows better than the events: steps may cost no trial, and fewer may come than were asked for.

        Args:
            done, total: steps.
            epochs_left: of all trials that are not finished, running ones counted whole; None: not known.
        """
        with self._lock:
            self._phase = self._phase.counted(done, total, epochs_left)

    def trial_started(self, trial_id: str) -> None:
        """A trial has begun to train."""
        with self._lock:
            self._phase = self._phase.with_started(trial_id)

    def trial_result(
        self,
        trial_id: str,
        epoch: int,
        epochs: int,
        reward: float | None = None,
        accuracy: float | None = None,
        step: int = 1,
    ) -> None:
        """A running trial has reported `epoch` of its `epochs`, the last `step` of them since the report before."""
        del reward, accuracy  # a value before the last epoch is not compared with full ones
        with self._lock:
            now = self._now()
            training = Training(epoch, epochs)
            self._phase = self._phase.with_report(trial_id, training, min(step, epoch), now)
            phase = self._phase
        self._say(phase.line(now), live=False, quiet_s=HEARTBEAT_S)

    def trial_finished(
        self,
        trial_id: str,
        status: str = "ok",
        reward: float | None = None,
        accuracy: float | None = None,
        num_params: int | None = None,
        compared: bool = True,
    ) -> None:
        """A trial has ended; this is one step of the phase.

        Args:
            trial_id: the one given to `trial_started`, if it was.
            status: "ok" or "full", "stopped" (early), or what went wrong.
            reward, accuracy, num_params: its result, None where there is none.
            compared: whether it competes for the best so far (not, say, a baseline).
        """
        result = TrialResult(trial_id, status, reward, accuracy, num_params)
        with self._lock:
            self._phase = self._phase.finished(result, compared=compared)
            phase = self._phase
        self._say(phase.trial_line(result, self._now()), live=False, quiet_s=QUIET_S)

    def note(self, text: str) -> None:
        """Something the person should know, on a line of its own that stays."""
        self._say(text)

    def close(self, *, finished: bool = True) -> None:
        """Ends the last phase, `finished` or cut, and the display. May be called twice."""
        now = self._now()
        with self._lock:
            before, self._phase = self._phase, EMPTY
        self._end_of(before, now, finished=finished)
        with self._lock:
            live, self._live = self._live, None
        if live is not None:
            live.stop()

    def _end_of(self, phase: Phase, now: float, *, finished: bool = True) -> None:
        if phase.name:
            mark = self._glyphs.tick if finished else "cut:"
            self._say(f"{mark} {phase.closing_line(now)}")

    def _say(self, text: str, *, live: bool = True, quiet_s: float = 0.0) -> None:
        """Writes a line.

        Args:
            text: one line.
            live: whether it goes above the live picture too, or is only for plain streams, since the picture shows it.
            quiet_s: a line of routine: left out where the last one is not that old.
        """
        if self._silent or (self._lively and not live):
            return
        text = self._glyphs.clean(text)
        live_display = self._live
        if live_display is not None:
            live_display.console.print(text, markup=False, highlight=False, soft_wrap=True)
            return
        with self._write_lock:
            now = self._now()
            if now - self._last_line < quiet_s:
                return
            self._last_line = now
            self._stream.write(f"[{clock(now - self._start)}] {text}\n")
            self._stream.flush()

    def _open_live(self) -> Live:
        from rich.console import Console
        from rich.live import Live

        console = self._console or Console(
            file=cast(TextIO, self._stream), force_terminal=True, highlight=False
        )
        live = Live(
            console=console,
            get_renderable=self._picture,
            refresh_per_second=REFRESH_HZ,
            transient=True,
            redirect_stdout=_is_terminal(sys.stdout),  # what goes to a file or pipe stays there
            redirect_stderr=_is_terminal(sys.stderr),
        )
        live.start()
        return live

    def _picture(self) -> RenderableType:
        with self._lock:
            phase = self._phase
        return picture(phase, self._glyphs, budget=self._budget_text, now=self._now())


def picture(phase: Phase, glyphs: Glyphs, *, budget: str, now: float) -> RenderableType:
    """The live display of a phase: a bar, then the best so far, the budget and the rewards, each on a line that is cut to the width."""
    from rich.console import Group
    from rich.text import Text

    if not phase.name:
        return Text("")
    left = phase.left_s(now)
    facts = [phase.counter]
    facts += [f"{len(phase.running)} running"] if phase.running else []
    facts += [f"{phase.failed} failed"] if phase.failed else []
    facts += [f"{clock(now - phase.start)} elapsed"]
    facts += [f"{clock(left)} left"] if left is not None else []
    full, empty = glyphs.bar(phase.fraction or 0.0, BAR_WIDTH if phase.total else 0)
    bar = Text.assemble((full, "cyan"), (empty, "bright_black"), "  " if phase.total else "")
    rows = [(phase.name, bar.append(_joined(glyphs, facts)))]
    detail = " ".join(part for part in (phase.text, phase.info) if part)
    rows += [("", Text(glyphs.clean(detail)))] if detail else []
    if phase.best is not None:
        rows += [("best", Text(glyphs.clean(str(phase.best)), style="bold"))]
    if phase.rewards and budget:
        rows += [("budget", Text(glyphs.clean(budget)))]
    if len(phase.rewards) > 1:
        span = f"  {decimal(min(phase.rewards))} to {decimal(max(phase.rewards))}"
        rows += [("rewards", Text(glyphs.sparkline(phase.rewards, SPARK_WIDTH) + span))]
    width = min(NAME_WIDTH, max(len(name) for name, _ in rows))
    lines = []
    for name, value in rows:
        line = Text.assemble((f"{glyphs.clean(name):{width}}  ", "bright_black"), value)
        line.no_wrap, line.overflow = True, "crop" if glyphs.ascii_only else "ellipsis"
        lines.append(line)
    return Group(*lines)


def _joined(glyphs: Glyphs, facts: list[str]) -> str:
    return glyphs.clean(f" {glyphs.dot} ".join(facts))


def _info_text(info: Mapping[str, Any]) -> str:
    """`accuracy=0.912, loss=0.31` -> "accuracy 91.2 %, loss 0.310"."""
    return ", ".join(
        f"{name.replace('_', ' ')} {_value(name, value)}" for name, value in info.items()
    )


def _value(name: str, value: Any) -> str:
    if isinstance(value, float):
        return percent(value) if name.endswith("accuracy") else decimal(value)
    return count(value) if isinstance(value, int) else str(value)


def _is_terminal(stream: TextIO | None) -> bool:
    return stream is not None and SafeStream(stream).isatty()
