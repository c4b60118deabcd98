"""Asks a model what it takes, in a worker of its own that is discarded: nothing of it survives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from naiad.backends.base import Backend
from naiad.config.described import Described, asked, merged
from naiad.config.guessed import with_guesses
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
    """Whether a worker is asked for inputs that nobody has written: the server does not read the file, or in vain."""
    if signature is None or not backend.reads_signature or partial.message.input:
        return False
    return signature.describes or signature.guessable


def with_inputs(signature: Signature, told: Mapping[str, Any]) -> Signature:
    """The signature with the inputs that a worker told, or guessed; dims hold the batch."""
    if signature.guessable:
        return with_guesses(signature, told)
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
