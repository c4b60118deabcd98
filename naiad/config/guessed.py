"""Inputs that a file does not tell: a worker's guesses, what the dry run makes of them, what to write instead."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from naiad.config import patch
from naiad.signature.model import Signature, TensorSignature

GUESS = "guess"
"""The origin of what was guessed."""
_NUMBERS = {"int": "INT64", "float": "FP32", "bool": "BOOL"}
"""Arguments that are sent as one element."""


def with_guesses(signature: Signature, told: Mapping[str, Any]) -> Signature:
    """The signature with a worker's guesses where the file says nothing; its answer to DESCRIBE is `told`.

    An argument that nothing is known of stays as it is, but for one that may be left out: that is left out.
    """
    guesses = {str(entry["name"]): entry for entry in told["input"]}
    inputs = []
    for tensor in signature.inputs:
        entry = guesses.get(tensor.name, {})
        if not tensor.known and "dims" in entry:
            dims = tuple(tuple(int(dim) for dim in each) for each in entry["dims"])
            inputs.append(replace(tensor, datatype=str(entry["datatype"]), guesses=dims))
        elif tensor.known or not entry.get("optional"):
            inputs.append(tensor)
    return replace(signature, inputs=tuple(inputs), guessable=False)


def untold(signature: Signature | None) -> str:
    """Why a model cannot be run, with what to write: inputs that neither its file nor a guess tells."""
    names = ", ".join(tensor.name for tensor in signature.inputs) if signature else ""
    traced = signature is None or signature.backend == "pytorch"
    takes = "its forward() takes" if traced else "it takes"
    has = f"{takes} ({names}), but not their shapes" if names else "it does not say what it takes"
    wanted = "write them into config.pbtxt (input: name, data_type, dims)"
    if signature is not None and names:
        wanted = _to_write(signature.inputs)
    other = ", or save the model with torch.jit.trace" if traced else ""
    return f"the file does not tell its inputs: {has} (CONFIG_INVALID); {wanted}{other}"


def _to_write(inputs: Sequence[TensorSignature]) -> str:
    """The inputs as one writes them, with `…` for what is not known; a model that takes numbers does not batch."""
    batching = not any(tensor.type in _NUMBERS for tensor in inputs)
    lines = []
    for tensor in inputs:
        told = tensor.dims if tensor.dims is not None else tensor.shape
        shape = told if told is not None else next(iter(tensor.guesses), None)
        dims: list[int | str] = ["…"] if shape is None else list(shape[1:] if batching else shape)
        if tensor.type in _NUMBERS:
            dims = [1]
        datatype = tensor.datatype or _NUMBERS.get(tensor.type, "…")
        lines.append(patch.line("input", tensor.name, datatype, dims))
    return patch.write(*(["max_batch_size: 8"] if batching else []), *lines)


def refusal(inputs: list[dict[str, Any]]) -> str:
    """What to write where a model does not run at the guessed shapes; "" where nothing was guessed."""
    if not any("guesses" in entry for entry in inputs):
        return ""
    lines = [patch.line("input", entry["name"], entry["datatype"], entry["dims"][1:]) for entry in inputs]
    return f"{patch.write('max_batch_size: 8', *lines)}, with what the model takes: this is a guess from its weights"


def sized(inputs: list[dict[str, Any]], report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The inputs of a dry run, guessed ones with the shapes at which the model ran, as PROBED reports them."""
    return [{**entry, "dims": report["shapes"][entry["name"]]} if "guesses" in entry else entry for entry in inputs]


def note(message: Any, inputs: list[dict[str, Any]]) -> list[str]:
    """What is said of guesses in the finished configuration."""
    guessed = {entry["name"] for entry in inputs if "guesses" in entry}
    shown = ", ".join(f"{tensor.name} {list(tensor.dims)}" for tensor in message.input if tensor.name in guessed)
    if not shown:
        return []
    return [f"inputs are a guess from the model's weights, and ran: {shown}; what config.pbtxt says counts instead"]
