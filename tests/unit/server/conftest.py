"""A supervisor with real zygotes and workers on a fake core."""

from __future__ import annotations

import ctypes
import os
import resource
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from naiad.server.restart import RestartPolicy
from naiad.server.supervisor import Replay, Supervisor, SupervisorOptions
from naiad.server.worker import Worker, WorkerSpec
from tests.support.fake_core import FakeCore

_PR_SET_CHILD_SUBREAPER = 36
TENSOR = {"name": "INPUT0", "argument": "", "datatype": "FP32", "dims": [-1, 16]}
TABLE = {"inputs": [TENSOR], "outputs": [{**TENSOR, "name": "OUTPUT0"}], "max_batch_size": 8}


class Stage:
    """What a test plays on."""

    def __init__(self, *, linger_secs: float = 60.0, environment: dict[str, str] | None = None) -> None:
        self.core = FakeCore()
        self._main = ThreadPoolExecutor(1)  # one thread that lives on, as the server's main thread does
        options = SupervisorOptions(
            linger_secs=linger_secs,
            base_environment=environment or dict(os.environ),
            descriptor_limit=resource.getrlimit(resource.RLIMIT_NOFILE),
        )
        run_on_main = lambda start: self._main.submit(start).result()  # noqa: E731
        self.supervisor = Supervisor(self.core, options=options, run_on_main=run_on_main)
        self.workers: list[Worker] = []
        self.states: list[str | None] = []

    def start(self, model: str = "m", **fields: object) -> Worker:
        spec = {"model": model, "version": 1, "instance": 0, "backend": "identity", "python": sys.executable}
        worker = self.supervisor.start(WorkerSpec(**{**spec, **fields}))
        self.workers.append(worker)
        return worker

    def load_message(self, **fields: object) -> dict[str, object]:
        message = {"model": "m", "version": 1, "instance": 0, "backend": "identity", "model_directory": ""}
        message |= {"version_directory": "", "file": "", "config": {}, "signature": None, "device": {"kind": "cpu"}}
        return {**message, "threads": 1, **fields}

    def serving(self, model: str = "m", **fields: object) -> Worker:
        worker = self.start(model, **fields)
        worker.load(self.load_message(model=model))
        worker.serve(TABLE)
        return worker

    def replay(self, policy: RestartPolicy | None = None, **fields: object) -> Replay:
        def on_state(reason: str | None) -> None:
            with self.core.changed:
                self.states.append(reason)
                self.core.changed.notify_all()

        policy = policy or RestartPolicy()
        load = self.load_message(**fields)
        return Replay(load=load, warm_up=[], table=TABLE, policy=policy, on_state=on_state)

    def zygotes(self) -> list[int]:
        """Pids of the zygotes seen so far, from the labels of their output."""
        return [zygote.pid for zygote in self.supervisor._zygotes.values()]

    def close(self) -> None:
        self.supervisor.stop_all(self.supervisor.current(self.workers))
        for thread in threading.enumerate():
            if thread.name == "restart":
                thread.join(20)
        self._main.shutdown()
        self.core.close()


@pytest.fixture
def subreaper() -> Iterator[None]:
    prctl = ctypes.CDLL(None).prctl
    prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    yield
    prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


@pytest.fixture
def stage(subreaper: None) -> Iterator[Stage]:
    stage = Stage()
    yield stage
    stage.close()
