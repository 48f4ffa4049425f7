"""SIGTERM, which Slurm, Docker and systemd stop a process with, ends a run as Ctrl-C does: at once, and resumable."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from raysearch.errors import Terminated


@contextmanager
def sigterm_interrupts() -> Iterator[None]:
    """For the block SIGTERM raises `Terminated`; in another thread than the main one, which gets no signals, nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    was_sent = False

    def terminate(number: int, frame: FrameType | None) -> None:
        nonlocal was_sent
        del number, frame
        was_sent = True
        raise Terminated

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    except KeyboardInterrupt:
        if was_sent:  # Ray raises a KeyboardInterrupt of its own in the place of ours
            raise Terminated from None
        raise
    finally:
        if before is not None:  # None: not set from Python, and it cannot be set again
            signal.signal(signal.SIGTERM, before)


@contextmanager
def sigterm_kept() -> Iterator[None]:
    """Whatever the block does to the handler of SIGTERM, it is as before after it."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if before is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)
