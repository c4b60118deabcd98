"""The worker half of each backend: load a model, execute a call."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

NAMES = (
    "identity",
    "onnxruntime",
    "python",
    "pytorch",
    "pytorch_export",
    "repeat",
    "sklearn",
    "square",
    "tensorflow",
)


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
    settings: Mapping[str, str] = MappingProxyType({})
    """What `--backend-config` says of this backend, by Triton's names; the model's own parameters go before it."""


class LoadFailure(Exception):
    """A model that cannot be loaded, with what to do about it and, where it has one, the diagnosis code."""

    def __init__(self, cause: str, fix: str = "", code: str = "") -> None:
        super().__init__(cause)
        self.fix = fix
        self.code = code


def backend(name: str) -> Any:
    """The module of a backend: `preimport()`, `FORKS` and `Backend`.

    A `Backend` has `serve`, `probe`, `finalize` and `execute(inputs)`, or `answer(asked)` where it wants its requests
    apart (`naiad_worker.listing`), or `stream(inputs, sender)` where its models are decoupled; `sender` is a
    `naiad_worker.streaming.Sender`. Where models say themselves what they take the module has `describe(spec)`.
    """
    if name not in NAMES:
        raise LoadFailure(f"this worker has no backend '{name}'; it has {', '.join(NAMES)}")
    return importlib.import_module(f"naiad_worker.backends.{name}")


def require_decoupled(spec: LoadSpec, name: str) -> None:
    """For a backend that gives any number of responses; raises `LoadFailure`."""
    if not spec.config.get("model_transaction_policy", {}).get("decoupled", False):
        raise LoadFailure(
            f"the backend '{name}' gives any number of responses to a request",
            "write 'model_transaction_policy { decoupled: true }' into config.pbtxt",
        )


def tensor_indexes(table: list[dict[str, Any]], *names: str) -> list[int]:
    """Where these tensors stand in the table of SERVE; raises `LoadFailure`."""
    there = [tensor["name"] for tensor in table]
    for name in names:
        if name not in there:
            raise LoadFailure(f"expected a tensor '{name}', got {', '.join(there) or 'none'}")
    return [there.index(name) for name in names]
