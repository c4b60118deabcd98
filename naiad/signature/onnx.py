"""ONNX files: inputs and outputs as the graph declares them; weights are seeked over and nothing is executed.

Source: `onnx.proto` of the ONNX specification (field numbers below are its own).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from naiad.errors import UnservableFile
from naiad.signature.model import Signature, TensorSignature
from naiad.signature.wire import Damaged, Field, Message, TooMuch, signed

MAX_TENSORS = 10_000
MAX_RANK = 64

# TensorProto.DataType: ONNX's own name, and the v2 name where there is one.
TYPES: dict[int, tuple[str, str | None]] = {
    1: ("float", "FP32"),
    2: ("uint8", "UINT8"),
    3: ("int8", "INT8"),
    4: ("uint16", "UINT16"),
    5: ("int16", "INT16"),
    6: ("int32", "INT32"),
    7: ("int64", "INT64"),
    8: ("string", "BYTES"),
    9: ("bool", "BOOL"),
    10: ("float16", "FP16"),
    11: ("double", "FP64"),
    12: ("uint32", "UINT32"),
    13: ("uint64", "UINT64"),
    14: ("complex64", None),
    15: ("complex128", None),
    16: ("bfloat16", "BF16"),
    17: ("float8e4m3fn", None),
    18: ("float8e4m3fnuz", None),
    19: ("float8e5m2", None),
    20: ("float8e5m2fnuz", None),
    21: ("uint4", None),
    22: ("int4", None),
    23: ("float4e2m1", None),
    24: ("float8e8m0", None),
    25: ("uint2", None),
    26: ("int2", None),
    27: ("float6e2m3", None),
    28: ("float6e3m2", None),
}
_KINDS = {4: "a sequence", 5: "a map", 7: "an opaque value", 8: "a sparse tensor", 9: "an optional value"}
_LOCATION = b"location"
_USUAL = b"\x0a\x08" + _LOCATION + b"\x12"
_BEFORE = len(_USUAL) + 1
"""How an entry with this key begins, and what comes before its value where that has up to 127 bytes."""
_STANDARD = ("", "ai.onnx", "ai.onnx.ml")
_TENSORS = "export it again with tensors as inputs and outputs"
_ZIPMAP = f"{_TENSORS}; for scikit-learn: to_onnx(model, X, options={{'zipmap': False}})"


@dataclass(slots=True)
class _Value:
    """A ValueInfoProto."""

    name: str = ""
    kind: int = 0
    """Field number of TypeProto that is set; 1 is a tensor."""
    type: int = 0
    dims: tuple[int, ...] | None = None


@dataclass(slots=True)
class _Model:
    """What is kept of a ModelProto."""

    ir_version: int = 0
    opsets: dict[str, int] = field(default_factory=dict)
    graphs: int = 0
    inputs: list[_Value] = field(default_factory=list)
    outputs: list[_Value] = field(default_factory=list)
    initializers: set[str] = field(default_factory=set)
    locations: set[str] = field(default_factory=set)
    """Files that hold weights."""


def read_onnx(path: Path) -> Signature:
    """The signature of an ONNX file; raises `UnservableFile`."""
    try:
        with path.open("rb") as file:
            model = _model(Message.of(file))
    except Damaged as error:
        fix = "copy it again and compare the sizes"
        if isinstance(error, TooMuch):
            fix += "; if it is whole, save it with a smaller graph (onnxsim, or onnxruntime's optimized_model_filepath)"
        raise UnservableFile(
            f"'{path.name}' is a damaged ONNX file: {error}",
            fix,
            kind="truncated",
            code="TRUNCATED",
        ) from error
    for location in sorted(model.locations):
        _beside(path, location)
    inputs = [value for value in model.inputs if value.name not in model.initializers]
    if not inputs or not model.outputs:
        missing = "output" if inputs else "input"
        raise UnservableFile(
            f"'{path.name}' has a graph without an {missing}, so there is nothing to ask it",
            "export the whole model with its inputs and outputs",
            kind="unknown",
            code="IO_UNSUPPORTED",
        )
    foreign = [f"'{domain}'" for domain in sorted(model.opsets) if domain not in _STANDARD]
    warnings = (f"it uses operators of {', '.join(foreign)}, which not every onnxruntime has",) if foreign else ()
    return Signature(
        format=_format(model),
        backend="onnxruntime",
        inputs=tuple(_tensor(path, "input", value) for value in inputs),
        outputs=tuple(_tensor(path, "output", value) for value in model.outputs),
        warnings=warnings,
    )


def weights_beside(path: Path) -> tuple[str, ...]:
    """The files that hold weights of an ONNX file, below its folder; none where they are not there or it is damaged."""
    try:
        with path.open("rb") as file:
            locations = _model(Message.of(file)).locations
        for location in locations:
            _beside(path, location)
    except (Damaged, UnservableFile, OSError):
        return ()
    return tuple(sorted(locations))


def _format(model: _Model) -> str:
    opset = max(model.opsets.get("", 0), model.opsets.get("ai.onnx", 0))
    told = [f"IR {model.ir_version}"] if model.ir_version else []
    told += [f"opset {opset}"] if opset else []
    return f"ONNX ({', '.join(told)})" if told else "ONNX"


def _tensor(path: Path, side: str, value: _Value) -> TensorSignature:
    """One input or output; raises `UnservableFile` for what a request or response cannot carry."""
    if value.kind not in (0, 1):
        kind = _KINDS.get(value.kind, "no tensor")
        fix = _ZIPMAP if value.kind in (4, 5) else _TENSORS
        raise _unsupported(path, f"{side} '{value.name}' is {kind}, and the protocol carries tensors only", fix)
    name, datatype = TYPES.get(value.type, (f"number {value.type}", None))
    if value.type and datatype is None:
        what = f"{side} '{value.name}' is of type {name}, for which the protocol has no datatype"
        raise _unsupported(path, what, "put a Cast to float16 or float beside it and export the model again")
    return TensorSignature(
        name=value.name,
        type=f"tensor({name})" if value.type else "",
        datatype=datatype,
        dims=value.dims,
    )


def _unsupported(path: Path, what: str, fix: str) -> UnservableFile:
    return UnservableFile(f"'{path.name}': {what}", fix, kind="unsupported", code="IO_UNSUPPORTED")


def _beside(path: Path, location: str) -> None:
    """A file of weights lies in the model's folder, whatever the model says; raises `UnservableFile` (C2)."""
    relative = PurePosixPath(location)
    folder = path.resolve().parent
    outside = relative.is_absolute() or ".." in relative.parts or "\\" in location or "\0" in location
    found = folder if outside else (folder / relative).resolve()
    if outside or not found.is_relative_to(folder):
        raise UnservableFile(
            f"'{path.name}' keeps weights in '{location}', which is outside its folder",
            "save the model again with its external data beside it",
            kind="external-data",
            code="PATH_REFUSED",
        )
    if not found.is_file():
        raise UnservableFile(
            f"'{path.name}' keeps weights in '{location}', which is not there",
            f"put '{location}' beside '{path.name}'",
            kind="external-data",
            code="PATH_NOT_FOUND",
        )


# -- the messages -----------------------------------------------------------------------------------------------------


def _model(message: Message) -> _Model:
    model = _Model()
    for told in message.fields(1, 7, 8):
        if told.number == 1:
            model.ir_version = signed(told.value)
        elif told.number == 7:
            model.graphs += 1
            _graph(message.inner(told), model)
        elif told.number == 8:
            domain, version = _opset(message.inner(told))
            model.opsets[domain] = max(version, model.opsets.get(domain, 0))
    if not model.graphs:
        raise Damaged("it holds no graph")
    if not model.opsets and model.ir_version >= 3:
        raise Damaged("it names no opset")
    return model


def _opset(message: Message) -> tuple[str, int]:
    domain, version = "", 0
    for told in message.fields(1, 2):
        if told.number == 1:
            domain = message.text(told)
        elif told.number == 2:
            version = signed(told.value)
    return domain, version


def _graph(message: Message, model: _Model) -> None:
    for told in message.fields(5, 11, 12, 15):
        if told.number == 5:
            model.initializers.add(_initializer(message.inner(told), model))
        elif told.number in (11, 12):
            values = model.inputs if told.number == 11 else model.outputs
            if len(values) >= MAX_TENSORS:
                raise Damaged(f"more than {MAX_TENSORS} inputs or outputs")
            values.append(_value(message.inner(told)))
        elif told.number == 15:
            model.initializers.add(_sparse(message.inner(told), model))


def _initializer(message: Message, model: _Model) -> str:
    """A TensorProto: its name; where its bytes lie in another file, that is noted.

    Readers take the first location or the last one, so each counts.
    """
    name = ""
    for told in message.fields(8, 13):
        if told.number == 8:
            name = message.text(told)
        elif location := _location(message, told):
            model.locations.add(location)
    return name


def _location(message: Message, entry: Field) -> str:
    """The value of a StringStringEntryProto whose key is `location`; "" for others.

    A large model has thousands, so that one in the usual form is taken as it is, and one without the word passed over.
    """
    whole = message.short(entry)
    if whole is not None and _LOCATION not in whole:
        return ""
    if whole is not None and whole.startswith(_USUAL) and whole[_BEFORE - 1 :][:1] == bytes([len(whole[_BEFORE:])]):
        return message.decoded(whole[_BEFORE:], entry.at)
    key, value = "", None
    inner = message.inner(entry)
    for told in inner.fields(1, 2):
        if told.number == 1:
            key = inner.text(told)
        elif told.number == 2:
            value = told
    return inner.text(value) if key.encode() == _LOCATION and value is not None else ""


def _sparse(message: Message, model: _Model) -> str:
    """A SparseTensorProto: its values, whose name it has, and their indices."""
    names = {told.number: _initializer(message.inner(told), model) for told in message.fields(1, 2)}
    return names.get(1, "")


def _value(message: Message) -> _Value:
    value = _Value()
    for told in message.fields(1, 2):
        if told.number == 1:
            value.name = message.text(told)
        elif told.number == 2:
            _type(message.inner(told), value)
    return value


def _type(message: Message, value: _Value) -> None:
    for told in message.fields(1, *_KINDS):
        if told.number == 1:
            value.kind = 1
            inner = message.inner(told)
            for part in inner.fields(1, 2):
                if part.number == 1:
                    value.type = signed(part.value)
                elif part.number == 2:
                    value.dims = _shape(inner.inner(part))
        elif told.number in _KINDS:
            value.kind = told.number


def _shape(message: Message) -> tuple[int, ...]:
    dims: list[int] = []
    for told in message.fields(1):
        if len(dims) >= MAX_RANK:
            raise Damaged(f"a shape of more than {MAX_RANK} dims")
        dims.append(_dim(message.inner(told)))
    return tuple(dims)


def _dim(message: Message) -> int:
    """The size, or -1 where it has a symbol, nothing, or a negative number."""
    size = -1
    for told in message.fields(1, 2):
        if told.number == 1:
            size = max(-1, signed(told.value))
        elif told.number == 2:
            size = -1
    return size
