"""Formats that are recognised by their content, whatever a file is called: a table of names and tests.

Sources: the format's own specification where there is one, else the first bytes that its library writes.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

HEAD = 4096
"""Bytes of a file that are looked at."""

_CONFIG_LIMIT = 4 << 20
_CONFIG_VALUES = 100_000
"""Of a small JSON file: a model of 20,000 labels has 40,000."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """A file or folder, as far as it is looked at."""

    head: bytes = b""
    """The first bytes of a file."""
    names: frozenset[str] = field(default=frozenset())
    """What lies in a folder, or the members of an archive."""
    folder: Path | None = None
    """The folder itself, to read a small file of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """One format that Naiad knows by its content."""

    name: str
    """As one says it: `ONNX`, `TensorFlow SavedModel` …"""
    fits: Callable[[Look], bool]
    advice: str = ""
    """What to do with a file of it, where that is not to wait for a later version."""
    inner: str = ""
    """The file that says what a folder's model takes."""
    code: str = "FORMAT_NOT_SERVED"
    """The diagnosis code of its refusal."""


def _starts(*words: bytes) -> Callable[[Look], bool]:
    return lambda look: look.head.startswith(words)


def _holds(*names: str) -> Callable[[Look], bool]:
    return lambda look: all(name in look.names for name in names)


def _varint(data: bytes, at: int) -> tuple[int, int] | None:
    """The number at `at` in the wire format of protocol buffers, and where it ends."""
    number = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            return None
        number |= (data[at] & 0x7F) << shift
        at += 1
        if data[at - 1] < 0x80:
            return number, at
    return None


def _is_onnx(look: Look) -> bool:
    """A ModelProto: `ir_version` (1) first, then texts and numbers up to the graph (7) or the opset (8)."""
    at, seen = 0, 0
    while (key := _varint(look.head, at)) is not None:
        tag, at = key
        number, wire = tag >> 3, tag & 7
        value = _varint(look.head, at) if wire in (0, 2) else None
        if value is None or not 1 <= number <= 25:
            return False
        if seen == 0 and (number, wire) != (1, 0):
            return False
        if number == 1 and not 1 <= value[0] <= 100:
            return False
        if number in (7, 8):
            return wire == 2
        seen += 1
        at = value[1] + (value[0] if wire == 2 else 0)
        if number == 6 and wire == 2 and at > len(look.head):
            return True  # a long text about the model, then the graph
    return False


def _is_graph(look: Look) -> bool:
    """A GraphDef: nodes (1) first, each with its name (1) and then its operation (2)."""
    at, name = 0, b""
    for tag in (b"\x0a", b"\x0a"):
        length = _varint(look.head, at + 1) if look.head[at : at + 1] == tag else None
        if length is None:
            return False
        at, name = length[1], look.head[length[1] : sum(length)]
    at += len(name)
    operation = _varint(look.head, at + 1) if look.head[at : at + 1] == b"\x12" else None
    if operation is None:
        return False
    word = look.head[operation[1] : sum(operation)]
    return re.fullmatch(rb"[A-Za-z0-9_./>-]+", name) is not None and re.fullmatch(rb"[A-Z_]\w+", word) is not None


def _is_safetensors(look: Look) -> bool:
    """Eight bytes of length, then a JSON object of that length."""
    if len(look.head) < 9:
        return False
    (length,) = struct.unpack_from("<Q", look.head)
    return 2 <= length <= 100 << 20 and look.head[8:9] == b"{"


def _is_openvino(look: Look) -> bool:
    return re.match(rb"\s*(<\?xml[^>]*\?>\s*)?<net\s[^>]*version=", look.head) is not None


def _is_xgboost(look: Look) -> bool:
    """JSON or UBJSON with a `learner`, or the older binary form."""
    head = look.head[:256]
    return (head.lstrip()[:1] == b"{" and b'"learner"' in head) or (head[:1] == b"{" and b"learner{" in head)


def _small_json(look: Look, name: str) -> dict[str, object]:
    """A JSON object that lies in a folder; empty where there is none."""
    if look.folder is None or name not in look.names:
        return {}
    try:
        with (look.folder / name).open("rb") as file:
            data = file.read(_CONFIG_LIMIT)
        if data.count(b",") + data.count(b"[") + data.count(b"{") > _CONFIG_VALUES:
            return {}
        document = json.loads(data)
    except (OSError, ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _is_hugging_face(look: Look) -> bool:
    """A folder whose config.json names the architecture."""
    return isinstance(_small_json(look, "config.json").get("architectures"), list)


KERAS, SAVEDMODEL, SKOPS = "Keras", "TensorFlow SavedModel", "skops"
"""Formats that a reader of their own knows."""


def _is_lora(look: Look) -> bool:
    """A folder whose adapter_config.json names the kind of adapter."""
    return isinstance(_small_json(look, "adapter_config.json").get("peft_type"), str)


def _is_treelite(look: Look) -> bool:
    """A checkpoint: three numbers of a version (3 to 5, as far as released), two number types, the number of trees."""
    if len(look.head) < 22:
        return False
    major, minor, patch, threshold, leaf, trees = struct.unpack_from("<iiiBBQ", look.head)
    small = 0 <= minor < 100 and 0 <= patch < 100 and 0 < trees < 1 << 32
    return 3 <= major <= 5 and small and threshold in (2, 3) and leaf in (1, 2, 3)


_VLLM = "language models are served by 'engine: vllm', which comes with a later version of Naiad"
_WEIGHTS = "weights without a model are not served; export the model itself"

FILES: tuple[Format, ...] = (
    Format(name="TFLite", fits=lambda look: look.head[4:8] == b"TFL3"),
    Format(
        name="TensorRT", fits=_starts(b"ftrt", b"ptrt"), advice="TensorRT plans belong to one GPU; serve the ONNX file"
    ),
    Format(name="CatBoost", fits=_starts(b"CBM1")),
    Format(name="LightGBM", fits=_starts(b"tree\nversion=")),
    Format(name="XGBoost", fits=_is_xgboost),
    Format(name="OpenVINO", fits=_is_openvino),
    Format(name="Keras HDF5", fits=_starts(b"\x89HDF\r\n\x1a\n"), advice="save it as .keras or export a SavedModel"),
    Format(name="GGUF", fits=_starts(b"GGUF"), advice=f"serve the model's Hugging Face folder instead: {_VLLM}"),
    Format(name="safetensors", fits=_is_safetensors, advice=_WEIGHTS),
    Format(name="ONNX", fits=_is_onnx),
    Format(name="TensorFlow GraphDef", fits=_is_graph, advice="a frozen graph tells no inputs; save a SavedModel"),
    Format(name="treelite", fits=_is_treelite),
)
"""Single files; those with telling first bytes come first."""

ARCHIVES: tuple[Format, ...] = (
    Format(
        name="torch.export of an older torch",
        fits=_holds("serialized_exported_program.json"),
        advice="torch 2.8 changed the file's layout: export the model again with it or a later one",
    ),
    Format(name=KERAS, fits=_holds("config.json", "metadata.json", "model.weights.h5")),
    Format(name=SKOPS, fits=_holds("schema.json")),
)
"""Zip archives, by their members."""

FOLDERS: tuple[Format, ...] = (
    Format(name=SAVEDMODEL, fits=lambda look: not look.names.isdisjoint({"saved_model.pb", "saved_model.pbtxt"})),
    Format(name="MLflow", fits=_holds("MLmodel")),
    Format(name="ONNX", fits=_holds("model.onnx"), inner="model.onnx"),
    Format(
        name="LoRA adapter",
        fits=_is_lora,
        advice=f"merge it into its base model (merge_and_unload), or serve both together: {_VLLM}",
    ),
    Format(name="Hugging Face", fits=_is_hugging_face, advice=_VLLM),
    Format(
        name="OpenVINO",
        fits=lambda look: any(f"{name[:-4]}.bin" in look.names for name in look.names if name.endswith(".xml")),
    ),
)


def of_file(head: bytes) -> Format | None:
    """The format of a file that begins with `head`; None if no row of the table knows it."""
    return _first(FILES, Look(head=head))


def of_archive(names: frozenset[str]) -> Format | None:
    """The format of a zip archive with these members."""
    return _first(ARCHIVES, Look(names=names))


def of_folder(folder: Path) -> Format | None:
    """The format of a folder. Raises `OSError` where it cannot be listed."""
    return _first(FOLDERS, Look(names=frozenset(entry.name for entry in folder.iterdir()), folder=folder))


def _first(table: tuple[Format, ...], look: Look) -> Format | None:
    return next((row for row in table if row.fits(look)), None)
