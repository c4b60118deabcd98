"""Work that is serial for each model and parallel across models, without a thread that waits for its turn."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class _Work:
    call: Callable[[], Any]
    result: Future[Any]

    def run(self) -> None:
        try:
            self.result.set_result(self.call())
        except BaseException as error:  # handed to whoever waits
            self.result.set_exception(error)


class Lanes:
    """A pool of threads; the work of one model runs in the order in which it came."""

    def __init__(self, threads: int, *, name: str) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._waiting: dict[str, deque[_Work]] = {}
        """Models at work, with what comes next; the callers bound how much that is."""
        self._lock = threading.Lock()

    def submit(self, model: str, call: Callable[[], Any]) -> Future[Any]:
        """Runs `call` behind what was submitted for the same model before."""
        work = _Work(call, Future())
        with self._lock:
            if model in self._waiting:
                self._waiting[model].append(work)
                return work.result
            self._waiting[model] = deque()
        self._pool.submit(self._run, model, work)
        return work.result

    def is_busy(self, model: str) -> bool:
        """Whether something of this model runs or waits."""
        with self._lock:
            return model in self._waiting

    def _run(self, model: str, work: _Work) -> None:
        work.run()
        with self._lock:
            waiting = self._waiting[model]
            if not waiting:
                del self._waiting[model]
                return
            following = waiting.popleft()
        self._pool.submit(self._run, model, following)  # at the end of the line: other models get their turn
