"""Asks a model what it takes, in a worker of its own that is discarded: nothing of it survives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from naiad.backends.base import Backend
from naiad.config.described import Described, asked, merged
from naiad.config.pbtxt import PartialConfig
from naiad.server.supervisor import Supervisor, Worker
from naiad.signature import pythonmodel


def described(
    partial: PartialConfig,
    backend: Backend,
    path: Path,
    *,
    name: str,
    ask: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None,
) -> Described | None:
    """The configuration that the model completes; None where the file says that it does not.

    `ask` hands it the configuration and gives back what it makes of it; None where nobody is to be asked. Raises
    `UnservableFile` for a file that holds no model, and `ConfigError`.
    """
    if not pythonmodel.read(path).describes or ask is None:
        return None
    before = asked(partial, backend, name=name)
    return merged(partial, before, ask(before))


def once(supervisor: Supervisor, worker: Worker, message: Mapping[str, Any]) -> dict[str, Any]:
    """DESCRIBE; the worker is gone afterwards, whatever comes. Raises `LoadError`."""
    try:
        return worker.describe(message)
    finally:
        supervisor.discard(worker)
