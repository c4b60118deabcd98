"""One worker process, and the steps that bring it to serve."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from naiad._worker.naiad_worker.control import Closed, ControlChannel
from naiad.errors import LoadError
from naiad.server.reaper import describe_exit
from naiad.server.threads import VARIABLES

log = logging.getLogger("naiad.supervisor")

HELLO_SECS = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSpec:
    """Which worker to start."""

    model: str
    version: int
    instance: int
    backend: str
    python: str
    forks: bool = True
    """Whether the worker is forked from a zygote; if not, it is started as a process of its own."""
    environment: Mapping[str, str] = field(default_factory=dict)
    threads: int = 1
    load_timeout_secs: float = 600.0
    start_timeout_secs: float | None = None
    """Seconds in which its zygote has to import the framework; None is the supervisor's own."""
    lease: object = field(default=None, compare=False, repr=False)
    """Keeps the environment of the interpreter from being removed while a worker, or its replacement, lives."""

    @property
    def own_environment(self) -> dict[str, str]:
        """Variables of the worker: those of its zygote, and those in which the zygote's workers differ."""
        return {**self.environment, **dict.fromkeys(VARIABLES, str(self.threads))}


class Worker:
    """One worker process and the steps that bring it to serve."""

    def __init__(self, spec: WorkerSpec, *, worker_id: int, pid: int, control: ControlChannel) -> None:
        self.spec = spec
        self.id = worker_id
        self.pid = pid
        self._control = control
        self.exit: str | None = None
        self._exited = threading.Event()
        self.stopping = False

    def _ask(self, message: dict[str, Any], answer: str, timeout: float) -> dict[str, Any]:
        try:
            self._control.send(message)
            got, _ = self._control.receive(timeout=timeout)
        except TimeoutError:
            self.kill()
            text = f"{message['type']} took longer than {timeout:.0f} s; the worker was stopped"
            failure = self._failure("load", text, "raise --model-load-timeout-secs or use a smaller model")
            raise failure.coded("SLOW_START") from None
        except Closed:
            self._exited.wait(5)
            text = f"the worker process ended during {message['type']} ({self.exit or 'cause unknown'})"
            raise self._failure("load", text, "see the worker's last log lines above") from None
        if got.get("type") == "FAILED":
            error = self._failure(got["stage"], got["cause"], got.get("fix", "")).coded(got.get("code", ""))
            error.add_note(got.get("traceback", ""))
            raise error
        if got.get("type") != answer:
            raise self._failure("load", f"the worker answered {got.get('type')} to {message['type']}", "")
        return got

    def _failure(self, stage: str, cause: str, fix: str) -> LoadError:
        return LoadError(model=self.spec.model, version=self.spec.version, stage=stage, cause=cause, fix=fix)

    def hello(self) -> None:
        """Waits for the worker's first message."""
        try:
            message, _ = self._control.receive(timeout=HELLO_SECS)
        except TimeoutError:
            raise self._failure("start", f"the worker process said nothing for {HELLO_SECS:.0f} s", "") from None
        except Closed:
            self._exited.wait(5)
            text = f"the worker process did not come up ({self.exit or 'cause unknown'})"
            raise self._failure("start", text, "see the worker's last log lines above") from None
        if message.get("protocol") != 1:
            raise self._failure("start", f"the worker speaks protocol {message.get('protocol')}, expected 1", "")

    def describe(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """DESCRIBE: the configuration as the model completes it; raises `LoadError`."""
        answer = self._ask({"type": "DESCRIBE", **message}, "DESCRIBED", self.spec.load_timeout_secs)
        return dict(answer["config"])

    def load(self, message: dict[str, Any]) -> None:
        """LOAD; raises `LoadError`."""
        self._ask({"type": "LOAD", **message}, "LOADED", self.spec.load_timeout_secs)

    def probe(self, inputs: Sequence[Mapping[str, Any]], *, batched: bool) -> dict[str, Any]:
        """PROBE: outputs, batchable, reason, varying; raises `LoadError`."""
        message = {"type": "PROBE", "inputs": list(inputs), "batched": batched}
        return self._ask(message, "PROBED", self.spec.load_timeout_secs)

    def warm_up(self, steps: Sequence[Mapping[str, Any]]) -> None:
        """WARMUP for each step (`inputs`, `batch_sizes`, `count`, perhaps `sample`); raises `LoadError`."""
        spec = self.spec
        for step in steps:
            if "sample" in step:
                text = "model '%s' instance %s is running warmup sample '%s'"
                fields = {"model": spec.model, "version": spec.version}
                instance = f"{spec.model}_{spec.instance}"
                log.info(text, spec.model, instance, step["sample"], extra={"fields": fields})
            self._ask({"type": "WARMUP", **step}, "WARMED", spec.load_timeout_secs)

    def serve(self, table: Mapping[str, Any]) -> None:
        """SERVE with the tensor tables `{inputs, outputs, max_batch_size}`; raises `LoadError`."""
        self._ask({"type": "SERVE", **table}, "READY", self.spec.load_timeout_secs)
        fields = {"model": self.spec.model, "version": self.spec.version, "pid": self.pid}
        log.info("worker ready", extra={"fields": {**fields, "instance": self.spec.instance}})

    def kill(self) -> None:
        """SIGKILL."""
        self.stopping = True
        if not self._exited.is_set():  # a pid that has been waited for may be somebody else's
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def stop(self, *, timeout_secs: float = 5.0) -> None:
        """EXIT, then SIGKILL; returns when the process is gone."""
        self.stopping = True
        with contextlib.suppress(Closed):
            self._control.send({"type": "EXIT"})
        if not self._exited.wait(timeout_secs):
            self.kill()
            self._exited.wait(5)
        self.close()

    def control(self) -> int:
        """A new descriptor of the control channel; raises `OSError` where it is closed."""
        return os.dup(self._control.fileno())

    def close(self) -> None:
        """Closes the control channel."""
        self._control.close()

    def ended(self, status: int) -> None:
        """Called by the reaper."""
        self.exit = describe_exit(status)
        self._exited.set()
