"""The server's side of a zygote: starts it, asks it for workers, ends it when it has been idle for long."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from naiad._worker.naiad_worker.control import Closed, ControlChannel
from naiad.errors import NaiadError
from naiad.server.allowed import START, worker_environment


class ZygoteKey(NamedTuple):
    """Zygotes are shared by workers that agree on this."""

    python: str
    backend: str
    environment: tuple[tuple[str, str], ...]


class ZygoteError(NaiadError):
    """A zygote that cannot start or fork: what failed and how to mend it."""

    def __init__(self, cause: str, *, stage: str = "start", fix: str = "", code: str = "") -> None:
        super().__init__(cause)
        self.stage = stage
        self.fix = fix
        self.code = code


@dataclass(frozen=True, slots=True, kw_only=True)
class ZygoteOptions:
    """How zygotes are started."""

    import_timeout_secs: float
    base_environment: Mapping[str, str]
    descriptor_limit: tuple[int, int]
    """RLIMIT_NOFILE that children get back."""
    spawn: Callable[[Callable[[], subprocess.Popen[bytes]]], subprocess.Popen[bytes]]
    """Runs a spawn on the main thread: a death signal follows the thread that spawned."""
    adopt_output: Callable[[int, dict[str, Any]], None]
    """Takes over the read end of an output pipe, with the labels of its records."""


class Zygote:
    """A running zygote."""

    def __init__(self, key: ZygoteKey, options: ZygoteOptions) -> None:
        self.key = key
        self._options = options
        self._lock = threading.Lock()
        self._next = 0
        self.workers = 0
        """Workers that live or are about to be forked; the supervisor counts them."""
        self.idle_since = time.monotonic()
        ours, theirs = socket.socketpair()
        read_end, write_end = os.pipe2(os.O_CLOEXEC)
        command = [key.python, START, "zygote", "--backend", key.backend]
        command += ["--control-fd", str(theirs.fileno()), "--server-pid", str(os.getpid())]

        def spawn() -> subprocess.Popen[bytes]:
            return subprocess.Popen(
                command,
                env=worker_environment(options.base_environment, dict(key.environment)),
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=write_end,
                stderr=write_end,
            )

        try:
            self._process = options.spawn(spawn)
        except BaseException as error:
            ours.close()
            os.close(read_end)
            if isinstance(error, OSError):
                raise ZygoteError(f"cannot start '{key.python}': {error.strerror}") from error
            raise
        finally:
            theirs.close()
            os.close(write_end)
        with contextlib.suppress(ProcessLookupError):
            resource.prlimit(self._process.pid, resource.RLIMIT_NOFILE, options.descriptor_limit)
        self._control = ControlChannel(ours)
        options.adopt_output(read_end, {"zygote": key.backend, "pid": self._process.pid})

    @property
    def pid(self) -> int:
        """The zygote's process id."""
        return self._process.pid

    def await_ready(self, timeout_secs: float | None = None) -> None:
        """Waits until the framework is imported; raises `ZygoteError`."""
        timeout = timeout_secs or self._options.import_timeout_secs
        try:
            message, _ = self._control.receive(timeout=timeout)
        except TimeoutError:
            self.stop()
            text = f"importing the framework of backend '{self.key.backend}' took longer than {timeout:.0f} s"
            fix = "allow it more with --backend-config=stub-timeout-seconds=SECONDS"
            raise ZygoteError(text, stage="import", fix=fix, code="SLOW_START") from None
        except Closed:
            self.stop()
            text = f"the zygote of backend '{self.key.backend}' ended with exit code {self._process.returncode}"
            raise ZygoteError(text, stage="import") from None
        if message["type"] != "ZYGOTE_READY":
            self.stop()
            told = {key: message.get(key, "") for key in ("stage", "fix", "code")}
            raise ZygoteError(message["cause"], **told)

    def fork(self, descriptors: tuple[int, int, int], environment: Mapping[str, str]) -> int:
        """Forks a worker that gets (control, data, output); its pid. Raises `Closed` if the zygote is gone."""
        with self._lock:
            self._next += 1
            message = {"type": "FORK", "id": self._next, "env": dict(environment), "server_pid": os.getpid()}
            self._control.send(message, descriptors)
            answer, _ = self._control.receive(timeout=30)
        if answer["type"] != "FORKED":
            raise ZygoteError(f"the fork of a worker failed: {answer.get('cause')}")
        return int(answer["pid"])

    def ended(self) -> bool:
        """Whether the process is gone."""
        return self._process.poll() is not None

    def stop(self) -> None:
        """Ends the zygote; its workers live on."""
        with self._lock:  # never under a thread that waits for FORKED: the descriptor's number may be used again
            self._control.close()
        try:
            self._process.wait(2)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
