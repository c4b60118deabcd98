"""Waits for children: workers by their pidfd, orphans that re-parenting brings by looking for them."""

from __future__ import annotations

import contextlib
import os
import select
import threading
from collections.abc import Callable
from pathlib import Path

ORPHAN_SECS = 2.0


class Reaper:
    """One thread that reaps every child of this process which has no other owner."""

    def __init__(self, *, tick: Callable[[], None]) -> None:
        self._tick = tick
        self._watched: dict[int, tuple[int, Callable[[int], None]]] = {}
        self._owned: set[int] = set()
        self._lock = threading.Lock()
        self._wake_read, self._wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="reaper", daemon=True)
        self._thread.start()

    def watch(self, pid: int, on_exit: Callable[[int], None]) -> None:
        """Calls `on_exit(wait status)` once, on the reaper's thread, when `pid` has ended."""
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:  # it ended at once and was taken for an orphan
            on_exit(0)
            return
        with self._lock:
            self._watched[pidfd] = (pid, on_exit)
        self._wake()

    def own(self, pid: int) -> None:
        """Somebody else waits for this child."""
        with self._lock:
            self._owned.add(pid)

    def disown(self, pid: int) -> None:
        """Nobody else waits for it any more."""
        with self._lock:
            self._owned.discard(pid)

    def stop(self) -> None:
        """Ends the thread."""
        self._stopping = True
        self._wake()
        self._thread.join()

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.write(self._wake_write, b"x")

    def _run(self) -> None:
        while not self._stopping:
            poll = select.poll()  # `select` would fail for descriptors from 1024 on
            with self._lock:
                for descriptor in (self._wake_read, *self._watched):
                    poll.register(descriptor, select.POLLIN)
            ready = [descriptor for descriptor, _ in poll.poll(ORPHAN_SECS * 1000)]
            for descriptor in ready:
                if descriptor == self._wake_read:
                    with contextlib.suppress(BlockingIOError):
                        os.read(self._wake_read, 4096)
                else:
                    self._reap(descriptor)
            if not ready:
                self._reap_orphans()
                self._tick()

    def _reap(self, pidfd: int) -> None:
        with self._lock:
            pid, on_exit = self._watched.pop(pidfd)
        os.close(pidfd)
        try:
            _, status = os.waitpid(pid, 0)
        except ChildProcessError:
            status = 0  # not ours: it died before it was handed to us
        on_exit(status)

    def _reap_orphans(self) -> None:
        with self._lock:
            known = self._owned | {pid for pid, _ in self._watched.values()}
        for children in Path("/proc/self/task").glob("*/children"):
            try:
                pids = [int(pid) for pid in children.read_text().split()]
            except OSError:
                continue
            for pid in pids:
                if pid not in known:
                    with contextlib.suppress(ChildProcessError):
                        os.waitpid(pid, os.WNOHANG)


def describe_exit(status: int) -> str:
    """A wait status in words: `exit code 1`, `signal 9 (Killed)`."""
    import signal

    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        return f"signal {number} ({signal.strsignal(number)})"
    return f"exit code {os.waitstatus_to_exitcode(status)}"
