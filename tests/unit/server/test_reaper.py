from __future__ import annotations

import os
import queue
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from naiad.server.reaper import UNKNOWN, Reaper, describe_exit

ENDLESS = [sys.executable, "-c", "import signal; signal.pause()"]


class Watch:
    """A reaper with quick looks at orphans, and what it told."""

    def __init__(self) -> None:
        self.told: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.ticks = threading.Semaphore(0)
        self.reaper = Reaper(tick=self.ticks.release, orphan_secs=0.02)

    def wait_ticks(self, count: int) -> None:
        for _ in range(count):
            assert self.ticks.acquire(timeout=10)


@pytest.fixture
def watch() -> Iterator[Watch]:
    watch = Watch()
    yield watch
    watch.reaper.stop()


def test_a_watched_child_is_told_once_with_its_status(watch):
    child = os.posix_spawn(sys.executable, [sys.executable, "-c", "raise SystemExit(7)"], os.environ)
    watch.reaper.watch(child, watch.told.put)
    assert describe_exit(watch.told.get(timeout=20)) == "exit code 7"
    watch.wait_ticks(2)
    assert watch.told.empty()


def test_a_killed_child_is_told_with_its_signal(watch):
    child = os.posix_spawn(ENDLESS[0], ENDLESS, os.environ)
    watch.reaper.watch(child, watch.told.put)
    os.kill(child, signal.SIGKILL)
    assert describe_exit(watch.told.get(timeout=20)) == "signal 9 (Killed)"


def test_a_child_that_is_gone_already_is_told_at_once(watch):
    child = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], stdout=subprocess.PIPE, check=True)
    watch.reaper.watch(int(child.stdout), watch.told.put)
    assert watch.told.get_nowait() == UNKNOWN
    assert describe_exit(UNKNOWN) == "cause unknown"


def test_orphans_are_reaped(watch, subreaper):
    script = "import os, sys\nif os.fork() == 0:\n    print(os.getpid(), flush=True)\n    sys.stdin.read()"
    between = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    orphan = int(between.stdout.readline())
    between.wait(10)
    assert os.path.exists(f"/proc/{orphan}")
    between.stdin.close()
    for _ in range(500):
        watch.wait_ticks(1)
        if not os.path.exists(f"/proc/{orphan}"):
            break
    else:
        raise AssertionError("the orphan is still there")
    between.stdout.close()


def test_the_status_of_a_spawned_child_is_left_to_its_owner(watch):
    child = watch.reaper.spawn(lambda: subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"]))
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    watch.wait_ticks(5)
    assert child.wait(5) == 3


def test_descriptors_above_1023_are_no_end(watch):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 1_200:
        pytest.skip(f"the descriptor limit is {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 1_200), hard))
    taken = [os.open(os.devnull, os.O_RDONLY) for _ in range(1_030)]
    try:
        child = os.posix_spawn(ENDLESS[0], ENDLESS, os.environ)
        watch.reaper.watch(child, watch.told.put)
        os.kill(child, signal.SIGKILL)
        assert describe_exit(watch.told.get(timeout=10)) == "signal 9 (Killed)"
    finally:
        for descriptor in taken:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_the_end_gives_descriptors_back():
    before = os.listdir("/proc/self/fd")
    watch = Watch()
    child = os.posix_spawn(ENDLESS[0], ENDLESS, os.environ)
    watch.reaper.watch(child, watch.told.put)
    watch.reaper.stop()
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert os.listdir("/proc/self/fd") == before
