"""Input tensors that the worker makes itself, for dry runs and warm-ups: zeros, random values or a file's content."""

from __future__ import annotations

from typing import Any

import numpy as np

from naiad_worker.tensors import BF16, BYTES, CODES, NUMPY, Bf16Array, decode_bytes


def zeros(datatype: str, dims: list[int]) -> Any:
    """An array of zeros (empty strings for BYTES)."""
    code = CODES[datatype]
    if code == BYTES:
        array = np.empty(dims, dtype=object)
        array[...] = b""
        return array
    array = np.zeros(dims, dtype=NUMPY[code])
    return array.view(Bf16Array) if code == BF16 else array


def filled(tensor: dict[str, Any], dims: list[int]) -> Any:
    """An array as the tensor's `data` says: `zero` (also where nothing says), `random` or `file` with its `path`."""
    data = tensor.get("data", "zero")
    if data == "random":
        return _random(tensor["datatype"], dims)
    if data == "file":
        return _from_file(tensor, dims)
    return zeros(tensor["datatype"], dims)


def _random(datatype: str, dims: list[int]) -> Any:
    """Fractions from 0 to 1, any integer, either truth; BYTES stay empty, for no text suits every model."""
    code = CODES[datatype]
    generator = np.random.default_rng()
    if code == BYTES:
        return zeros(datatype, dims)
    kind = NUMPY[code]
    if code == BF16:
        raw = generator.random(dims, dtype=np.float32).view(np.uint32) >> 16
        return raw.astype(kind).view(Bf16Array)
    if kind.kind == "f":
        return generator.random(dims).astype(kind)
    if kind.kind == "b":
        return generator.integers(0, 2, dims).astype(kind)
    limits = np.iinfo(kind)
    return generator.integers(limits.min, limits.max, dims, dtype=kind, endpoint=True)


def _from_file(tensor: dict[str, Any], dims: list[int]) -> Any:
    """The file's bytes as on the wire: of the whole batch, or of one row, which then fills each."""
    try:
        with open(tensor["path"], "rb") as file:
            raw = file.read()
    except OSError as error:
        raise ValueError(f"input '{tensor['name']}': the file cannot be read: {error.strerror}") from error
    code = CODES[tensor["datatype"]]
    count = int(np.prod(dims, dtype=np.int64))
    if code == BYTES:
        try:
            array = decode_bytes(raw, (-1,))
        except ValueError as error:
            raise ValueError(f"input '{tensor['name']}': the file: {error}") from None
    elif len(raw) % NUMPY[code].itemsize:
        raise ValueError(f"input '{tensor['name']}': the file's {len(raw)} bytes are no whole {tensor['datatype']}")
    else:
        array = np.frombuffer(raw, dtype=NUMPY[code])
    row = count // dims[0] if dims else count
    if array.size not in (count, row):
        text = f"expected {row} elements in the file"
        text += f" or {count} for the whole batch" if count != row else ""
        raise ValueError(f"input '{tensor['name']}': {text}, got {array.size}")
    array = np.resize(array, dims)  # repeats it where it is one row
    return array.view(Bf16Array) if code == BF16 else array
