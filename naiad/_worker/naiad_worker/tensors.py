"""Datatypes of the v2 protocol as numpy sees them, and BYTES tensors to and from their bytes (W29)."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

# Numbers of inference.DataType, as on the worker's wire.
CODES = {
    "BOOL": 1,
    "UINT8": 2,
    "UINT16": 3,
    "UINT32": 4,
    "UINT64": 5,
    "INT8": 6,
    "INT16": 7,
    "INT32": 8,
    "INT64": 9,
    "FP16": 10,
    "FP32": 11,
    "FP64": 12,
    "BYTES": 13,
    "BF16": 14,
}
NAMES = {code: name for name, code in CODES.items()}
BYTES = CODES["BYTES"]
BF16 = CODES["BF16"]

# BF16 has no numpy type: its arrays are uint16 with the raw bits.
NUMPY = {
    CODES[name]: np.dtype(kind)
    for name, kind in {
        "BOOL": "?",
        "UINT8": "u1",
        "UINT16": "<u2",
        "UINT32": "<u4",
        "UINT64": "<u8",
        "INT8": "i1",
        "INT16": "<i2",
        "INT32": "<i4",
        "INT64": "<i8",
        "FP16": "<f2",
        "FP32": "<f4",
        "FP64": "<f8",
        "BF16": "<u2",
    }.items()
}
FROM_NUMPY = {
    "bool": "BOOL",
    "uint8": "UINT8",
    "uint16": "UINT16",
    "uint32": "UINT32",
    "uint64": "UINT64",
    "int8": "INT8",
    "int16": "INT16",
    "int32": "INT32",
    "int64": "INT64",
    "float16": "FP16",
    "float32": "FP32",
    "float64": "FP64",
    "object": "BYTES",
}


_CODE_OF_NUMBER = {np.dtype(kind).num: CODES[name] for kind, name in FROM_NUMPY.items() if kind != "object"}
_CODE_OF_NUMBER[np.dtype(np.longlong).num] = CODES["INT64"]
_CODE_OF_NUMBER[np.dtype(np.ulonglong).num] = CODES["UINT64"]


class Bf16Array(np.ndarray):  # type: ignore[type-arg]
    """An array of raw BF16 bits: uint16 elements that say what they are."""


def floats(array: Any) -> Any:
    """The values of raw BF16 bits, which are the upper half of FP32's."""
    return (array.view(np.ndarray).astype(np.uint32) << 16).view(np.float32)


def datatype_of(array: Any) -> str:
    """The v2 name of an array's type; raises `TypeError` for one that has none."""
    if isinstance(array, Bf16Array):
        return "BF16"
    kind = array.dtype.kind
    if kind in "SU":
        return "BYTES"
    try:
        return FROM_NUMPY[array.dtype.name]
    except KeyError:
        raise TypeError(f"arrays of {array.dtype} have no v2 datatype") from None


def code_of(array: Any) -> int:
    """The number of an array's v2 datatype; raises `TypeError` for one that has none."""
    if type(array) is np.ndarray:
        code = _CODE_OF_NUMBER.get(array.dtype.num)  # `dtype.name`, which is otherwise asked, costs microseconds
        if code is not None:
            return code
    return CODES[datatype_of(array)]


def decode_bytes(data: Any, shape: tuple[int, ...]) -> Any:
    """A BYTES tensor's memory as an object array of `bytes`; raises `ValueError` if it breaks off or does not fit."""
    elements = []
    view, at = memoryview(data).cast("B"), 0
    while at + 4 <= len(view):
        (length,) = struct.unpack_from("<I", view, at)
        elements.append(bytes(view[at + 4 : at + 4 + length]))
        at += 4 + length
    if at != len(view):
        raise ValueError(f"expected whole strings, each behind its length, got {len(view)} bytes that break off")
    array = np.empty(len(elements), dtype=object)
    array[:] = elements
    return array.reshape(shape)


def encode_bytes(array: Any) -> bytes:
    """An array of bytes or strings as a BYTES tensor."""
    parts = []
    for element in array.reshape(-1):
        raw = element if isinstance(element, bytes) else str(element).encode()
        parts.append(struct.pack("<I", len(raw)))
        parts.append(raw)
    return b"".join(parts)
