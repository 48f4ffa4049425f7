"""One process works on a run's folder at a time: a lock of the operating system, which a process that dies leaves free, however it dies."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from raysearch.errors import RunFolderError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL)
"""What a file system answers that has no locks."""


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds the lock for the block; `path` names the process that holds it, or held it last, and stays.

    It is never deleted: a process that waits for the deleted file and one that makes a new one would both have a lock. Where the system
    or the file system has no such locks, the block runs without.

    Args:
        path: of the file, in the folder that is locked.

    Raises:
        RunFolderError: another process holds it.
    """
    # not inherited by the processes that Ray starts, which may outlive this one
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            if fcntl is not None:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunFolderError(
                f"{path.parent} is being worked on by {_holder(path)}: wait for its end, or stop it"
            ) from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
        os.ftruncate(handle, 0)
        os.write(handle, f"{os.getpid()} {socket.gethostname()}\n".encode())
        yield
    finally:
        os.close(handle)


def _holder(path: Path) -> str:
    """Who wrote the file, for people."""
    pid, _, host = path.read_text(encoding="utf-8").strip().partition(" ")
    return f"process {pid} ({host})" if pid else "another process"
