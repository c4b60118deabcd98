"""Writes a service's `config.pbtxt` from what the user declared; what is not declared is left to detection."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from naiad.control.schema import TensorField
from naiad.signature.pickles import TRUST

MAX_BATCH_SIZE = 32
ENVIRONMENT = "naiad.environment"
"""The parameter by which the server is told."""
_PINNED = re.compile(r'"naiad\.environment" value \{ string_value: "[a-z0-9-]+@([0-9a-f]+)"')
_NAME_LINE = re.compile(r'^\s*name\s*:\s*("[^"\n]*"|\'[^\'\n]*\')\s*$', re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """The inputs and outputs that the user declared."""

    inputs: tuple[TensorField, ...] = ()
    outputs: tuple[TensorField, ...] = ()
    environment: str = ""
    """`NAME@DIGEST` of what the workers run in; "" is the server's own interpreter."""
    pickle: bool = False
    """Whether the model is a pickle that the user trusts."""


def generate(model: str, existing: str | None, fields: Declared) -> str | None:
    """The text of `config.pbtxt`, or None where everything is left to detection."""
    declared = bool(fields.inputs or fields.outputs)
    if existing is None and not declared and not fields.environment and not fields.pickle:
        return None
    text = "" if existing is None else _renamed(existing)
    text += _declared(fields) if declared else ""
    text += _parameter(ENVIRONMENT, fields.environment) if fields.environment else ""
    return f'name: "{model}"\n' + text + (_parameter(TRUST, "true") if fields.pickle else "")


def pinned_digests(text: str) -> list[str]:
    """The beginnings of the environments' digests that a generated configuration names."""
    return _PINNED.findall(text)


def _renamed(existing: str) -> str:
    """The model's own configuration without its top-level name: the directory has another one here."""
    depth = 0
    kept: list[str] = []
    for line in existing.splitlines(keepends=True):
        if not (depth == 0 and _NAME_LINE.match(line)):
            kept.append(line)
        depth += line.count("{") + line.count("[") - line.count("}") - line.count("]")
    return "".join(kept) + "\n"


def _declared(fields: Declared) -> str:
    batch_first = is_batch_first(fields.inputs or fields.outputs)
    parts = []
    if batch_first:
        parts.append(f"max_batch_size: {MAX_BATCH_SIZE}\ndynamic_batching {{ }}\n")
    elif any(tensor.dims[0] != -1 for tensor in fields.inputs):
        parts.append("max_batch_size: 0\n")
    parts += [_tensor("input", tensor, batch_first=batch_first) for tensor in fields.inputs]
    parts += [_tensor("output", tensor, batch_first=batch_first) for tensor in fields.outputs]
    parts += [_argument(tensor) for tensor in fields.inputs if tensor.argument]
    return "".join(parts)


def is_batch_first(tensors: Sequence[TensorField]) -> bool:
    """Whether the dims carry the batch: each begins with -1 and has more behind it."""
    return all(tensor.dims[0] == -1 and len(tensor.dims) > 1 for tensor in tensors)


def _tensor(kind: str, tensor: TensorField, *, batch_first: bool) -> str:
    dims = tensor.dims[1:] if batch_first and tensor.dims[0] == -1 and len(tensor.dims) > 1 else tensor.dims
    datatype = "STRING" if tensor.dtype == "BYTES" else tensor.dtype
    shape = ", ".join(str(dim) for dim in dims)
    return f"{kind} {{ name: {quoted(tensor.name)} data_type: TYPE_{datatype} dims: [ {shape} ] }}\n"


def _argument(tensor: TensorField) -> str:
    return _parameter(f"naiad.argument.{tensor.name}", tensor.argument or "")


def _parameter(key: str, value: str) -> str:
    return f"parameters {{ key: {quoted(key)} value {{ string_value: {quoted(value)} }} }}\n"


def quoted(text: str) -> str:
    """A string literal of protobuf's text form."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
