"""Archives of torch.export (`.pt2`): what the program in `models/model.json` takes and gives; torch is not needed.

Source: the archive's layout and the schema of `torch/_export/serde/schema.py` (major version 8). A package of
AOTInductor has the same layout with a native library in `data/aotinductor/`; it may hold the program, too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from naiad.errors import UnservableFile
from naiad.signature import aotinductor, treespec
from naiad.signature.archive import Archive
from naiad.signature.jsonparts import Parts
from naiad.signature.model import Signature, TensorSignature
from naiad.signature.opcodes import NotReadable

MAX_JSON = 16 << 20
"""A program has some 1,000 bytes for each of its nodes."""
MAX_META, MAX_RANGES = 64 << 10, 1 << 20
"""Bytes of what is told of one tensor, and of all symbols."""
MAX_RANK = 64
PROGRAM = "models/model.json"

# torch's ScalarType as the schema numbers it → v2.
DATATYPES = {
    1: "UINT8",
    2: "INT8",
    3: "INT16",
    4: "INT32",
    5: "INT64",
    6: "FP16",
    7: "FP32",
    8: "FP64",
    12: "BOOL",
    13: "BF16",
    28: "UINT16",
    34: "UINT32",
    35: "UINT64",
}
_NO_DATATYPE = "export the model with inputs and outputs of a type that the protocol has"
_ARGUMENTS = frozenset({"user_input", "constant_input"})
_SYMBOL = re.compile(r"Symbol\('(\w{1,64})'")


def pt2_top(names: list[str]) -> str | None:
    """The top folder of an archive of torch.export; None where it is none."""
    found = re.compile(r"([^/]{1,255})/(models/[^/]+\.json|data/aotinductor/[^/]+/[^/]+\.so)")
    return next((match[1] for name in names if (match := found.fullmatch(name))), None)


def read_pt2(file: str, archive: Archive, top: str) -> Signature:
    """The signature of the archive whose members lie below `top`; raises `NotReadable`, `UnservableFile`."""
    names = archive.names
    compiled = aotinductor.models(names, top)
    programs = sorted(name for name in names if re.fullmatch(rf"{re.escape(top)}/models/[^/]+\.json", name))
    program = f"{top}/{PROGRAM}"
    if not compiled and program not in programs:
        held = ", ".join(f"'{name.rpartition('/')[2][:-5]}'" for name in programs[:5]) or "no program"
        what = f"'{file}' holds {held}; expected a program called 'model'"
        raise UnservableFile(what, "save it with torch.export.save", kind="unsupported", code="FORMAT_NOT_SERVED")
    exported = _read_program(file, archive, top) if program in programs else None
    if not compiled:
        assert exported is not None
        return exported
    return aotinductor.read(archive, top, compiled, exported)


def _unsupported(what: str, fix: str) -> UnservableFile:
    return UnservableFile(what, fix, kind="unsupported", code="IO_UNSUPPORTED")


def _read_program(file: str, archive: Archive, top: str) -> Signature:
    data = archive.read(f"{top}/{PROGRAM}", MAX_JSON)
    if data is None:
        raise NotReadable(f"{PROGRAM} is damaged or larger than {MAX_JSON} bytes")
    program = _Program(file, data)
    warnings = list(program.warnings)
    if any(name.startswith(f"{top}/data/sample_inputs/") for name in archive.names):
        warnings.append("this file contains one sample input: whoever gets the file can read it")
    return Signature(
        format="torch.export",
        backend="pytorch",
        inputs=program.inputs,
        outputs=program.outputs,
        max_batch=program.max_batch,
        warnings=tuple(warnings),
    )


def _at(document: Any, *keys: str) -> Any:
    """A member of nested objects; raises `NotReadable` where one is missing."""
    for key in keys:
        if not isinstance(document, dict) or key not in document:
            raise NotReadable(f"the program has no '{'.'.join(keys)}'")
        document = document[key]
    return document


class _Program:
    """What one program says. Its nodes and their tensors, nearly all of the file, are not parsed."""

    def __init__(self, file: str, data: bytes) -> None:
        self._file = file
        parts = Parts(data)
        signature = parts.find("input_specs", "[")
        given = [spec for spec in parts.elements(signature) if isinstance(spec, dict)]
        arguments = [spec for spec in given if not spec.keys().isdisjoint(_ARGUMENTS)]
        if len(arguments) > treespec.MAX_LEAVES:
            raise NotReadable(f"{len(arguments)} inputs, at most {treespec.MAX_LEAVES}")
        results = list(parts.elements(parts.find("output_specs", "[", begin=signature)))
        self._ranges: Mapping[str, Any] = parts.value(parts.find("range_constraints", "{"), limit=MAX_RANGES)
        first: Any = next(parts.elements(parts.find("module_call_graph", "[", begin=signature)), {})
        call = _expect(dict, first).get("signature")
        self._call: Mapping[str, Any] = _expect(dict, call if call is not None else {})
        names = set(_tensor_names(arguments, results))
        places = parts.keyed(names, "dtype", end=signature)
        self._values = {name: parts.value(at, limit=MAX_META) for name, at in places.items()}
        self._batch_symbols: list[str] = []
        self.warnings: list[str] = []
        self.inputs = tuple(self._inputs(arguments))
        self.outputs = tuple(self._outputs(results))
        self.max_batch = self._max_batch()

    def _inputs(self, arguments: list[dict[str, Any]]) -> list[TensorSignature]:
        names = [str(name) for name in _expect(list, self._call.get("forward_arg_names") or [])]
        leaves = treespec.inputs(str(self._call.get("in_spec") or ""), names)
        if leaves is not None and len(leaves) != len(arguments):
            raise NotReadable(f"{len(arguments)} inputs, but {len(leaves)} places in the call")
        found = []
        for at, spec in enumerate(arguments):
            name, path = leaves[at] if leaves is not None else ("", "")
            if "constant_input" in spec:
                self._constant(name, spec["constant_input"])
                continue
            argument = _expect(dict, _at(spec, "user_input", "arg"))
            if "as_tensor" not in argument:
                kind = next(iter(argument), "nothing").removeprefix("as_")
                raise _unsupported(
                    f"'{self._file}' takes a {kind} that varies as argument '{name}'; only tensors can be sent",
                    "export the model with a tensor in its place, or with a fixed value",
                )
            found.append(self._tensor(argument["as_tensor"], name, path))
            self._batch_symbols += self._first_symbol(argument["as_tensor"])
        return found

    def _constant(self, name: str, spec: Any) -> None:
        value = spec.get("value") if isinstance(spec, dict) else None
        if isinstance(value, dict) and value and "as_none" not in value:
            self.warnings.append(f"argument '{name}' is fixed at {str(next(iter(value.values())))[:50]}")

    def _outputs(self, specs: list[Any]) -> list[TensorSignature]:
        given = [_at(spec, "user_output", "arg") for spec in specs if isinstance(spec, dict) and "user_output" in spec]
        if any(isinstance(spec, dict) and "buffer_mutation" in spec for spec in specs):
            self.warnings.append("the program changes its buffers: each instance keeps a state of its own")
        names = treespec.outputs(str(self._call.get("out_spec") or ""))
        if names is None or len(names) != len(given):
            return []  # only the dry run tells
        return [
            self._tensor(_expect(dict, argument)["as_tensor"], name, "")
            for name, argument in zip(names, given, strict=True)
            if "as_tensor" in _expect(dict, argument)
        ]

    def _first_symbol(self, argument: Any) -> list[str]:
        sizes = self._values[argument["name"]]["sizes"]
        symbol = _symbol(sizes[0]) if sizes else ""
        return [symbol] if symbol else []

    def _tensor(self, argument: Any, name: str, path: str) -> TensorSignature:
        graph_name = str(_at(argument, "name"))
        value = _at(self._values, graph_name)
        sizes = _expect(list, _at(value, "sizes"))
        if len(sizes) > MAX_RANK:
            raise NotReadable(f"'{graph_name}' has {len(sizes)} dims")
        dims = tuple(_size(size) for size in sizes)
        example = tuple(_hint(size) for size in sizes)
        datatype = DATATYPES.get(_expect(int, _at(value, "dtype")))
        if datatype is None:
            number = value["dtype"]
            raise _unsupported(
                f"'{self._file}': tensor '{name or graph_name}' has torch's type number {number}, which the protocol "
                "has no datatype for",
                _NO_DATATYPE,
            )
        return TensorSignature(
            name=name or graph_name,
            type="Tensor",
            datatype=datatype,
            dims=dims,
            shape=None if None in example else tuple(size or 0 for size in example),
            path=path,
        )

    def _max_batch(self) -> int | None:
        """The end of the range of the symbols that are dimension 0 of the inputs; None where there is no end."""
        bounds = []
        for symbol in self._batch_symbols:
            limits = self._ranges.get(symbol)
            end = limits.get("max_val") if isinstance(limits, dict) else None
            if type(end) is int and 1 <= end < 1 << 31:
                bounds.append(end)
        return min(bounds, default=None)


def _tensor_names(arguments: list[dict[str, Any]], results: list[Any]) -> Iterator[str]:
    """What the graph calls the tensors of inputs and outputs."""
    told = [spec.get("user_input") for spec in arguments]
    told += [spec.get("user_output") for spec in results if isinstance(spec, dict)]
    for spec in told:
        argument = spec.get("arg") if isinstance(spec, dict) else None
        tensor = argument.get("as_tensor") if isinstance(argument, dict) else None
        if isinstance(tensor, dict) and isinstance(tensor.get("name"), str):
            yield tensor["name"]


def _expect(kind: type, value: Any) -> Any:
    if type(value) is not kind:
        raise NotReadable(f"expected a {kind.__name__} in the program, got a {type(value).__name__}")
    return value


def _size(size: Any) -> int:
    """A dim: a number, or -1 for an expression of symbols."""
    if isinstance(size, dict) and "as_int" in size:
        number = _expect(int, size["as_int"])
        if not 0 <= number < 1 << 40:
            raise NotReadable(f"a dim of {number}")
        return int(number)
    return -1


def _hint(size: Any) -> int | None:
    """The dim of the example that the program was exported with; None where it is not told."""
    if isinstance(size, dict) and "as_int" in size:
        return int(size["as_int"])
    expression = size.get("as_expr") if isinstance(size, dict) else None
    hint = expression.get("hint") if isinstance(expression, dict) else None
    number = hint.get("as_int") if isinstance(hint, dict) else None
    return number if type(number) is int and 0 < number < 1 << 31 else None


def _symbol(size: Any) -> str:
    """The name of the symbol that a dim is; "" for a number or a larger expression."""
    expression = size.get("as_expr") if isinstance(size, dict) else None
    text = str(expression.get("expr_str", "")) if isinstance(expression, dict) else ""
    found = _SYMBOL.match(text)
    return found[1] if found else ""
