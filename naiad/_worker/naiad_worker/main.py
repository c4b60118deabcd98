"""A worker's life on the control channel: load, probe, warm up, then serve what comes on the data channel."""

from __future__ import annotations

import argparse
import contextlib
import os
import socket
import sys
import threading
import time
import traceback
from typing import Any

from naiad_worker import PROTOCOL, backends, output, process
from naiad_worker.codes import code_of
from naiad_worker.control import Closed, ControlChannel
from naiad_worker.listing import Listing
from naiad_worker.probe import Probe, one_line
from naiad_worker.serving import Serving
from naiad_worker.streaming import Streaming
from naiad_worker.triton import metrics

_now = time.monotonic_ns


class Worker:
    """One instance of one model."""

    def __init__(self, control: ControlChannel, data: socket.socket, backend: str) -> None:
        self._control = control
        self._data = data
        self._name = backend
        self._backend: Any = None
        self._decoupled = False

    def run(self) -> bool:
        """Follows the control channel until SERVE or the end; whether the server wanted the end."""
        self._control.send(
            {"type": "HELLO", "protocol": PROTOCOL, "pid": os.getpid(), "python": sys.version.split()[0]}
        )
        steps = {"DESCRIBE": self._describe, "LOAD": self._load, "PROBE": self._probe, "WARMUP": self._warm_up}
        while True:
            message, _ = self._control.receive()
            kind = message.get("type")
            if kind == "EXIT":
                return True
            if kind == "SERVE":
                if self._guarded("serve", self._prepare, message):
                    return self._serve()
            elif kind in steps:
                self._guarded(kind.lower(), steps[kind], message)
            else:
                self._control.send(_failed("load", f"unknown message '{kind}'", "", ""))

    def imported(self) -> bool:
        """Imports the framework and says so, since a dry run's memory is counted from there; whether that works."""

        def step(_message: dict[str, Any]) -> dict[str, Any]:
            backends.backend(self._name).preimport()
            return {"type": "IMPORTED"}

        return self._guarded("start", step, {})

    def _guarded(self, stage: str, step: Any, message: dict[str, Any]) -> bool:
        """Runs a step; whatever it raises becomes one FAILED message and never ends the worker."""
        stage = {"warm_up": "warmup"}.get(stage, stage)
        try:
            self._control.send(step(message))
            return True
        except Closed:
            raise
        except backends.LoadFailure as error:
            code, fix = code_of(str(error))
            failed = _failed(stage, str(error), error.fix or fix, traceback.format_exc())
            self._control.send({**failed, "code": error.code or code})
        except ImportError as error:
            module = error.name or str(error)
            fix = f"install it into this environment: pip install {module.split('.')[0]}"
            failed = _failed("import", f"{type(error).__name__}: {error}", fix, traceback.format_exc())
            self._control.send({**failed, "code": "MISSING_MODULE"})
        except Exception as error:  # a model may raise anything
            code, fix = code_of(f"{type(error).__name__}: {error}")
            self._control.send({**_failed(stage, one_line(error), fix, traceback.format_exc()), "code": code})
        return False

    def _describe(self, message: dict[str, Any]) -> dict[str, Any]:
        module = backends.backend(message["backend"])
        return {"type": "DESCRIBED", "config": module.describe(_spec(message))}

    def _load(self, message: dict[str, Any]) -> dict[str, Any]:
        start = _now()
        module = backends.backend(message["backend"])
        self._backend = module.Backend(_spec(message))
        return {"type": "LOADED", "load_ns": _now() - start}

    def _probe(self, message: dict[str, Any]) -> dict[str, Any]:
        report = Probe(self._backend, message["inputs"]).report(batched=message["batched"])
        return {"type": "PROBED", **report}

    def _warm_up(self, message: dict[str, Any]) -> dict[str, Any]:
        """Some frameworks compile at the first calls of each batch size: let them do it before READY."""
        probe = Probe(self._backend, message["inputs"])
        shapes = probe.recorded()
        sample = message.get("sample")
        try:
            for batch in message["batch_sizes"]:
                rows = {name: [batch, *dims[1:]] if batch else dims for name, dims in shapes.items()}
                for _ in range(message["count"]):
                    probe.run(rows)
        except Exception as error:  # a model may raise anything
            if sample is None:
                raise
            raise backends.LoadFailure(f"warmup sample '{sample}': {one_line(error)}") from error
        return {"type": "WARMED"}

    def _prepare(self, message: dict[str, Any]) -> dict[str, Any]:
        self._backend.serve(message["inputs"], message["outputs"])
        self._decoupled = message.get("decoupled", False)
        return {"type": "READY"}

    def _watch(self) -> None:
        """Answers the core until EXIT or the end of the channel, then wakes the main thread by an end-of-file."""
        try:
            while (kind := self._control.receive()[0].get("type")) != "EXIT":
                if kind == "FOLLOW":
                    says_ready = getattr(self._backend, "says_ready", False)
                    self._control.send({"type": "FOLLOWED", "is_ready": says_ready})
                    metrics.connect(self._control.send)
                elif kind == "IS_READY":
                    # It may take long, and EXIT must not wait for it.
                    threading.Thread(target=self._say_ready, name="ask", daemon=True).start()
        except Closed:
            pass
        try:
            self._data.shutdown(socket.SHUT_RD)
        except OSError:
            pass

    def _say_ready(self) -> None:
        with contextlib.suppress(Closed):
            self._control.send({"type": "IS_READY", "ready": self._backend.is_ready()})

    def _serve(self) -> bool:
        threading.Thread(target=self._watch, name="control", daemon=True).start()
        loop: Any = Listing if hasattr(self._backend, "answer") else Serving
        if self._decoupled:
            loop = Streaming
        ended: bool = loop(self._data, self._backend).run()
        return ended

    def finalize(self) -> None:
        """Lets the backend give back what it holds, and tells what its model counted last."""
        if self._backend is not None:
            self._backend.finalize()
        metrics.flush()


def _spec(message: dict[str, Any]) -> backends.LoadSpec:
    return backends.LoadSpec(
        model=message["model"],
        version=message["version"],
        instance=message["instance"],
        directory=message["version_directory"],
        file=message["file"],
        config=message["config"],
        device=message["device"],
        threads=message["threads"],
        settings=message.get("settings", {}),
    )


def _failed(stage: str, cause: str, fix: str, trace: str) -> dict[str, Any]:
    return {"type": "FAILED", "stage": stage, "cause": cause, "fix": fix, "traceback": trace}


def serve(control_fd: int, data_fd: int, backend: str, *, dry_run: bool = False) -> None:
    """Runs a worker on inherited descriptors and ends the process; in a dry run it says when it has its framework."""
    output.install()
    control = ControlChannel(socket.socket(fileno=control_fd))
    data = socket.socket(fileno=data_fd)
    worker = Worker(control, data, backend)
    status = 0
    try:
        if not dry_run or worker.imported():
            status = 0 if worker.run() else 1
            worker.finalize()
    except Closed:
        pass  # the server is gone
    except BaseException as error:
        output.say_error(error)
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    # Frameworks' own exit handlers may hang or crash after a fork; the kernel takes everything back.
    os._exit(status)


def main() -> None:
    """Entry of a worker that is spawned and not forked."""
    parser = argparse.ArgumentParser(prog="naiad_worker.main")
    parser.add_argument("--backend", required=True)
    parser.add_argument("--control-fd", type=int, required=True)
    parser.add_argument("--data-fd", type=int, required=True)
    parser.add_argument("--server-pid", type=int, required=True)
    parser.add_argument("--dry-run", action="store_true")
    options = parser.parse_args()
    process.die_with_parent(options.server_pid)
    process.prefer_for_oom()
    process.leave_signals_to_server()
    process.close_all_but({options.control_fd, options.data_fd})
    serve(options.control_fd, options.data_fd, options.backend, dry_run=options.dry_run)
