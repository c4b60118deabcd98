"""Lets requests of versions that no longer serve finish, then ends their workers; nobody waits for that."""

from __future__ import annotations

import logging
import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Protocol

from naiad.server.lanes import Lanes
from naiad.server.supervisor import Supervisor
from naiad.server.worker import Worker

log = logging.getLogger("naiad.drains")

DRAIN_MILLIS = 30_000
THREADS = 16
GENERATIONS = 2
"""Retired generations of one model that may still live; the next waits, so that reloads cannot pile up workers."""


class CoreDoors(Protocol):
    """The door of the core that draining uses."""

    def retire_replaced(self, model: str, drain_millis: int) -> bool:
        """See `naiad._core.Core`."""


class Drains:
    """What `publish` replaced and `withdraw` took out; safe to be called from several threads."""

    def __init__(self, core: CoreDoors, supervisor: Supervisor, *, drain_millis: int = DRAIN_MILLIS) -> None:
        self._core = core
        self._supervisor = supervisor
        self._drain_millis = drain_millis
        self._lanes = Lanes(THREADS, name="drain")
        self._rooms: defaultdict[str, threading.Semaphore] = defaultdict(lambda: threading.Semaphore(GENERATIONS))
        self._workers: defaultdict[str, list[Worker]] = defaultdict(list)
        self._lock = threading.Lock()

    def start(self, model: str, workers: Sequence[Worker], after: Callable[[], None]) -> None:
        """Drains in the background and calls `after`; waits only if the model has two generations draining already."""
        with self._lock:
            room = self._rooms[model]
        room.acquire()  # each drain has a deadline, and so has this
        with self._lock:
            self._workers[model].extend(workers)
        self._lanes.submit(model, lambda: self._drain(model, workers, room, after))

    def _drain(
        self, model: str, workers: Sequence[Worker], room: threading.Semaphore, after: Callable[[], None]
    ) -> None:
        try:
            if not self._core.retire_replaced(model, self._drain_millis):
                log.warning("requests were cut off at the end of their model", extra={"fields": {"model": model}})
            for worker in workers:
                self._supervisor.discard(worker)
        except Exception:
            log.exception("draining '%s' failed unexpectedly", model, extra={"fields": {"model": model}})
        finally:
            self._forget(model, workers)
            room.release()
            after()

    def end(self, model: str, workers: Sequence[Worker]) -> None:
        """Lets workers of a version that goes on serving finish what they run; what they had not started, others do."""
        with self._lock:
            self._workers[model].extend(workers)

        def finish() -> None:
            try:
                for worker in workers:
                    worker.stop(timeout_secs=self._drain_millis / 1000)
                    self._supervisor.discard(worker)
            finally:
                self._forget(model, workers)

        self._lanes.submit(model, finish)

    def _forget(self, model: str, workers: Sequence[Worker]) -> None:
        with self._lock:
            self._workers[model] = [worker for worker in self._workers[model] if worker not in workers]
            if not self._workers[model]:
                del self._workers[model]

    def is_busy(self, model: str) -> bool:
        """Whether a worker of a retired version of this model lives."""
        with self._lock:
            return model in self._workers

    def workers(self) -> list[Worker]:
        """Every worker that is still draining."""
        with self._lock:
            return [worker for workers in self._workers.values() for worker in workers]
