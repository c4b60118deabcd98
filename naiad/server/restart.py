"""Decides when a lost worker is started again, and when that is given up."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

FIRST_DELAY = 1.0
MAX_DELAY = 60.0
CRASHES = 5
WITHIN_SECS = 600.0


class RestartPolicy:
    """At once after the first crash, then after 1 s, 2 s, … 60 s; five crashes in ten minutes are a loop."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._crashes: deque[float] = deque()

    def crashed(self) -> float | None:
        """Seconds until the next start; None = give up (CRASH_LOOP)."""
        now = self._clock()
        while self._crashes and now - self._crashes[0] > WITHIN_SECS:
            self._crashes.popleft()
        self._crashes.append(now)
        if len(self._crashes) >= CRASHES:
            return None
        earlier = len(self._crashes) - 1
        return 0.0 if earlier == 0 else min(MAX_DELAY, FIRST_DELAY * 2.0 ** (earlier - 1))
