"""Datatypes as Triton's Python models name them, and BYTES tensors to and from their bytes."""

from __future__ import annotations

from typing import Any

import numpy as np

from naiad_worker.tensors import BYTES, CODES, decode_bytes, encode_bytes

TRITON_STRING_TO_NUMPY: dict[str, Any] = {
    "TYPE_BOOL": bool,
    "TYPE_UINT8": np.uint8,
    "TYPE_UINT16": np.uint16,
    "TYPE_UINT32": np.uint32,
    "TYPE_UINT64": np.uint64,
    "TYPE_INT8": np.int8,
    "TYPE_INT16": np.int16,
    "TYPE_INT32": np.int32,
    "TYPE_INT64": np.int64,
    "TYPE_FP16": np.float16,
    "TYPE_FP32": np.float32,
    "TYPE_FP64": np.float64,
    "TYPE_STRING": np.object_,
}
"""BF16 is not among them: numpy has no such type."""

_NUMPY_OF = {
    CODES["BYTES" if name == "TYPE_STRING" else name[5:]]: kind for name, kind in TRITON_STRING_TO_NUMPY.items()
}
_NUMPY_OF[CODES["BOOL"]] = np.bool_
_CODE_OF = {np.dtype(kind): code for code, kind in _NUMPY_OF.items()}


def triton_string_to_numpy(triton_type_string: str) -> Any:
    """The numpy type of a configuration's `data_type` (`TYPE_FP32`); raises `KeyError` for one without any."""
    return TRITON_STRING_TO_NUMPY[triton_type_string]


def triton_to_numpy_type(data_type: int) -> Any:
    """The numpy type of a datatype's number; None where numpy has none."""
    return _NUMPY_OF.get(data_type)


def numpy_to_triton_type(data_type: Any) -> int | None:
    """The number of the datatype of a numpy type; None where there is none."""
    kind = np.dtype(data_type)
    if kind.kind in "SU":
        return BYTES
    return _CODE_OF.get(kind.newbyteorder("="))


def serialize_byte_tensor(input_tensor: Any) -> bytes | None:
    """Strings as bytes, each behind its length in four of them; None for no elements or another type."""
    if input_tensor.size == 0 or (input_tensor.dtype != np.object_ and input_tensor.dtype.kind not in "SU"):
        return None
    return encode_bytes(input_tensor)


def deserialize_bytes_tensor(encoded_tensor: Any) -> Any:
    """The strings of such bytes as a flat array of `bytes`; raises `ValueError` where they break off."""
    return decode_bytes(encoded_tensor, (-1,))
