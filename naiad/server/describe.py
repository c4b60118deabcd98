"""Asks a model what it takes, in a worker of its own that is discarded: nothing of it survives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from naiad.backends.base import Backend
from naiad.config.described import Described, asked, merged
from naiad.config.pbtxt import PartialConfig
from naiad.server.supervisor import Supervisor
from naiad.server.worker import Worker
from naiad.signature.model import Signature, TensorSignature


def described(
    partial: PartialConfig,
    backend: Backend,
    *,
    name: str,
    ask: Callable[[Mapping[str, Any]], Mapping[str, Any]],
) -> Described:
    """The configuration that the model completes: `ask` hands it what is written and gives back what it makes of it.

    Raises `ConfigError`, and what `ask` raises.
    """
    before = asked(partial, backend, name=name)
    return merged(partial, before, ask(before))


def by_worker(partial: PartialConfig, backend: Backend, signature: Signature | None) -> bool:
    """Whether the file's inputs are told by its worker, since the server does not read it and nothing is written."""
    return signature is not None and signature.describes and backend.reads_signature and not partial.message.input


def with_inputs(signature: Signature, told: Mapping[str, Any]) -> Signature:
    """The signature of a file that only a worker opens, with the inputs that it told; dims hold the batch."""
    inputs = tuple(
        TensorSignature(
            name=tensor["name"],
            type=tensor["type"],
            datatype=tensor["datatype"],
            dims=tuple(tensor["dims"]),
            by_convention=tensor["datatype"] != "BYTES",
        )
        for tensor in told["input"]
    )
    return replace(signature, inputs=inputs, describes=False)


def once(supervisor: Supervisor, worker: Worker, message: Mapping[str, Any]) -> dict[str, Any]:
    """DESCRIBE; the worker is gone afterwards, whatever comes. Raises `LoadError`."""
    try:
        return worker.describe(message)
    finally:
        supervisor.discard(worker)
