"""TorchScript archives: argument names from the code, example shapes and datatypes from the trace's record."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

from naiad.signature.archive import Archive
from naiad.signature.model import Signature, TensorSignature
from naiad.signature.opcodes import NotReadable, Tensor, first_global, read

MAX_CODE = 4 << 20
MAX_TEXT = 64 << 10
"""Characters of the line that declares `forward`."""
HEAD = 64 << 10
"""Bytes of a pickle in which the class of its object is named: nothing comes before it."""


def read_torchscript(archive: Archive, top: str) -> Signature:
    """The signature of an archive that has `code/` below `top`."""
    arguments, output_type, warnings = _forward(archive, top)
    record = archive.read(f"{top}/traced_inputs.pkl", 1 << 20)
    examples: list[Any] = []
    if record is not None:
        try:
            examples = list(_examples(read(record)))
        except NotReadable as error:
            warnings.append(f"the record of the traced inputs is not readable: {error}")
    inputs = []
    for position, (name, kind, optional) in enumerate(arguments):
        example = examples[position] if position < len(examples) else None
        known = example if isinstance(example, Tensor) else None
        inputs.append(
            TensorSignature(
                name=name,
                type=kind,
                datatype=known.datatype if known else None,
                shape=known.shape if known else None,
                optional=optional,
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


def _forward(archive: Archive, top: str) -> tuple[list[tuple[str, str, bool]], str, list[str]]:
    """(argument name, type, whether it may be left out) of `forward`, the output's type, warnings."""
    data = archive.head(f"{top}/data.pkl", HEAD) or b""
    qualified = first_global(data, "__torch__")
    if qualified is None:
        return [], "", ["the archive does not say which class it holds"]
    module, _, name = qualified.rpartition(".")
    path = PurePosixPath(top, "code", *module.split("."))
    code = archive.read(f"{path}.py", MAX_CODE)
    if code is None:
        return [], "", [f"the code of '{qualified}' is missing"]
    text = code.decode("utf-8", "replace")
    found = _signature_line(text, name)
    if found is None:
        return [], "", [f"'{qualified}' has no forward()"]
    # The first argument is the module itself, whatever its name.
    if len(found[0]) + len(found[1]) > MAX_TEXT:
        return [], "", [f"the forward() of '{qualified}' has more arguments than are read"]
    pieces = _split(found[0])[1:]
    arguments = []
    for piece in pieces:
        argument, _, rest = piece.partition(":")
        written, default, _ = rest.partition("=")
        kind = " ".join(written.split())
        arguments.append((argument.strip(), kind, bool(default) or kind.startswith("Optional[")))
    return arguments, " ".join(found[1].split()), []


def _signature_line(text: str, name: str) -> tuple[str, str] | None:
    """(arguments, output type) of a class's `forward`. Plain searches: a regular expression would be quadratic."""
    start = 0 if text.startswith(f"class {name}(") else text.find(f"\nclass {name}(")
    if start < 0:
        return None
    head, arrow, colon = "\n  def forward(", ") -> ", ":\n"
    end = text.find("\nclass ", start + 1)
    end = len(text) if end < 0 else end
    begin = text.find(head, start, end)
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
