"""Turns numpy arrays into the JSON of a v2 request, and makes random inputs from a model's metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

_NUMPY: dict[str, str] = {
    "BOOL": "bool",
    **{f"{sign}INT{bits}": f"{sign.lower()}int{bits}" for sign in ("", "U") for bits in (8, 16, 32, 64)},
    **{f"FP{bits}": f"float{bits}" for bits in (16, 32, 64)},
    "BF16": "float32",
    "BYTES": "object",
}


def random_inputs(metadata: Mapping[str, Any], *, batch: int, seed: int) -> dict[str, Array]:
    """An input for each tensor of the metadata; a free dim becomes `batch` if it comes first, else 1."""
    generator = np.random.default_rng(seed)
    inputs: dict[str, Array] = {}
    for tensor in metadata["inputs"]:
        shape = [
            int(dim) if int(dim) > 0 else (batch if index == 0 else 1) for index, dim in enumerate(tensor["shape"])
        ]
        inputs[tensor["name"]] = _random(generator, tensor["datatype"], shape)
    return inputs


def _random(generator: np.random.Generator, datatype: str, shape: list[int]) -> Array:
    if datatype == "BYTES":
        return np.full(shape, "naiad", dtype=object)
    if datatype == "BOOL":
        return generator.integers(0, 2, shape).astype(bool)
    if "INT" in datatype:
        return generator.integers(0, 10, shape).astype(_NUMPY[datatype])
    return generator.random(shape, dtype=np.float32).astype(_NUMPY[datatype])


def request_body(metadata: Mapping[str, Any], inputs: Mapping[str, Array]) -> bytes:
    """The JSON body of an inference; names and ranks are checked before anything is sent."""
    known = {tensor["name"]: tensor for tensor in metadata["inputs"]}
    unknown = sorted(set(inputs) - set(known))
    if unknown:
        raise ValueError(f"the model has no input '{unknown[0]}'; it has {', '.join(sorted(known))}")
    missing = sorted(set(known) - set(inputs))
    if missing:
        raise ValueError(f"input '{missing[0]}' is missing; the model takes {', '.join(sorted(known))}")
    return json.dumps({"inputs": [_tensor(known[name], array) for name, array in inputs.items()]}).encode()


def _tensor(tensor: Mapping[str, Any], array: Array) -> dict[str, Any]:
    wanted = [int(dim) for dim in tensor["shape"]]
    if array.ndim + 1 == len(wanted) and wanted[0] == -1:
        array = array[np.newaxis]  # one example without its batch
    fits = array.ndim == len(wanted) and all(w in (-1, got) for w, got in zip(wanted, array.shape, strict=True))
    if not fits:
        raise ValueError(f"input '{tensor['name']}': expected shape {wanted}, got {list(array.shape)}")
    datatype = str(tensor["datatype"])
    data = array if datatype == "BYTES" else array.astype(_NUMPY[datatype])
    return {"name": tensor["name"], "shape": list(array.shape), "datatype": datatype, "data": data.ravel().tolist()}
