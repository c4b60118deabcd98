"""What a worker asks of the kernel: to die with its server, and to be the first to go when memory runs out."""

from __future__ import annotations

import ctypes
import os
import signal

_PR_SET_PDEATHSIG = 1
_OOM_SCORE = "500"


def die_with_parent(expected_parent: int | None = None) -> None:
    """Asks for SIGKILL when the parent ends; leaves at once if it has ended already.

    Called after re-parenting: the signal follows the parent at this moment.
    """
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if expected_parent is not None and os.getppid() != expected_parent:
        os._exit(1)


def prefer_for_oom() -> None:
    """Raises this process' OOM score, so that memory pressure takes a model and not the server."""
    try:
        with open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
            file.write(_OOM_SCORE)
    except OSError:
        pass


def leave_signals_to_server() -> None:
    """Ctrl-C and a stop of the whole process group are the server's to handle: it lets requests finish first.

    SIGTERM gets a handler that does nothing, since an ignored signal would stay ignored in programs that a model runs.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda _number, _frame: None)


def close_all_but(keep: set[int]) -> None:
    """Closes every descriptor above 2 that is not in `keep` (E6)."""
    for name in os.listdir("/proc/self/fd"):
        descriptor = int(name)
        if descriptor > 2 and descriptor not in keep:
            try:
                os.close(descriptor)
            except OSError:
                pass


def thread_count() -> int:
    """Threads of this process, native ones included."""
    return len(os.listdir("/proc/self/task"))
