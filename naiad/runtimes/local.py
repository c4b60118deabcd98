"""Runs services on this machine: starts one `naiad serve`, watches it, starts it again when it ends."""

from __future__ import annotations

import json
import logging
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from naiad import keys
from naiad.errors import NaiadError
from naiad.runtimes.base import Running

_log = logging.getLogger("naiad.runtime")
_FIRST_WAIT_SECONDS, _LONGEST_WAIT_SECONDS = 1.0, 60.0
_STEADY_SECONDS = 60.0
_ROTATE_BYTES = 16 << 20
_TAIL_BYTES = 4096


class ServerFailed(NaiadError):
    """The server ended before it had bound its ports; the message is its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalOptions:
    """How the server is started."""

    models: Path
    logs: Path
    host: str = "127.0.0.1"
    http_port: int = 8000
    grpc_port: int = 0
    metrics_port: int = 0
    environments: Path | None = None
    """Folder of named environments."""
    allowed_hosts: tuple[str, ...] = ()
    command: Sequence[str] = (sys.executable, "-P", "-m", "naiad", "serve")
    start_seconds: float = 60.0
    stop_seconds: float = 40.0
    arguments: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Child:
    """A started server and the descriptor that keeps it alive: closing it ends the server."""

    process: subprocess.Popen[bytes]
    lifeline: int
    running: Running
    since: float


class LocalRuntime:
    """One server on this machine."""

    def __init__(self, options: LocalOptions) -> None:
        self._options = options
        self._lock = threading.Lock()
        self._child: _Child | None = None
        self._stopping = threading.Event()
        self._listeners: list[Callable[[], None]] = []
        self._watcher = threading.Thread(target=self._watch, name="naiad-watch", daemon=True)

    def start(self) -> None:
        """Starts the server; raises `ServerFailed` with its own words if it ends before it has bound."""
        self._child = self._spawn()
        running = self._child.running
        grpc = _port(running.grpc) if running.grpc else self._options.grpc_port
        metrics = _port(running.metrics) if running.metrics else self._options.metrics_port
        # Once chosen they are kept.
        self._options = replace(self._options, http_port=_port(running.http), grpc_port=grpc, metrics_port=metrics)
        self._watcher.start()

    def running(self) -> Running | None:
        """The server as it is now; None while it is being started again."""
        with self._lock:
            return self._child.running if self._child else None

    def on_change(self, listener: Callable[[], None]) -> None:
        """Calls `listener` when the server went or came."""
        self._listeners.append(listener)

    def stop(self) -> None:
        """Ends the server: it drains, and is killed if it does not end in time."""
        self._stopping.set()
        with self._lock:
            child, self._child = self._child, None
        if child is None:
            return
        child.process.terminate()
        try:
            child.process.wait(self._options.stop_seconds)
        except subprocess.TimeoutExpired:
            _log.warning("the server did not end within %.0f s and is killed", self._options.stop_seconds)
            child.process.kill()
            child.process.wait()
        finally:
            os.close(child.lifeline)

    def _watch(self) -> None:
        wait = _FIRST_WAIT_SECONDS
        while not self._stopping.is_set():
            with self._lock:
                child = self._child
            if child is None:
                return
            code = child.process.wait()
            with self._lock:
                if self._child is not child:  # `stop` has taken it
                    return
                self._child = None
            os.close(child.lifeline)
            self._tell()
            lived = time.monotonic() - child.since
            wait = _FIRST_WAIT_SECONDS if lived > _STEADY_SECONDS else wait
            _log.error("the server ended with %s after %.0f s; starting it again", code, lived)
            wait = self._revive(wait)

    def _revive(self, wait: float) -> float:
        """Starts the server until it stays; answers how long to wait should it end soon again."""
        while not self._stopping.wait(wait):
            wait = min(wait * 2, _LONGEST_WAIT_SECONDS)
            try:
                child = self._spawn()
            except ServerFailed as error:
                _log.error("the server does not start: %s", error)
                continue
            with self._lock:
                if self._stopping.is_set():
                    child.process.kill()
                    child.process.wait()
                    os.close(child.lifeline)
                    return wait
                self._child = child
            self._tell()
            return wait
        return wait

    def _tell(self) -> None:
        for listener in self._listeners:
            listener()

    def _spawn(self) -> _Child:
        key = keys.make_key()
        key_read, key_write = os.pipe()
        os.write(key_write, key.reveal().encode() + b"\n")
        os.close(key_write)
        life_read, life_write = os.pipe()
        ready_read, ready_write = os.pipe()
        passed = (key_read, life_read, ready_write)
        log = self._open_log()
        try:
            process = subprocess.Popen(
                self._command(key_fd=key_read, lifeline_fd=life_read, ready_fd=ready_write),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=passed,
                start_new_session=True,  # a Ctrl-C is for `naiad up`, which then drains the server
                env={name: value for name, value in os.environ.items() if not name.startswith("NAIAD_")},
            )
            begin = os.lseek(log, 0, os.SEEK_END)
        finally:
            for descriptor in passed:
                os.close(descriptor)
        try:
            line = read_line(ready_read, self._options.start_seconds)
        finally:
            os.close(ready_read)
        if not line:
            process.kill()
            process.wait()
            os.close(life_write)
            words = _tail(log, begin)
            os.close(log)
            raise ServerFailed(words or f"the server ended with {process.returncode} and said nothing")
        os.close(log)
        document = json.loads(line)
        names = ("http", "grpc", "metrics", "boot_id", "pid")
        running = Running(**{name: document[name] for name in names}, key=key)
        return _Child(process=process, lifeline=life_write, running=running, since=time.monotonic())

    def _command(self, *, key_fd: int, lifeline_fd: int, ready_fd: int) -> list[str]:
        options = self._options
        return [
            *options.command,
            f"--model-repository={options.models}",
            "--model-control-mode=explicit",
            f"--http-address={options.host}",
            f"--http-port={options.http_port}",
            f"--grpc-address={options.host}",
            f"--grpc-port={options.grpc_port}",
            f"--metrics-port={options.metrics_port}",
            "--strict-readiness=false",
            "--backend-config=default-max-batch-size=32",  # of every format, where `naiad serve` has Triton's for ONNX
            "--require-key",
            f"--bootstrap-key-fd={key_fd}",
            f"--lifeline-fd={lifeline_fd}",
            f"--ready-fd={ready_fd}",
            f"--log-dir={options.logs}",
            "--allow-environment-path=false",  # whoever uploads a model does not choose what its worker runs
            *([f"--environments={options.environments}"] if options.environments else []),
            *(f"--allowed-host={host}" for host in options.allowed_hosts),
            *options.arguments,
        ]

    def _open_log(self) -> int:
        path = self._options.logs / "server.log"
        if path.exists() and path.stat().st_size > _ROTATE_BYTES:
            path.replace(path.with_suffix(".log.1"))
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)


def _port(address: str) -> int:
    return int(address.rpartition(":")[2])


def read_line(descriptor: int, seconds: float) -> bytes:
    """One line from a pipe; empty at end-of-file (its writer died) or when the time is over."""
    end = time.monotonic() + seconds
    line = b""
    while not line.endswith(b"\n"):
        left = end - time.monotonic()
        if left <= 0 or not select.select([descriptor], [], [], left)[0]:
            return b""
        block = os.read(descriptor, 4096)
        if not block:
            return b""
        line += block
    return line


def _tail(descriptor: int, begin: int) -> str:
    end = os.lseek(descriptor, 0, os.SEEK_END)
    start = max(begin, end - _TAIL_BYTES)
    return os.pread(descriptor, end - start, start).decode("utf-8", "replace").strip()
