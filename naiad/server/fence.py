"""Starts programs of an environment that nobody vouches for: from their first instruction on behind the fence."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from naiad._worker.naiad_worker.restrict import Limits
from naiad.server.allowed import WORKER_PATH, worker_environment

_TASKS = 512
_START = f"import sys; sys.path.insert(0, {str(WORKER_PATH)!r}); from naiad_worker.fence import main; main()"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fence:
    """How much a fenced program gets."""

    memory: int
    """Bytes of addresses."""
    file_bytes: int
    """Size of each file that it writes."""
    timeout_secs: float
    """Bounds the time of the processors; who starts it keeps the clock."""

    def __call__(self, command: Sequence[str], environment: Mapping[str, str]) -> tuple[list[str], dict[str, str]]:
        """The command line and the variables by which the program is started."""
        cpu_secs = math.ceil(self.timeout_secs * max(1, os.cpu_count() or 1)) + 5
        limits = Limits(memory=self.memory, cpu_secs=cpu_secs, file_bytes=self.file_bytes, tasks=_TASKS)
        told = [json.dumps(limits._asdict()), json.dumps(dict(environment)), *command]
        return [sys.executable, "-I", "-c", _START, *told], worker_environment(os.environ, {})
