"""Reads pickled metadata of torch as opcodes into plain values; nothing is imported, nothing is called (D5)."""

from __future__ import annotations

import io
import pickletools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

MAX_BYTES = 1 << 20
MAX_OPCODES = 40_000
"""The weights of a model of 1,100 tensors take so many."""
MAX_NAME = 4096

STORAGES = {
    "BoolStorage": "BOOL",
    "ByteStorage": "UINT8",
    "CharStorage": "INT8",
    "ShortStorage": "INT16",
    "IntStorage": "INT32",
    "LongStorage": "INT64",
    "HalfStorage": "FP16",
    "FloatStorage": "FP32",
    "DoubleStorage": "FP64",
    "BFloat16Storage": "BF16",
}


class NotReadable(Exception):
    """The pickle holds something outside the fixed list."""


@dataclass(frozen=True, slots=True)
class Global:
    """A name that the pickle refers to; never looked up."""

    name: str


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor's metadata."""

    datatype: str
    shape: tuple[int, ...]


_MARK = object()


def _call(function: Any, arguments: Any) -> Any:
    if not isinstance(function, Global) or not isinstance(arguments, tuple):
        raise NotReadable("a call of something that is no name")
    name = function.name
    if name == "torch._utils._rebuild_tensor_v2" and len(arguments) >= 4:
        storage, _offset, shape = arguments[:3]
        if not (isinstance(storage, tuple) and len(storage) >= 2 and isinstance(storage[1], Global)):
            raise NotReadable("a tensor without a storage")
        kind = storage[1].name.removeprefix("torch.")
        if kind not in STORAGES:
            raise NotReadable(f"a tensor of '{kind}'")
        if not isinstance(shape, tuple) or not all(type(dim) is int and dim >= 0 for dim in shape):
            raise NotReadable("a tensor whose shape is not made of whole numbers")
        return Tensor(STORAGES[kind], shape)
    if name.endswith("restore_type_tag") and name.startswith("torch.") and arguments:
        return arguments[0]
    if name == "torch._utils._rebuild_parameter" and arguments and isinstance(arguments[0], Tensor):
        return arguments[0]
    if name == "torch.Size" and len(arguments) == 1:
        return arguments[0]
    if name == "collections.OrderedDict":
        return {}
    raise NotReadable(f"a call of '{name}'")


class _Machine:
    """A stack machine for the opcodes that TorchScript's metadata uses."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def pop(self) -> Any:
        if not self.stack:
            raise NotReadable("an empty stack")
        return self.stack.pop()

    def to_mark(self) -> list[Any]:
        items: list[Any] = []
        while True:
            item = self.pop()
            if item is _MARK:
                return items[::-1]
            items.append(item)

    def top(self, kind: type) -> Any:
        if not self.stack or not isinstance(self.stack[-1], kind):
            raise NotReadable(f"expected a {kind.__name__} on the stack")
        return self.stack[-1]

    def step(self, name: str, argument: Any) -> None:
        if name in _LITERALS:
            self.stack.append(argument)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name]())
        elif name == "GLOBAL":
            self.stack.append(Global(str(argument).replace(" ", ".")))
        elif name in ("BINPUT", "LONG_BINPUT"):
            self.memo[argument] = self.stack[-1] if self.stack else None
        elif name == "MEMOIZE":
            self.memo[len(self.memo)] = self.stack[-1] if self.stack else None
        elif name in ("BINGET", "LONG_BINGET"):
            self.stack.append(self.memo.get(argument))
        elif name in _TUPLES:
            count = _TUPLES[name]
            items = [self.pop() for _ in range(count)][::-1]
            self.stack.append(tuple(items))
        else:
            self._compound(name)

    def _compound(self, name: str) -> None:
        if name == "TUPLE":
            self.stack.append(tuple(self.to_mark()))
        elif name == "LIST":
            self.stack.append(self.to_mark())
        elif name == "APPEND":
            item = self.pop()
            self.top(list).append(item)
        elif name == "APPENDS":
            items = self.to_mark()
            self.top(list).extend(items)
        elif name == "SETITEM":
            value, key = self.pop(), self.pop()
            self._set(key, value)
        elif name == "SETITEMS":
            items = self.to_mark()
            for key, value in zip(items[::2], items[1::2], strict=False):
                self._set(key, value)
        elif name == "BUILD":
            self.pop()  # attributes, such as the `_metadata` of a state dict
            self.top(dict)
        elif name == "BINPERSID":
            self.stack.append(self.pop())
        elif name == "REDUCE":
            arguments, function = self.pop(), self.pop()
            self.stack.append(_call(function, arguments))

    def _set(self, key: Any, value: Any) -> None:
        if not isinstance(key, (str, int)):
            raise NotReadable("a key that is neither text nor a number")
        self.top(dict)[key] = value


_CONSTANTS: dict[str, Any] = {
    "MARK": lambda: _MARK,
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
}
_LITERALS = frozenset(
    {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE", "SHORT_BINSTRING"}
)
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


_KNOWN = (
    frozenset({"GLOBAL", "BINPUT", "LONG_BINPUT", "MEMOIZE", "BINGET", "LONG_BINGET", "TUPLE", "LIST", "APPEND"})
    | frozenset({"APPENDS", "SETITEM", "SETITEMS", "BINPERSID", "BUILD", "REDUCE", "PROTO", "FRAME", "STOP"})
    | _CONSTANTS.keys()
    | _LITERALS
    | _TUPLES.keys()
)
_OPCODES = {opcode.code.encode("latin-1"): opcode for opcode in pickletools.opcodes}
# Python decodes escapes and numbers of any length in their arguments; TorchScript writes none of them.
_TEXT = frozenset({"STRING", "UNICODE", "INT", "LONG", "FLOAT", "PERSID"})


def _operations(data: bytes, allowed: Callable[[str], bool]) -> Iterator[tuple[str, Any]]:
    """(opcode, argument) up to STOP; an argument is only decoded if its opcode is allowed. Raises `NotReadable`."""
    stream = io.BytesIO(data)
    for _ in range(MAX_OPCODES):
        code = stream.read(1)
        opcode = _OPCODES.get(code)
        if opcode is None:
            raise NotReadable(f"byte {code!r} is no opcode" if code else "it ends before STOP")
        if not allowed(opcode.name):
            raise NotReadable(f"opcode {opcode.name}")
        try:
            if opcode.name == "GLOBAL":
                # pickletools would decode escapes here, which the pickle machine itself does not.
                argument: Any = f"{_line(stream)} {_line(stream)}"
            else:
                argument = opcode.arg.reader(stream) if opcode.arg is not None else None
        except (ValueError, OverflowError) as error:
            raise NotReadable(f"opcode {opcode.name}: {error}") from error
        yield opcode.name, argument
        if opcode.name == "STOP":
            return
    raise NotReadable(f"more than {MAX_OPCODES} opcodes")


def _line(stream: io.BytesIO) -> str:
    line = stream.readline(MAX_NAME)
    if not line.endswith(b"\n"):
        raise ValueError(f"a name that does not end within {MAX_NAME} bytes")
    return line[:-1].decode("utf-8")


def read(data: bytes) -> Any:
    """The value of a pickle as dicts, lists, tuples, numbers, text, `Tensor` and `Global`; raises `NotReadable`."""
    if len(data) > MAX_BYTES:
        raise NotReadable(f"{len(data)} bytes of metadata, at most {MAX_BYTES}")
    machine = _Machine()
    for name, argument in _operations(data, _KNOWN.__contains__):
        if name == "STOP":
            break
        machine.step(name, argument)
    return machine.pop()


def first_global(data: bytes, prefix: str) -> str | None:
    """The first name under `prefix` that a pickle refers to."""
    try:
        for name, argument in _operations(data[:MAX_BYTES], lambda name: name not in _TEXT):
            if name == "GLOBAL" and str(argument).startswith(prefix):
                return str(argument).replace(" ", ".")
    except NotReadable:
        return None
    return None
