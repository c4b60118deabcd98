"""The main thread: waits for signals, for the lifeline, and for spawns that must happen on it."""

from __future__ import annotations

import contextlib
import os
import queue
import select
import signal
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")


class MainThread:
    """A loop that runs posted calls; a death signal follows the thread that spawned a process."""

    def __init__(self, *, lifeline: int | None) -> None:
        self._lifeline = lifeline
        self._calls: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]]] = queue.SimpleQueue()
        self._read, self._write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._signals = 0
        self._done: int | None = None

    def listen(self) -> None:
        """Remembers signals for `run` from now on: called before anybody learns that the server is there."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._signalled)
        signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)

    def call(self, function: Callable[[], T]) -> T:
        """Runs `function` on the main thread and returns what it does."""
        if threading.current_thread() is threading.main_thread():
            return function()
        future: Future[T] = Future()
        self._calls.put((function, future))
        self._wake()
        return future.result()

    def finish(self, status: int) -> None:
        """Ends the loop."""
        self._done = status
        self._wake()

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.write(self._write, b"x")

    def _signalled(self, _number: int, _frame: object) -> None:
        self._signals += 1

    def run(self, shut_down: Callable[[], None]) -> int:
        """Serves until `finish`; the first signal or the end of the lifeline starts `shut_down` on a thread."""
        stopping = False
        while self._done is None:
            watched = [self._read] + ([self._lifeline] if self._lifeline is not None else [])
            ready, _, _ = select.select(watched, [], [])
            with contextlib.suppress(BlockingIOError):
                os.read(self._read, 4096)
            if self._lifeline in ready and not os.read(self._lifeline or 0, 4096):
                self._lifeline = None
                self._signals += 1
            if self._signals > 1:
                return 1  # asked twice: at once
            if self._signals and not stopping:
                stopping = True
                threading.Thread(target=shut_down, name="shut-down", daemon=True).start()
            self._run_calls()
        return self._done

    def _run_calls(self) -> None:
        while True:
            try:
                function, future = self._calls.get_nowait()
            except queue.Empty:
                return
            try:
                future.set_result(function())
            except BaseException as error:  # handed to whoever waits
                future.set_exception(error)
