"""The worker half of each backend: load a model, execute a call."""

from __future__ import annotations

import importlib
from typing import Any, NamedTuple

NAMES = ("identity", "pytorch")


class LoadSpec(NamedTuple):
    """What a backend is told at LOAD."""

    model: str
    version: int
    instance: int
    directory: str
    """The version's folder."""
    file: str
    """The model file below it, or ""."""
    config: dict[str, Any]
    device: dict[str, Any]
    threads: int


class LoadFailure(Exception):
    """A model that cannot be loaded, with what to do about it."""

    def __init__(self, cause: str, fix: str = "") -> None:
        super().__init__(cause)
        self.fix = fix


def backend(name: str) -> Any:
    """The module of a backend: `preimport()`, `FORKS` and `Backend`."""
    if name not in NAMES:
        raise LoadFailure(f"this worker has no backend '{name}'; it has {', '.join(NAMES)}")
    return importlib.import_module(f"naiad_worker.backends.{name}")
