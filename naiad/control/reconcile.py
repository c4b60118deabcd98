"""Turns the platform's wheel: each reconciler looks at what is and brings it nearer to what is wanted.

Level-based: a wake-up carries no message, a missed one costs only the interval, and a crash at any moment is mended by
the next turn, because every turn starts from what can be read.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

_log = logging.getLogger("naiad.control")


class Reconciler(Protocol):
    """One kind of resource."""

    def step(self) -> None:
        """Observes, plans, and starts what has to be done; returns soon."""


class Loop:
    """Calls the reconcilers in order: when woken, and at least once per interval."""

    def __init__(self, reconcilers: Sequence[Reconciler], *, name: str, interval_seconds: float = 2.0) -> None:
        self._reconcilers = list(reconcilers)
        self._interval = interval_seconds
        self._wake = threading.Event()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Starts turning."""
        self._thread.start()

    def wake(self) -> None:
        """Has the next turn begin at once."""
        self._wake.set()

    def stop(self, *, timeout_seconds: float = 10.0) -> None:
        """Ends after the present turn."""
        self._stopped = True
        self._wake.set()
        self._thread.join(timeout_seconds)

    def _run(self) -> None:
        while not self._stopped:
            self._wake.clear()
            for reconciler in self._reconcilers:
                try:
                    reconciler.step()
                except Exception:  # one resource's bug must not stop the others; the next turn tries again
                    _log.exception("%s failed", type(reconciler).__name__)
            self._wake.wait(self._interval)


class Busy:
    """Runs at most one action a resource at a time, several resources side by side."""

    def __init__(self, *, workers: int, done: Callable[[], None]) -> None:
        self._pool = ThreadPoolExecutor(max_workers=workers, thread_name_prefix="naiad-act")
        self._names: set[str] = set()
        self._lock = threading.Lock()
        self._done = done

    def names(self) -> frozenset[str]:
        """The resources that are being acted on."""
        with self._lock:
            return frozenset(self._names)

    def run(self, name: str, action: Callable[[], None]) -> None:
        """Starts an action unless one for this name is running."""
        with self._lock:
            if name in self._names:
                return
            self._names.add(name)
        try:
            self._pool.submit(self._guarded, name, action)
        except RuntimeError:  # the pool is closed: the platform is ending
            self._names.discard(name)

    def close(self) -> None:
        """Takes no more; what runs is left to end with its server."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _guarded(self, name: str, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception:
            _log.exception("acting on '%s' failed", name)
        finally:
            with self._lock:
                self._names.discard(name)
            self._done()
