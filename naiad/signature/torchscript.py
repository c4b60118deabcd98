"""TorchScript archives: argument names from the code, example shapes and datatypes from the trace's record."""

from __future__ import annotations

import re
import struct
import zipfile
import zlib
from pathlib import PurePosixPath
from typing import Any

from naiad.signature.model import Signature, TensorSignature
from naiad.signature.opcodes import NotReadable, Tensor, first_global, read

MAX_CODE = 4 << 20
DAMAGED = (zipfile.BadZipFile, zlib.error, struct.error, RuntimeError, EOFError)
"""What reading a damaged or encrypted archive raises (NotImplementedError is a RuntimeError)."""


def read_member(archive: zipfile.ZipFile, name: str, limit: int) -> bytes | None:
    """A member of at most `limit` bytes; None if it is absent. The size in the directory is not believed."""
    try:
        with archive.open(name) as file:
            data = file.read(limit + 1)
    except (KeyError, ValueError, OSError, *DAMAGED):
        return None
    return data if len(data) <= limit else None


def read_torchscript(archive: zipfile.ZipFile, top: str) -> Signature:
    """The signature of an archive that has `code/` below `top`."""
    arguments, output_type, warnings = _forward(archive, top)
    record = read_member(archive, f"{top}/traced_inputs.pkl", 1 << 20)
    examples: list[Any] = []
    if record is not None:
        try:
            examples = list(_examples(read(record)))
        except NotReadable as error:
            warnings.append(f"the record of the traced inputs is not readable: {error}")
    inputs = []
    for position, (name, kind) in enumerate(arguments):
        example = examples[position] if position < len(examples) else None
        known = example if isinstance(example, Tensor) else None
        inputs.append(
            TensorSignature(
                name=name,
                type=kind,
                datatype=known.datatype if known else None,
                shape=known.shape if known else None,
            )
        )
    kind = "traced" if record is not None else "scripted, or traced without its inputs"
    guessable = any(not tensor.known and tensor.type in ("Tensor", "Optional[Tensor]") for tensor in inputs)
    return Signature(
        format=f"TorchScript ({kind})",
        backend="pytorch",
        inputs=tuple(inputs),
        output_type=output_type,
        guessable=guessable,
        warnings=tuple(warnings),
    )


def _examples(value: Any) -> list[Any]:
    """The inputs of `forward` in the record: a dictionary from method name to inputs."""
    if not isinstance(value, dict):
        raise NotReadable("the record is no dictionary")
    inputs = value.get("forward", next(iter(value.values()), []))
    return list(inputs) if isinstance(inputs, (list, tuple)) else [inputs]


def _forward(archive: zipfile.ZipFile, top: str) -> tuple[list[tuple[str, str]], str, list[str]]:
    """(argument name, type) of `forward`, the output's type, warnings."""
    data = read_member(archive, f"{top}/data.pkl", 1 << 26) or b""
    qualified = first_global(data, "__torch__")
    if qualified is None:
        return [], "", ["the archive does not say which class it holds"]
    module, _, name = qualified.rpartition(".")
    path = PurePosixPath(top, "code", *module.split("."))
    code = read_member(archive, f"{path}.py", MAX_CODE)
    if code is None:
        return [], "", [f"the code of '{qualified}' is missing"]
    text = code.decode("utf-8", "replace")
    found = _signature_line(text, name)
    if found is None:
        return [], "", [f"'{qualified}' has no forward()"]
    # The first argument is the module itself, whatever its name.
    pieces = _split(found[0])[1:]
    arguments = []
    for piece in pieces:
        argument, _, kind = piece.partition(":")
        arguments.append((argument.strip(), " ".join(kind.split("=")[0].split())))
    return arguments, " ".join(found[1].split()), []


def _signature_line(text: str, name: str) -> tuple[str, str] | None:
    """(arguments, output type) of a class's `forward`. Plain searches: a regular expression would be quadratic."""
    start = re.search(rf"^class {re.escape(name)}\(", text, re.MULTILINE)
    if start is None:
        return None
    head, arrow, colon = "\n  def forward(", ") -> ", ":\n"
    end = text.find("\nclass ", start.end())
    end = len(text) if end < 0 else end
    begin = text.find(head, start.end(), end)
    close = text.find(arrow, begin, end) if begin >= 0 else -1
    stop = text.find(colon, close, end) if close >= 0 else -1
    if stop < 0:
        return None
    return text[begin + len(head) : close], text[close + len(arrow) : stop]


def _split(text: str) -> list[str]:
    """Splits at commas outside brackets."""
    pieces, depth, start = [], 0, 0
    for at, character in enumerate(text):
        if character in "[(":
            depth += 1
        elif character in "])":
            depth -= 1
        elif character == "," and depth == 0:
            pieces.append(text[start:at])
            start = at + 1
    pieces.append(text[start:])
    return pieces
