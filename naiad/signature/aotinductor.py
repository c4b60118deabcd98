"""Packages of AOTInductor: a native library and what torch wrote beside it; the library is never opened.

Names and shapes are not in the library. They come, in this order, from the exported program in the same file, from
metadata that the packer gave (`aot_inductor.metadata` with `naiad.inputs`, `naiad.outputs`, `naiad.max_batch`), or from
the checks of the inputs in the C++ source that torch packs with the library. The source also bounds the batch, whatever
the others say: torch may compile for less than the exported range.
"""

from __future__ import annotations

import dataclasses
import json
import re
from itertools import islice
from typing import Any

from naiad.signature import treespec
from naiad.signature.archive import Archive
from naiad.signature.model import Signature, TensorSignature
from naiad.signature.opcodes import NotReadable

MAX_METADATA = 256 << 10
MAX_SOURCE = 3 << 20
MAX_INPUTS = 1024
MAX_CHECKS = 20_000
"""Checks in the source that are looked at; those of the inputs come first."""
MAX_SPEC = 100_000
MAX_NAME = 200
UNTOLD = (
    "the package does not tell its inputs: give aoti_compile_and_package the option 'aot_inductor.metadata' with "
    "'naiad.inputs', or write them into config.pbtxt"
)
_TYPES = {
    "float32": "FP32", "float64": "FP64", "float16": "FP16", "bfloat16": "BF16", "int8": "INT8", "int16": "INT16",
    "int32": "INT32", "int64": "INT64", "uint8": "UINT8", "uint16": "UINT16", "uint32": "UINT32", "uint64": "UINT64",
    "bool": "BOOL",
}  # fmt: skip
_DATATYPES = frozenset(_TYPES.values())


def models(names: list[str], top: str) -> list[str]:
    """The compiled models of an archive."""
    found = re.compile(rf"{re.escape(top)}/data/aotinductor/([^/]+)/[^/]+\.so")
    return sorted({match[1] for name in names if (match := found.fullmatch(name))})


def read(archive: Archive, top: str, compiled: list[str], exported: Signature | None) -> Signature:
    """The signature of the package's model (`model`, or the only one)."""
    model = "model" if "model" in compiled else compiled[0]
    folder = f"{top}/data/aotinductor/{model}/"
    members = [name for name in archive.names if name.startswith(folder)]
    metadata = _metadata(archive, members)
    about = _about(metadata)
    format_ = f"AOTInductor ({about})" if about else "AOTInductor"
    checked, most = _from_source(archive, members)
    if exported is not None:
        return dataclasses.replace(exported, format=format_, max_batch=_least(exported.max_batch, most))
    warnings: list[str] = []
    inputs = _told(metadata, "naiad.inputs", warnings) or checked
    if not inputs:
        warnings.append(UNTOLD)
    return Signature(
        format=format_,
        backend="pytorch",
        inputs=inputs,
        outputs=_told(metadata, "naiad.outputs", warnings),
        max_batch=_least(_number(metadata.get("naiad.max_batch", "")), most),
        warnings=tuple(warnings),
    )


def _least(*bounds: int | None) -> int | None:
    return min((bound for bound in bounds if bound is not None), default=None)


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 and int(text) else None


def _metadata(archive: Archive, members: list[str]) -> dict[str, str]:
    """What torch and the packer wrote of the model: a flat object of texts."""
    for name in members:
        if name.endswith("wrapper_metadata.json"):
            data = archive.read(name, MAX_METADATA)
            try:
                document = json.loads(data or b"{}")
            except (ValueError, RecursionError):
                continue
            if isinstance(document, dict):
                return {str(key): value for key, value in document.items() if isinstance(value, str)}
    return {}


def _about(metadata: dict[str, str]) -> str:
    parts = [metadata.get(f"AOTI_{key}", "") for key in ("DEVICE_KEY", "MACHINE", "CPU_ISA")]
    return ", ".join(part[:80] for part in parts if part)


def _told(metadata: dict[str, str], key: str, warnings: list[str]) -> tuple[TensorSignature, ...]:
    """Tensors that the packer described as `[{"name": …, "datatype": …, "dims": […]}]`."""
    if key not in metadata:
        return ()
    try:
        entries = json.loads(metadata[key])
        return tuple(_entry(entry) for entry in entries[:MAX_INPUTS])
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        warnings.append(f"metadata '{key}' is not readable: {error}")
        return ()


def _entry(entry: Any) -> TensorSignature:
    name, datatype, dims = str(entry["name"])[:256], str(entry["datatype"]), entry["dims"]
    if datatype not in _DATATYPES:
        raise ValueError(f"'{datatype[:40]}' is no datatype")
    if not isinstance(dims, list) or not all(type(dim) is int and -1 <= dim < 1 << 40 for dim in dims):
        raise ValueError("dims are no list of numbers")
    return TensorSignature(name=name, type="Tensor", datatype=datatype, dims=tuple(dims))


def _from_source(archive: Archive, members: list[str]) -> tuple[tuple[TensorSignature, ...], int | None]:
    """Inputs as the generated code checks them; nothing where it is not packed or written in another way."""
    name = next((name for name in members if name.endswith(".wrapper.cpp")), "")
    data = archive.read(name, MAX_SOURCE) if name else None
    if data is None:
        return (), None
    text = data.decode("utf-8", "replace")
    named = re.finditer(rf"inputs_info_\[\d{{1,6}}\]\.name = \"(\w{{1,{MAX_NAME}}})\";", text)
    variables = [match[1] for match in islice(named, MAX_INPUTS + 1)]
    leaves = _leaves(text)
    if not variables or leaves is None or len(leaves) != len(variables) or len(variables) > MAX_INPUTS:
        return (), None
    types, sizes, ends = _checks(text, frozenset(variables))
    found, bounds = [], []
    for variable, (name, path) in zip(variables, leaves, strict=True):
        if types.get(variable) not in _TYPES or variable not in sizes:
            return (), None
        dims = sizes[variable]
        found.append(TensorSignature(name=name, type="Tensor", datatype=_TYPES[types[variable]], dims=dims, path=path))
        bounds.append(ends.get(variable) if dims[:1] == (-1,) else None)
    return tuple(found), _least(*bounds)


def _leaves(text: str) -> list[tuple[str, str]] | None:
    """Name and path of each input, in their order."""
    opening, closing = 'in_spec_ = R"(', ')";'
    begin = text.find(opening) + len(opening)
    end = text.find(closing, begin, begin + MAX_SPEC)
    if begin < len(opening) or end < 0:
        return None
    try:
        return treespec.inputs(text[begin:end], [])
    except NotReadable:
        return None


def _checks(text: str, variables: frozenset[str]) -> tuple[dict[str, str], dict[str, tuple[int, ...]], dict[str, int]]:
    """Of each variable the datatype and the dims that the code checks, and the end of dimension 0's range.

    Each pattern begins with a plain text and is looked for once, for all variables together.
    """
    types: dict[str, str] = {}
    for match in islice(re.finditer(r"_expected_dtype = aoti_torch_dtype_(\w{1,40})\(\)", text), MAX_CHECKS):
        name = text[max(0, match.start() - MAX_NAME) : match.start()].rpartition(" ")[2]
        types.setdefault(name, match[1])
    sizes: dict[str, tuple[int, ...]] = {}
    whole = re.finditer(rf"assert_size_stride\((\w{{1,{MAX_NAME}}}), \{{([^{{}}]{{0,2000}})\}}", text)
    for match in islice(whole, MAX_CHECKS):
        if match[1] in variables and match[1] not in sizes:
            told = [size.strip() for size in match[2].split(",") if size.strip()]
            sizes[match[1]] = tuple(int(size[:-1]) if re.fullmatch(r"\d{1,12}L", size) else -1 for size in told)
    ends: dict[str, int] = {}
    for match in islice(re.finditer(rf"if \((\w{{1,{MAX_NAME}}})_size\[0\] > (\d{{1,10}})\)", text), MAX_CHECKS):
        ends.setdefault(match[1], int(match[2]))
    return types, sizes, ends
