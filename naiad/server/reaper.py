"""Waits for children: workers by their pidfd, orphans that re-parenting brings by looking for them."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

ORPHAN_SECS = 2.0
UNKNOWN = -1
"""The wait status of a child that somebody else has waited for."""


class Reaper:
    """One thread that reaps every child of this process which has no other owner."""

    def __init__(self, *, tick: Callable[[], None], orphan_secs: float = ORPHAN_SECS) -> None:
        self._tick = tick
        self._orphan_secs = orphan_secs
        self._watched: dict[int, tuple[int, Callable[[int], None]]] = {}
        self._owned: set[int] = set()
        self._orphans: set[int] = set()
        self._lock = threading.Lock()
        self._wake_read, self._wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        # poll and not select: a server with many connections has descriptors above 1023.
        self._poll = select.poll()
        self._poll.register(self._wake_read, select.POLLIN)
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="reaper", daemon=True)
        self._thread.start()

    def watch(self, pid: int, on_exit: Callable[[int], None]) -> None:
        """Calls `on_exit(wait status)` once, on the reaper's thread, when `pid` has ended.

        A process that is gone already is told at once, from the caller's thread.
        """
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            on_exit(UNKNOWN)
            return
        with self._lock:
            self._watched[pidfd] = (pid, on_exit)
            self._poll.register(pidfd, select.POLLIN)
        self._wake()

    def spawn(self, start: Callable[[], subprocess.Popen[bytes]]) -> subprocess.Popen[bytes]:
        """Starts a child for which somebody else waits, so that it is never taken for an orphan."""
        process = start()
        with self._lock:
            self._owned.add(process.pid)
        return process

    def disown(self, pid: int) -> None:
        """The child of `spawn` has been waited for."""
        with self._lock:
            self._owned.discard(pid)

    def stop(self) -> None:
        """Ends the thread and closes what it holds; watched processes are told of no more."""
        self._stopping = True
        self._wake()
        self._thread.join()
        for descriptor in (self._wake_read, self._wake_write, *self._watched):
            os.close(descriptor)
        self._watched.clear()

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.write(self._wake_write, b"x")

    def _run(self) -> None:
        looked = time.monotonic()
        while not self._stopping:
            for descriptor, _ in self._poll.poll(self._orphan_secs * 1000):
                if descriptor == self._wake_read:
                    with contextlib.suppress(BlockingIOError):
                        os.read(self._wake_read, 4096)
                else:
                    self._reap(descriptor)
            if not self._stopping and time.monotonic() - looked >= self._orphan_secs:
                looked = time.monotonic()
                self._reap_orphans()
                self._tick()

    def _reap(self, pidfd: int) -> None:
        with self._lock:
            pid, on_exit = self._watched.pop(pidfd)
            self._poll.unregister(pidfd)
        try:
            _, status = os.waitpid(pid, 0)
        except ChildProcessError:
            status = UNKNOWN  # not ours: it died before it was handed to us
        os.close(pidfd)
        on_exit(status)

    def _reap_orphans(self) -> None:
        """Reaps unknown children that were dead at the last look too.

        The delay leaves a child that dies just after its start to whoever is about to watch it.
        """
        with self._lock:
            known = self._owned | {pid for pid, _ in self._watched.values()}
        dead = {pid for pid in _children() if pid not in known and _is_dead(pid)}
        for pid in dead & self._orphans:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        self._orphans = dead


def _children() -> set[int]:
    found: set[int] = set()
    for children in Path("/proc/self/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found.update(int(pid) for pid in children.read_text().split())
    return found


def _is_dead(pid: int) -> bool:
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return False


def describe_exit(status: int) -> str:
    """A wait status in words: `exit code 1`, `signal 9 (Killed)`."""
    if status == UNKNOWN:
        return "cause unknown"
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        return f"signal {number} ({signal.strsignal(number)})"
    return f"exit code {os.waitstatus_to_exitcode(status)}"
