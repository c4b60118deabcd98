"""Reads a TensorFlow SavedModel without TensorFlow: the signature of one meta graph, and whether its files are there.

Source: `saved_model.proto`, `meta_graph.proto` and `types.proto` of TensorFlow. Graphs and weights are seeked over.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from naiad.errors import UnservableFile
from naiad.signature.model import Signature, TensorSignature
from naiad.signature.wire import Damaged, Field, Message, signed

FILE = "saved_model.pb"
TEXT_FILE = "saved_model.pbtxt"
TAG, SIGNATURE = "serve", "serving_default"
"""What TensorFlow writes and servers take where nothing is asked for."""
TAG_KEY = "TF_GRAPH_TAG"
SIGNATURE_KEYS = ("TF_SIGNATURE_DEF", "signature")
"""Parameters of a model configuration that choose a meta graph and a signature."""
MAX_TENSORS = 2_000
MAX_RANK = 32

_DATATYPES = {
    1: "FP32", 2: "FP64", 3: "INT32", 4: "UINT8", 5: "INT16", 6: "INT8", 7: "BYTES", 9: "INT64", 10: "BOOL",
    14: "BF16", 17: "UINT16", 19: "FP16", 22: "UINT32", 23: "UINT64",
}  # fmt: skip
_OTHERS = {
    8: "complex64", 11: "qint8", 12: "quint8", 13: "qint32", 15: "qint16", 16: "quint16", 18: "complex128",
    20: "resource", 21: "variant",
}  # fmt: skip
_REFERENCE = 100
"""What is added to the number of a type where the tensor is a variable of TensorFlow 1 itself."""
_SHARD = re.compile(r"variables\.data-(\d{5})-of-(\d{5})", re.ASCII)
_RUNS_AT_LOAD = "__saved_model_"
"""Signatures of this prefix initialise the model; they are not for clients."""


@dataclass(slots=True)
class _MetaGraph:
    """One graph of a file, as far as it is read."""

    tags: set[str] = field(default_factory=set)
    signatures: dict[str, Message] = field(default_factory=dict)
    has_variables: bool = False


def read_savedmodel(folder: Path, parameters: Mapping[str, str]) -> Signature:
    """The signature of a SavedModel folder that `parameters` choose; raises `UnservableFile`."""
    path = folder / FILE
    if not path.is_file():
        raise _text_form(folder)
    try:
        with path.open("rb") as file:
            graph = _chosen_graph(folder, [_meta_graph(message) for message in _graphs(Message.of(file))], parameters)
            name = _chosen_signature(folder, graph, parameters)
            inputs, outputs = _tensors(graph.signatures[name])
    except Damaged as error:
        raise UnservableFile(
            f"'{folder.name}/{FILE}' is no SavedModel or breaks off: {error}",
            "copy the folder again and compare the sizes",
            kind="truncated",
            code="TRUNCATED",
        ) from error
    if graph.has_variables:
        _expect_variables(folder)
    told, warnings = _served(folder, outputs)
    others = sorted(set(graph.signatures) - {name})
    if others:
        warnings.append(f"signature '{name}' is served; the file has others: {', '.join(others)}")
    return Signature(
        format=f"TensorFlow SavedModel (signature '{name}')",
        backend="tensorflow",
        inputs=tuple(_servable_input(folder, tensor) for tensor in inputs),
        outputs=tuple(told),
        warnings=tuple(warnings),
    )


# -- the file --------------------------------------------------------------------------------------------------------


def _graphs(saved_model: Message) -> Iterator[Message]:
    for entry in saved_model.fields(2):
        yield saved_model.inner(entry)


def _meta_graph(message: Message) -> _MetaGraph:
    graph = _MetaGraph()
    for entry in message.fields(1, 3, 5):
        if entry.number == 1:
            info = message.inner(entry)
            graph.tags |= {info.text(tag) for tag in info.fields(4)}
        elif entry.number == 3:
            graph.has_variables = True
        elif entry.number == 5:
            name, definition = _map_entry(message.inner(entry))
            if definition is not None and not name.startswith(_RUNS_AT_LOAD):
                graph.signatures[name] = definition
    return graph


def _map_entry(message: Message) -> tuple[str, Message | None]:
    """Key and value of one entry of a map from text to messages."""
    key, value = "", None
    for entry in message.fields(1, 2):
        if entry.number == 1:
            key = message.text(entry)
        elif entry.number == 2:
            value = message.inner(entry)
    return key, value


def _tensors(definition: Message) -> tuple[list[TensorSignature], list[TensorSignature]]:
    """Inputs and outputs, each by name: a map has no order that could be kept."""
    found: dict[int, dict[str, TensorSignature]] = {1: {}, 2: {}}
    for entry in definition.fields(1, 2):
        name, info = _map_entry(definition.inner(entry))
        if info is not None:
            found[entry.number][name] = _tensor(name, info)
        if len(found[entry.number]) > MAX_TENSORS:
            raise Damaged(f"more than {MAX_TENSORS} inputs or outputs")
    inputs, outputs = ([tensors[name] for name in sorted(tensors)] for tensors in found.values())
    return inputs, outputs


def _tensor(name: str, info: Message) -> TensorSignature:
    number, dense, dims = 0, False, None
    for entry in info.fields(1, 2, 3):
        if entry.number == 1:
            dense = True
        elif entry.number == 2:
            number = entry.value
        elif entry.number == 3:
            dims = _dims(info.inner(entry))
    number -= _REFERENCE if number > _REFERENCE else 0
    if not dense:
        return TensorSignature(name=name, type="sparse or composite")
    datatype = _DATATYPES.get(number)
    type_ = datatype or _OTHERS.get(number, f"type {number}")
    return TensorSignature(name=name, type=type_, datatype=datatype, dims=dims)


def _dims(shape: Message) -> tuple[int, ...] | None:
    """The dims of a TensorShapeProto; None where not even the rank is known."""
    dims: list[int] = []
    unknown = False
    for entry in shape.fields(2, 3):
        if entry.number == 2:
            if len(dims) >= MAX_RANK:
                raise Damaged(f"a shape of more than {MAX_RANK} dims")
            dims.append(_size(shape, entry))
        elif entry.number == 3:
            unknown = bool(entry.value)
    return None if unknown else tuple(dims)


def _size(shape: Message, entry: Field) -> int:
    size = 0
    for part in shape.inner(entry).fields(1):
        size = max(-1, signed(part.value))
    return size


# -- what is asked for -----------------------------------------------------------------------------------------------


def _chosen_graph(folder: Path, graphs: list[_MetaGraph], parameters: Mapping[str, str]) -> _MetaGraph:
    asked = parameters.get(TAG_KEY) or TAG
    tags = {tag.strip() for tag in asked.split(",")}
    for graph in graphs:
        if graph.tags == tags:
            return graph
    if not graphs:
        raise Damaged("it holds no graph")
    there = "; ".join(",".join(sorted(graph.tags)) or "none" for graph in graphs)
    raise UnservableFile(
        f"'{folder.name}' has no graph with the tags '{asked}', but with: {there}",
        f"write parameters '{TAG_KEY}' with the tags of one of them into config.pbtxt",
        kind="signature",
        code="CONFIG_INVALID",
    )


def _chosen_signature(folder: Path, graph: _MetaGraph, parameters: Mapping[str, str]) -> str:
    """`serving_default`, else the only one, unless one is asked for."""
    names = sorted(graph.signatures)
    asked = next((parameters[key] for key in SIGNATURE_KEYS if parameters.get(key)), "")
    if asked in names:
        return asked
    if not asked and SIGNATURE in names:
        return SIGNATURE
    if not asked and len(names) == 1:
        return names[0]
    if not names:
        raise UnservableFile(
            f"'{folder.name}' has no signature, so nothing says what it takes",
            "save it with signatures: tf.saved_model.save(model, path, signatures=model.__call__)",
            kind="signature",
            code="IO_MISMATCH",
        )
    what = f"has no signature '{asked}', but" if asked else "has several signatures and no 'serving_default':"
    raise UnservableFile(
        f"'{folder.name}' {what} {', '.join(names)}",
        f'choose in config.pbtxt: parameters {{ key: "{SIGNATURE_KEYS[0]}" value {{ string_value: "{names[0]}" }} }}',
        kind="signature",
        code="CONFIG_INVALID",
    )


# -- what can be served ----------------------------------------------------------------------------------------------


def _servable_input(folder: Path, tensor: TensorSignature) -> TensorSignature:
    if tensor.datatype is None:
        raise UnservableFile(
            f"'{folder.name}' takes input '{tensor.name}' of {tensor.type}, which no client can send",
            "save it with a signature of dense tensors of plain datatypes",
            kind="signature",
            code="IO_UNSUPPORTED",
        )
    return tensor


def _served(folder: Path, outputs: list[TensorSignature]) -> tuple[list[TensorSignature], list[str]]:
    """The outputs that clients can get, and a warning for each other one."""
    told = [tensor for tensor in outputs if tensor.datatype is not None]
    left = [tensor for tensor in outputs if tensor.datatype is None]
    if not told:
        names = ", ".join(f"'{tensor.name}' of {tensor.type}" for tensor in left) or "none"
        raise UnservableFile(
            f"'{folder.name}' gives no output that a client can get: {names}",
            "save it with a signature of dense tensors of plain datatypes",
            kind="signature",
            code="IO_UNSUPPORTED",
        )
    return told, [f"output '{tensor.name}' is not served: no client can get {tensor.type}" for tensor in left]


def _expect_variables(folder: Path) -> None:
    """The checkpoint beside the graph: its index, and as many data files as their names say."""
    there = {entry.name for entry in (folder / "variables").iterdir()} if (folder / "variables").is_dir() else set()
    shards = [found for found in map(_SHARD.fullmatch, there) if found]
    missing = []
    if "variables.index" not in there:
        missing.append("variables/variables.index")
    if not shards or any(len(shards) < int(shard[2]) for shard in shards):
        missing.append(f"variables/variables.data ({len(shards)} of {shards[0][2] if shards else 'at least 1'} files)")
    if missing:
        raise UnservableFile(
            f"'{folder.name}' lacks {' and '.join(missing)}, where its weights are",
            f"copy the whole folder, not only {FILE}",
            kind="truncated",
            code="TRUNCATED",
        )


def _text_form(folder: Path) -> UnservableFile:
    if (folder / TEXT_FILE).is_file():
        return UnservableFile(
            f"'{folder.name}' holds its graph as text ({TEXT_FILE})",
            "load it with TensorFlow and save it again: that writes the binary form",
            kind="unknown",
            code="UNKNOWN_FORMAT",
        )
    there = sorted(entry.name for entry in folder.iterdir())
    return UnservableFile(
        f"'{folder.name}' is no SavedModel: it holds {', '.join(there[:5]) or 'nothing'}, but no {FILE}",
        "copy the whole folder that tf.saved_model.save or model.export wrote",
        kind="unknown",
        code="UNKNOWN_FORMAT",
    )
