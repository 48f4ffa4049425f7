"""CPU seconds of a piece of work over all of its processes: this one, Ray's, a peer's own interpreter."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Self

INTERVAL_S = 0.25
"""How often other processes are looked at; what one does between the last look and its end is lost."""

Process = tuple[int, str]
"""(process id, when it started): ids are used again."""


class CpuClock:
    """Counts CPU seconds between entering and leaving; `seconds` may be read in between.

    Processes that this one starts, and theirs, are read from /proc (Linux): a killed Ray worker's time is in nobody's `getrusage`.
    """

    def __enter__(self) -> Self:
        self._start = time.process_time()
        self._before = descendants(os.getpid())
        self._others: dict[Process, float] = {}
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join()
        self._total = self.seconds
        self._start = None

    @property
    def seconds(self) -> float:
        """Until now; after the end, in all."""
        if self._start is None:
            return self._total
        self._look()
        others = sum(
            seconds - self._before.get(process, 0.0) for process, seconds in self._others.items()
        )
        return time.process_time() - self._start + others

    def _watch(self) -> None:
        while not self._ended.wait(INTERVAL_S):
            self._look()

    def _look(self) -> None:
        with self._lock:
            self._others.update(descendants(os.getpid()))


def descendants(root: int) -> dict[Process, float]:
    """User and system seconds of all processes below `root`; {} where there is no /proc."""
    found: dict[int, tuple[int, Process, float]] = {}
    tick = os.sysconf("SC_CLK_TCK")
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            text = (folder / "stat").read_text()
        except OSError:  # it has ended
            continue
        fields = text.rpartition(")")[2].split()  # the name before it may hold spaces
        process = (int(folder.name), fields[19])
        found[int(folder.name)] = (int(fields[1]), process, sum(map(int, fields[11:13])) / tick)
    below, grown = {root}, True
    while grown:
        more = {pid for pid, (parent, *_) in found.items() if parent in below} - below
        below |= more
        grown = bool(more)
    return {
        process: seconds for pid, (_, process, seconds) in found.items() if pid in below - {root}
    }
