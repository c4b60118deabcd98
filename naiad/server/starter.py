"""Starts the workers of a version: which interpreter, how many threads, which variables, and what LOAD says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from naiad.backends.base import Backend
from naiad.environments.errors import BadArchive, NoSuchEnvironment, Unfit
from naiad.errors import ConfigError
from naiad.server import threads
from naiad.server.backend_config import BackendConfig
from naiad.server.failures import failure
from naiad.server.interpreter import Interpreter, Interpreters
from naiad.server.load_request import LoadRequest, Place, load_message
from naiad.server.supervisor import Supervisor
from naiad.server.worker import Worker, WorkerSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class StarterOptions:
    """How workers are started."""

    load_timeout_secs: float
    backends: BackendConfig
    interpreters: Interpreters
    threads: str = "1"
    """Of a model that does not say: `auto` or a number."""
    verbose: bool = False
    """Whether models may write what only a verbose log shows."""


class Starter:
    """Starts workers; safe to be called from several threads."""

    def __init__(self, supervisor: Supervisor, options: StarterOptions) -> None:
        self._supervisor = supervisor
        self._options = options

    def start(self, request: LoadRequest, place: Place, *, instance: int, device: Mapping[str, Any]) -> Worker:
        """A worker that has said HELLO; raises `LoadError`."""
        environment = {} if device["kind"] in ("cuda", "model") else {"CUDA_VISIBLE_DEVICES": ""}
        if self._options.verbose:
            environment["WORKER_LOG_VERBOSE"] = "1"
        interpreter = self.interpreter(request, place[0])
        spec = WorkerSpec(
            model=request.model,
            version=request.version,
            instance=instance,
            backend=place[0].half(place[2]),
            forks=place[0].forks,
            python=interpreter.python,
            environment={**environment, **interpreter.environment},
            lease=interpreter.lease,
            threads=self.threads_of(request, place[0].name),
            load_timeout_secs=self._options.load_timeout_secs,
            start_timeout_secs=self._options.backends.start_secs(place[0].name),
        )
        return self._supervisor.start(spec)

    def message(self, request: LoadRequest, place: Place) -> dict[str, Any]:
        """The fields of LOAD for the first instance."""
        backend = place[0].name
        message = load_message(request, place, threads=self.threads_of(request, backend))
        return {**message, "settings": self._options.backends.told(backend)}

    def threads_of(self, request: LoadRequest, backend: str) -> int:
        """Threads of each instance of a model of this backend; raises `ConfigError`."""
        default = self._options.backends.threads(backend, self._options.threads)
        return threads.of_model(request.partial.message, default, source=request.partial.source)

    def interpreter(self, request: LoadRequest, backend: Backend) -> Interpreter:
        """The Python that the model runs in; raises `LoadError`."""
        return interpreter_of(self._options.interpreters, request, backend)


def interpreter_of(interpreters: Interpreters, request: LoadRequest, backend: Backend) -> Interpreter:
    """The Python that a model runs in; raises `LoadError`."""
    partial = request.partial
    try:
        return interpreters.choose(partial.message, partial.source, request.directory, backend)
    except Unfit as error:
        raise failure(request, "environment", str(error), error.fix) from error
    except ConfigError as error:
        raise failure(request, "environment", error.what, error.fix).coded(error.code) from error
    except (BadArchive, NoSuchEnvironment, OSError) as error:
        cause = error.strerror or "it cannot be read" if isinstance(error, OSError) else str(error)
        raise failure(request, "environment", cause, "").coded("ENV_UNUSABLE") from error
