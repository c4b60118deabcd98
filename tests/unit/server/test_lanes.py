"""The work of one model runs in order, that of several side by side."""

from __future__ import annotations

import threading

import pytest

from naiad.server.lanes import Lanes


def test_one_models_work_runs_one_after_the_other():
    lanes, seen, running = Lanes(4, name="test"), [], threading.Semaphore(1)

    def work(number: int) -> int:
        assert running.acquire(blocking=False), "another one runs"
        seen.append(number)
        running.release()
        return number

    results = [lanes.submit("m", lambda number=number: work(number)) for number in range(50)]
    assert [result.result(20) for result in results] == seen == list(range(50))
    assert not lanes.is_busy("m")


def test_models_that_wait_for_their_turn_hold_no_thread():
    lanes, gate = Lanes(2, name="test"), threading.Event()
    slow = [lanes.submit("slow", lambda: gate.wait(20)) for _ in range(5)]
    assert lanes.submit("other", lambda: "done").result(20) == "done"
    assert lanes.is_busy("slow")
    gate.set()
    assert all(result.result(20) for result in slow)


def test_what_one_raises_is_its_own():
    lanes = Lanes(1, name="test")

    def fail() -> None:
        raise ValueError("no")

    failed, after = lanes.submit("m", fail), lanes.submit("m", lambda: 1)
    with pytest.raises(ValueError, match="no"):
        failed.result(20)
    assert after.result(20) == 1
