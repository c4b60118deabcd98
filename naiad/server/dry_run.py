"""A dry run without a server: one worker, fenced in, that loads a model, runs it with zeros and ends."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from naiad._worker.naiad_worker.control import Closed, ControlChannel
from naiad._worker.naiad_worker.restrict import UNRESTRICTED
from naiad.backends.base import Backend
from naiad.config.described import Described
from naiad.config.probe import ProbeRequest
from naiad.environments.archive import Limits
from naiad.errors import LoadError
from naiad.server import threads
from naiad.server.allowed import START, worker_environment
from naiad.server.describe import described
from naiad.server.failures import without_paths
from naiad.server.fence import Fence
from naiad.server.interpreter import NAME, PATH, Interpreter, InterpreterOptions, Interpreters, explained
from naiad.server.load_request import LoadRequest, load_message
from naiad.server.probing import AS_WRITTEN, instead_of_run
from naiad.server.reaper import describe_exit
from naiad.server.starter import interpreter_of

GIB = 1 << 30
MOST_MEMORY = 8 * GIB
FILE_BYTES = 64 << 20
_FINISH_SECONDS = 600.0
"""Of the processors, for what a packed environment runs once when it is extracted."""
_FRAMEWORK = 64 * GIB
"""Addresses that a framework may map before its model's are counted; most of them are never touched."""
_NO_MEMORY = re.compile(
    r"out of memory|MemoryError|(cannot|can't|failed to|unable to) allocate|bad_alloc|not enough memory", re.IGNORECASE
)
_TAIL = 2_000


@dataclass(frozen=True, slots=True, kw_only=True)
class DryRunOptions:
    """What a dry run gets."""

    timeout_secs: float = 60.0
    memory: int = MOST_MEMORY
    """Bytes beyond what the framework maps itself."""
    interpreter: Interpreter = field(default_factory=lambda: Interpreter(python=sys.executable))
    """What it runs under."""


def default_memory() -> int:
    """Half of this machine's memory, but no more than 8 GiB."""
    return min(MOST_MEMORY, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2)


def fenced_interpreter(request: LoadRequest, backend: Backend, *, environments: Path) -> Interpreter:
    """The interpreter that the configuration asks for; it is looked at, and its archive finished, behind the fence.

    Raises `LoadError`. `environments` is the folder of named environments and extracted archives.
    """
    message = request.partial.message
    fence = Fence(memory=MOST_MEMORY, file_bytes=Limits().size, timeout_secs=_FINISH_SECONDS)
    if PATH in message.parameters or NAME in message.parameters:
        _check(fence, request)
    interpreter_options = InterpreterOptions(
        own=sys.executable,
        environments=environments,
        repositories=(request.directory,),
        allow_paths=True,
        environ=dict(os.environ),
        start=fence,
    )
    return interpreter_of(Interpreters(interpreter_options), request, backend)


def _check(fence: Fence, request: LoadRequest) -> None:
    """Raises `LoadError` where no fence can be put up, before anything is kept that is half done."""
    command, variables = fence([sys.executable, "-I", "-c", ""], {})
    done = subprocess.run(command, env=variables, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if done.returncode:
        raise _unrestricted(done.stderr.decode("utf-8", "replace")).of(request, request.directory)


def _unrestricted(said: str) -> _Failed:
    why = next(iter(said.splitlines()[-1:]), "it cannot be restricted here")
    return _Failed("start", why, fix="'naiad serve' makes a dry run at load, in a worker without these limits")


def dry_run(
    request: LoadRequest,
    backend: Backend,
    place: tuple[Path, str],
    *,
    probed: ProbeRequest | None,
    options: DryRunOptions,
) -> tuple[dict[str, Any] | None, str]:
    """What PROBED says, or the file where zeros do not run; without either None and a note that says why.

    Raises `ConfigError` or `LoadError`.
    `place` is the folder and the model file in it. The model runs on the CPU, in a process without network, with
    bounded memory and time, which is gone at the end with all that it started.
    """
    count = threads.of_model(request.partial.message, "1", source=request.partial.source)
    message = load_message(request, (backend, *place), threads=count)
    message["device"] = {"kind": "cpu"}
    with _started(backend.half(place[1]), count, options) as run:
        try:
            run.begin()
            run.ask({"type": "LOAD", **message}, "LOADED")
            if probed is None:
                return None, f"the model loads; models of backend '{backend.name}' are not asked what they give"
            return run.ask({"type": "PROBE", "inputs": probed.inputs, "batched": probed.batched}, "PROBED"), ""
        except _Failed as error:
            failure = error.of(request, place[0])
            if probed is None or error.stage != "probe":
                raise failure from None
            told = instead_of_run(request, probed, failure)
            return (None, AS_WRITTEN % failure.cause) if told is None else (told, "")


def description(
    request: LoadRequest, backend: Backend, place: tuple[Path, str], *, options: DryRunOptions
) -> Described:
    """The configuration as the model completes it, asked in such a process; raises `ConfigError` or `LoadError`."""

    def ask(config: Mapping[str, Any]) -> Mapping[str, Any]:
        return answer(request, backend, place, {"config": config}, options=options)

    return described(request.partial, backend, name=request.model, ask=ask)


def answer(
    request: LoadRequest, backend: Backend, place: tuple[Path, str], other: Mapping[str, Any], *, options: DryRunOptions
) -> dict[str, Any]:
    """What such a process answers to DESCRIBE, which is LOAD's message with other fields; raises `LoadError`."""
    count = threads.of_model(request.partial.message, "1", source=request.partial.source)
    message = {**load_message(request, (backend, *place), threads=count), "device": {"kind": "cpu"}, **other}
    with _started(backend.half(place[1]), count, options) as run:
        try:
            run.begin()
            return dict(run.ask({"type": "DESCRIBE", **message}, "DESCRIBED")["config"])
        except _Failed as error:
            raise error.of(request, place[0]) from None


class _Failed(Exception):
    """What a `LoadError` says, before the model is known."""

    def __init__(self, stage: str, cause: str, *, code: str = "", fix: str = "") -> None:
        super().__init__(cause)
        self.stage = stage
        self.cause = cause
        self.code = code
        self.fix = fix

    def of(self, request: LoadRequest, folder: Path) -> LoadError:
        """The failure of this model."""
        cause = without_paths(self.cause, folder.parent)
        failure = LoadError(model=request.model, version=request.version, stage=self.stage, cause=cause, fix=self.fix)
        return explained(failure.coded(self.code), request.partial.message)


class _Run:
    """A worker that is fenced in, and the clock that it runs against."""

    def __init__(
        self, process: subprocess.Popen[bytes], control: ControlChannel, output: IO[bytes], options: DryRunOptions
    ) -> None:
        self._process = process
        self._control = control
        self._output = output
        self._options = options
        self._late = False

    def kill(self) -> None:
        """Ends the worker and all that it started: the fence keeps them in its process group."""
        if self._process.returncode is None:  # not waited for, so that the number is still its own
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def over(self) -> None:
        """The time is over."""
        self._late = True
        self.kill()

    def ask(self, message: dict[str, Any] | None, answer: str) -> dict[str, Any]:
        """The answer to a message, or what the worker says by itself; raises `_Failed`."""
        step = str(message["type"]) if message is not None else "its start"
        try:
            if message is not None:
                self._control.send(message)
            got, _ = self._control.receive()
        except Closed:
            raise self._ended(step) from None
        if got.get("type") == "FAILED":
            cause, fix, code = (str(got.get(field, "")) for field in ("cause", "fix", "code"))
            if code == "HOST_OOM" or _NO_MEMORY.search(cause):
                raise self._memory()
            raise _Failed(str(got.get("stage", "load")), cause, code=code, fix=fix)
        if got.get("type") != answer:
            raise _Failed("load", f"the worker answered {got.get('type')} to {step}")
        return got

    def begin(self) -> None:
        """Has the framework be there, then bounds the memory from outside: inside, limits cannot be changed."""
        self.ask(None, "IMPORTED")
        with contextlib.suppress(ProcessLookupError, FileNotFoundError):  # it has ended, which the next step says
            mapped = int(Path(f"/proc/{self._process.pid}/statm").read_text("ascii").split()[0])
            bound = mapped * resource.getpagesize() + self._options.memory
            _, hard = resource.prlimit(self._process.pid, resource.RLIMIT_AS)
            bound = bound if hard == resource.RLIM_INFINITY else min(bound, hard)
            resource.prlimit(self._process.pid, resource.RLIMIT_AS, (bound, bound))
        self.ask(None, "HELLO")

    def _memory(self) -> _Failed:
        text = f"it needs more than the {self._options.memory / GIB:.3g} GiB of memory that it may use"
        fix = "raise --memory GIB where the model needs that much"
        return _Failed("start", text, code="HOST_OOM", fix=fix)

    def _ended(self, step: str) -> _Failed:
        if self._late:
            text = f"it took longer than {self._options.timeout_secs:g} s and was stopped during {step}"
            fix = "raise --timeout SECONDS where the model is that slow"
            return _Failed("start", text, code="SLOW_START", fix=fix)
        self.kill()
        ended = self._wait()
        status = describe_exit(ended)
        said = self._said()
        if os.WIFEXITED(ended) and os.WEXITSTATUS(ended) == UNRESTRICTED:
            return _unrestricted(said)
        if _NO_MEMORY.search(said):
            return self._memory()
        lines = [line for line in said.splitlines() if line.strip()][-5:]
        text = f"the worker process ended during {step} ({status})"
        return _Failed("load", text, fix="\n".join(["look at its last lines:", *lines]) if lines else "")

    def _wait(self) -> int:
        """The wait status of the worker, before `Popen` makes a code of it."""
        code = self._process.wait()
        return -code if code < 0 else code << 8

    def _said(self) -> str:
        size = self._output.seek(0, os.SEEK_END)
        self._output.seek(max(0, size - _TAIL))
        return self._output.read().decode("utf-8", "replace")


@contextlib.contextmanager
def _started(backend: str, count: int, options: DryRunOptions) -> Iterator[_Run]:
    """A worker of this backend under these limits; it is gone at the end, whatever happened."""
    fence = Fence(memory=options.memory + _FRAMEWORK, file_bytes=FILE_BYTES, timeout_secs=options.timeout_secs)
    extra = {"CUDA_VISIBLE_DEVICES": "", **dict.fromkeys(threads.VARIABLES, str(count))}
    variables = worker_environment(os.environ, {**extra, **options.interpreter.environment})
    with contextlib.ExitStack() as stack:
        ours, theirs = (stack.enter_context(end) for end in socket.socketpair())
        _unused, data = (stack.enter_context(end) for end in socket.socketpair(type=socket.SOCK_SEQPACKET))
        output = stack.enter_context(tempfile.TemporaryFile())
        command = [options.interpreter.python, START, "main", "--backend", backend]
        command += ["--control-fd", str(theirs.fileno()), "--data-fd", str(data.fileno())]
        command += ["--server-pid", str(os.getpid()), "--dry-run"]
        command, environment = fence(command, variables)
        process = subprocess.Popen(
            command,
            env=environment,
            pass_fds=[theirs.fileno(), data.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # a process group of its own, which ends as one
        )
        theirs.close()
        data.close()
        run = _Run(process, ControlChannel(ours), output, options)
        clock = threading.Timer(options.timeout_secs, run.over)
        clock.daemon = True
        clock.start()
        try:
            yield run
        finally:
            clock.cancel()
            clock.join()
            run.kill()
            process.wait()
