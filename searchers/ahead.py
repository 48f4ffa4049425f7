"""Work that runs ahead of its being asked for, in a thread, so that Tune's loop does not wait for it.

A task has a key that says everything that it depends on. Whoever wants the result gives key and task again: if that task runs or has
run, its result is taken, else it runs now. So what comes out never depends on timing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, TypeVar

T = TypeVar("T")
Cancelled = Callable[[], bool]
"""Asked by a task now and then: whether its result is still wanted."""


class Ahead(Generic[T]):
    """Runs the newest task; older ones are told to stop.

    Attributes:
        unnoticed_s: seconds that tasks took while nobody waited for them.
    """

    def __init__(self) -> None:
        self.unnoticed_s = 0.0
        self._pool: ThreadPoolExecutor | None = None
        self._key: Hashable = None
        self._future: Future[T] | None = None
        self._cancel = threading.Event()

    def start(self, key: Hashable, task: Callable[[Cancelled], T]) -> None:
        """Begins the task unless it is the one that was begun last."""
        if self._future is not None and self._key == key:
            return
        self.stop()
        if self._pool is None:
            self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ahead")
        self._cancel = cancel = threading.Event()
        self._key, self._future = key, self._pool.submit(self._timed, task, cancel.is_set)

    def is_ready(self, key: Hashable) -> bool:
        """Whether `result` would return at once."""
        return self._future is not None and self._key == key and self._future.done()

    def result(self, key: Hashable, task: Callable[[Cancelled], T]) -> T:
        """The task's result, waited for; what the task raised is raised."""
        self.start(key, task)
        assert self._future is not None, "start has begun it"
        start = time.perf_counter()
        try:
            return self._future.result()
        finally:
            self.unnoticed_s -= time.perf_counter() - start

    def _timed(self, task: Callable[[Cancelled], T], cancelled: Cancelled) -> T:
        start = time.perf_counter()
        try:
            return task(cancelled)
        finally:
            self.unnoticed_s += time.perf_counter() - start

    def stop(self) -> None:
        """Tells the task that runs that nobody wants it any more; it ends at its next look."""
        self._cancel.set()
        if self._future is not None:
            self._future.cancel()
        self._key = self._future = None

    def __getstate__(self) -> dict[str, Any]:
        return {}  # a thread cannot be pickled, and its task can be begun again

    def __setstate__(self, state: dict[str, Any]) -> None:
        del state
        self.__init__()
