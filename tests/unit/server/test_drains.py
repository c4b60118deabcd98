"""Retired versions finish in the background, a bounded number of them at a time."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from naiad.server.drains import GENERATIONS, Drains


class Core:
    """Drains when it is told to."""

    def __init__(self) -> None:
        self.gate = threading.Semaphore(0)
        self.entered = threading.Semaphore(0)
        self.fails = False

    def retire_replaced(self, model: str, drain_millis: int) -> bool:
        self.entered.release()
        assert self.gate.acquire(timeout=20)
        if self.fails:
            raise RuntimeError("no")
        return True


class Supervisor:
    """Remembers what it ended."""

    def __init__(self) -> None:
        self.ended: list[Any] = []

    def discard(self, worker: Any) -> None:
        self.ended.append(worker)


@pytest.fixture
def core() -> Core:
    return Core()


def make(core: Core) -> tuple[Drains, Supervisor]:
    supervisor = Supervisor()
    return Drains(core, supervisor), supervisor  # type: ignore[arg-type]


def test_workers_end_after_the_requests_and_nobody_waits(core):
    drains, supervisor = make(core)
    done = threading.Event()
    drains.start("m", ["a", "b"], done.set)
    assert core.entered.acquire(timeout=20)
    assert (supervisor.ended, drains.is_busy("m"), drains.workers()) == ([], True, ["a", "b"])
    core.gate.release()
    assert done.wait(20)
    assert (supervisor.ended, drains.is_busy("m"), drains.workers()) == (["a", "b"], False, [])


def test_generations_of_one_model_do_not_pile_up(core):
    drains, _ = make(core)
    over = threading.Semaphore(0)

    def reload() -> None:
        for number in range(GENERATIONS + 1):
            drains.start("m", [number], over.release)

    reloading = threading.Thread(target=reload)
    reloading.start()
    drains.start("other", ["x"], over.release)  # which waits for nobody
    assert core.entered.acquire(timeout=20) and core.entered.acquire(timeout=20)
    reloading.join(0.2)
    assert reloading.is_alive(), "the third generation waits"
    for _ in range(GENERATIONS + 2):
        core.gate.release()
    reloading.join(20)
    assert not reloading.is_alive()
    assert all(over.acquire(timeout=20) for _ in range(GENERATIONS + 2))


def test_a_drain_that_fails_lets_the_next_one_run(core):
    drains, _ = make(core)
    core.fails = True
    for _ in range(GENERATIONS + 1):
        done = threading.Event()
        drains.start("m", ["a"], done.set)
        core.gate.release()
        assert done.wait(20)
    assert not drains.is_busy("m")
