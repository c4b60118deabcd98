"""Locks of the file system, which end with the process that holds them: who builds, and who uses what was built."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

_LOOK_SECONDS = 0.02


class Lease:
    """Keeps a build from being removed while this object lives; many processes may hold one.

    The file is made with the build, so that a server which may only read can hold it, too. `alone` raises
    `BlockingIOError` while others hold one.
    """

    def __init__(self, path: Path, *, alone: bool = False) -> None:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._end = weakref.finalize(self, os.close, descriptor)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB if alone else fcntl.LOCK_SH)

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, *_error: object) -> None:
        self.release()

    def release(self) -> None:
        """Gives it back before its time."""
        self._end()


@contextlib.contextmanager
def exclusive(path: Path, *, wait_seconds: float, stopped: Callable[[], bool] = lambda: False) -> Iterator[bool]:
    """Holds a lock alone; False if another holds it for longer than that, or until `stopped` says so."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        yield _taken(descriptor, wait_seconds, stopped)
    finally:
        os.close(descriptor)


def _taken(descriptor: int, wait_seconds: float, stopped: Callable[[], bool]) -> bool:
    end = time.monotonic() + wait_seconds
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= end or stopped():
                return False
            time.sleep(_LOOK_SECONDS)
        else:
            return True
