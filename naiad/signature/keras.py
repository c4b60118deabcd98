"""Reads a `.keras` archive without Keras: the inputs of the model, and whether it is made of Keras' own layers alone.

Source: `config.json` as Keras 3 (and Keras 2.13 and later) write it. Only that member is read, up to a limit.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from naiad.errors import UnservableFile
from naiad.signature.archive import Archive
from naiad.signature.model import Signature, TensorSignature

CONFIG = "config.json"
MAX_CONFIG = 4 << 20
MAX_VALUES = 100_000
"""Values in it: each takes up to 100 bytes once it is read."""
MAX_RANK = 32

_DATATYPES = {
    "bool": "BOOL", "uint8": "UINT8", "uint16": "UINT16", "uint32": "UINT32", "uint64": "UINT64",
    "int8": "INT8", "int16": "INT16", "int32": "INT32", "int64": "INT64",
    "float16": "FP16", "bfloat16": "BF16", "float32": "FP32", "float64": "FP64", "string": "BYTES",
}  # fmt: skip
_LAMBDAS = frozenset({"Lambda", "__lambda__"})


def read_keras(path: Path, archive: Archive) -> Signature:
    """The signature of a `.keras` archive; raises `UnservableFile`."""
    model = _config(path, archive)
    _refuse_code(path, model)
    inputs, warnings = _inputs(model)
    return Signature(
        format=f"Keras ({'Sequential' if model.get('class_name') == 'Sequential' else 'Functional'})",
        backend="tensorflow",
        inputs=tuple(inputs),
        warnings=tuple(warnings),
    )


def _config(path: Path, archive: Archive) -> dict[str, Any]:
    data = archive.read(CONFIG, MAX_CONFIG)
    if data is None:
        raise _damaged(path, f"{CONFIG} is damaged or larger than {MAX_CONFIG} bytes")
    values = data.count(b",") + data.count(b"[") + data.count(b"{")
    if values > MAX_VALUES:
        raise _damaged(path, f"{CONFIG} has {values} values, at most {MAX_VALUES}")
    try:
        config = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise _damaged(path, f"{CONFIG} is no JSON: {error}") from error
    if not isinstance(config, dict) or not isinstance(config.get("config"), dict):
        raise _damaged(path, f"{CONFIG} describes no model")
    return config


def _damaged(path: Path, cause: str) -> UnservableFile:
    return UnservableFile(
        f"'{path.name}' is a damaged .keras archive: {cause}",
        "save it again with model.save('model.keras')",
        kind="truncated",
        code="TRUNCATED",
    )


# -- safety ----------------------------------------------------------------------------------------------------------


def _refuse_code(path: Path, model: dict[str, Any]) -> None:
    """A Lambda layer holds bytecode, and a class outside Keras is code that would have to be imported."""
    for part in _objects(model):
        kind, name = part.get("class_name"), _name(part)
        if kind in _LAMBDAS:
            raise UnservableFile(
                f"'{path.name}' holds a Lambda layer{name}, whose code would run when it is loaded",
                "replace it by a layer or a function of keras.ops, or export a SavedModel: model.export(folder)",
                kind="code",
                code="UNSAFE_CODE",
            )
        registered, module = part.get("registered_name"), part.get("module")
        custom = isinstance(registered, str) and ">" in registered
        foreign = isinstance(module, str) and module.split(".")[0] not in ("keras", "builtins")
        if custom or foreign:
            what = registered if custom else f"{module}.{kind}"
            raise UnservableFile(
                f"'{path.name}' holds {what}{name}, a class that is not one of Keras' own and not in the file",
                "export a SavedModel, which holds the computation itself: model.export(folder)",
                kind="code",
                code="UNSAFE_CODE",
            )


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    """Every object in the configuration that names a class; no depth can exhaust the stack."""
    waiting = [value]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            if "class_name" in part:
                yield part
            waiting.extend(part.values())
        elif isinstance(part, list):
            waiting.extend(part)


def _name(part: dict[str, Any]) -> str:
    config = part.get("config")
    name = config.get("name") if isinstance(config, dict) else None
    return f" '{name}'" if isinstance(name, str) else ""


# -- inputs ----------------------------------------------------------------------------------------------------------


def _inputs(model: dict[str, Any]) -> tuple[list[TensorSignature], list[str]]:
    """The input layers in the order in which the model takes them; else what it was built with."""
    config = model["config"]
    listed = config.get("layers")
    layers = [layer for layer in listed if isinstance(layer, dict)] if isinstance(listed, list) else []
    there = {}
    for layer in layers:
        settings = layer.get("config")
        if layer.get("class_name") == "InputLayer" and isinstance(settings, dict):
            there[str(layer.get("name") or settings.get("name"))] = settings
    order = [name for name in _layer_names(config.get("input_layers")) if name in there] or list(there)
    if order:
        inputs = [_tensor(name, there[name].get("dtype"), _shape_of(there[name])) for name in order]
        sparse = [name for name in order if there[name].get("sparse") is True or there[name].get("ragged") is True]
        return inputs, [f"input '{name}' is sparse or ragged in the file; it is served dense" for name in sparse]
    built = model.get("build_config")
    shape = _dims(built.get("input_shape")) if isinstance(built, dict) else None
    shape = shape if shape is not None else _dims(config.get("build_input_shape"))
    if shape is None:
        return [], ["the file does not tell the inputs of the model; begin it with an Input layer"]
    # A model that was built with a call has the shape of that call here: it is an example then.
    dims, example = (shape, None) if -1 in shape else (None, shape)
    return [TensorSignature(name="input_0", type="float32", datatype="FP32", dims=dims, shape=example)], []


def _layer_names(value: Any) -> Iterator[str]:
    """Names in `input_layers`: one `[name, 0, 0]`, or lists and dictionaries of them (those in order of their keys)."""
    waiting = [value]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            waiting.extend(part[key] for key in sorted(part, reverse=True))
        elif isinstance(part, list):
            if part and isinstance(part[0], str):
                yield part[0]
            else:
                waiting.extend(reversed(part))


def _shape_of(settings: dict[str, Any]) -> tuple[int, ...] | None:
    return _dims(settings.get("batch_shape", settings.get("batch_input_shape")))


def _dims(shape: Any) -> tuple[int, ...] | None:
    """A shape with null for what is open; None where it is no shape."""
    if not isinstance(shape, list) or len(shape) > MAX_RANK:
        return None
    dims = tuple(-1 if dim is None else dim for dim in shape)
    return dims if all(type(dim) is int and dim >= -1 for dim in dims) else None


def _tensor(name: str, dtype: Any, dims: tuple[int, ...] | None) -> TensorSignature:
    if isinstance(dtype, dict):
        policy = dtype.get("config")
        dtype = policy.get("name") if isinstance(policy, dict) else None
    type_ = dtype if isinstance(dtype, str) else "float32"
    return TensorSignature(name=name, type=type_, datatype=_DATATYPES.get(type_), dims=dims)
