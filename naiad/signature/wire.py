"""Reads the wire format of protocol buffers from an open file: fields by number, large ones by offset, never by code.

Source: protobuf's "Encoding" page. Weights are skipped, so that a model of gigabytes costs some kilobytes. All messages
of a file share one budget of steps, which bounds the time: what is skipped costs least.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
MAX_STEPS = 120_000
"""Of one file, some 40 ms. A field that is skipped is one of them; what takes longer has more.

An ONNX file of 20,000 nodes, as many described values and 2,000 weights beside it takes 100,000.
"""
STEP_BYTES, MOST_STEPS = 32, 1_000_000
"""A larger file has a step for so many of its bytes, for real graphs grow, too: a node takes 100 bytes or more."""
MAX_TEXT = 1 << 16
MAX_TEXTS = 4 << 20
"""Bytes of all texts of a file together."""
_WANTED, _MESSAGE, _TEXT, _HEAD, _READ = 1, 4, 3, 7, 6
"""Steps of a field that is not skipped, of looking into a message, of a text, of a long head, of reading the file."""
_WINDOW = 8 << 10
"""Bytes that are read at once: fields that follow each other closely cost no call of the system each."""
_LONGEST_NUMBER = 10
_LONGEST_SHORT, _SHORT_STEPS = 128, 2
_SHORT = 3
"""Bytes of the head of most fields: a number of up to 15 and a length of up to 16,383."""


class Damaged(ValueError):
    """The bytes are no message: says at which offset and why."""


class TooMuch(Damaged):
    """The file may be whole, but has more in it than is read."""


class Field(NamedTuple):
    """One field of a message."""

    number: int
    kind: int
    value: int
    """Of a varint or a fixed number; the length of a LENGTH field."""
    at: int
    """Where the content of a LENGTH field begins."""


class _Source:
    """The file, the part of it that was read last, and how many steps and bytes of text are left."""

    __slots__ = ("_base", "_data", "_descriptor", "end", "steps", "texts")

    def __init__(self, file: BinaryIO) -> None:
        self._descriptor = file.fileno()
        self.end = os.fstat(self._descriptor).st_size
        self._base = 0
        self._data = b""
        self.steps = max(MAX_STEPS, min(self.end // STEP_BYTES, MOST_STEPS))
        self.texts = MAX_TEXTS

    def step(self, count: int, at: int) -> None:
        self.steps -= count
        if self.steps < 0:
            raise TooMuch(f"too many fields before offset {at}")

    def window(self, at: int, size: int) -> tuple[bytes, int]:
        """A part of the file with `size` bytes from offset `at` on, as far as the file has them, and its offset."""
        if at < self._base or min(at + size, self.end) > self._base + len(self._data):
            self.step(_READ, at)
            self._data = os.pread(self._descriptor, max(size, _WINDOW), at)
            self._base = at
        return self._data, self._base

    def read(self, at: int, size: int) -> bytes:
        """`size` bytes from offset `at` on, as far as the file has them."""
        data, base = self.window(at, size)
        return data[at - base : at - base + size]


class Message:
    """A range of a file that holds one message."""

    def __init__(self, source: _Source, begin: int, end: int) -> None:
        self._source = source
        self._begin = begin
        self._end = end

    @classmethod
    def of(cls, file: BinaryIO) -> Message:
        """The message that a whole file is; the file has to stay open."""
        source = _Source(file)
        return cls(source, 0, source.end)

    def fields(self, *wanted: int) -> Iterator[Field]:
        """The fields of these numbers in their order; raises `Damaged`.

        Every other one is skipped. Fields with a short head are read in this loop itself, for it bounds how large a
        file can be read in time.
        """
        source, end, at = self._source, self._end, self._begin
        data, base, safe, steps = b"", at, at - 1, _MESSAGE
        while at < end:
            if at > safe:
                source.step(steps, at)
                data, base = source.window(at, _SHORT)
                safe, steps = base + len(data) - _SHORT, 0
            place = at - base
            key = data[place] if at <= safe else 0
            if 7 < key < 0x80 and not key & 5 and ((value := data[place + 1]) < 0x80 or data[place + 2] < 0x80):
                number, kind, at = key >> 3, key & 2, at + 2
                if value >= 0x80:
                    value, at = value & 0x7F | data[place + 2] << 7, at + 1
            else:
                number, kind, value, at = self._head(at)
            content, steps = at, steps + 1
            if kind == LENGTH:
                at += value
            if at > end:
                left = max(end - content, 0)
                raise Damaged(f"field {number} before offset {content} claims {at - content} bytes of the {left} left")
            if number in wanted:
                source.step(steps + _WANTED, content)
                steps = 0
                yield Field(number, kind, value, content)
        source.step(steps, at)

    def inner(self, field: Field) -> Message:
        """The message in a LENGTH field; raises `Damaged` for another kind."""
        self._expect(field)
        return Message(self._source, field.at, field.at + field.value)

    def text(self, field: Field) -> str:
        """The text of a LENGTH field; raises `Damaged` where it is none or too long."""
        self._expect(field)
        if field.value > MAX_TEXT:
            raise Damaged(f"a text of {field.value} bytes at offset {field.at}, at most {MAX_TEXT}")
        self._source.step(_TEXT, field.at)
        self._source.texts -= field.value
        if self._source.texts < 0:
            raise TooMuch(f"more than {MAX_TEXTS} bytes of texts before offset {field.at}")
        return self.decoded(self._read(field.at, field.value), field.at)

    def decoded(self, data: bytes, at: int) -> str:
        """Bytes that were read at an offset as text; raises `Damaged` where they are none."""
        try:
            return data.decode()
        except UnicodeDecodeError:
            raise Damaged(f"the text at offset {at} is not UTF-8") from None

    def short(self, field: Field) -> bytes | None:
        """The content of a LENGTH field of at most 128 bytes; None of a longer one."""
        self._expect(field)
        self._source.step(_SHORT_STEPS, field.at)
        return self._read(field.at, field.value) if field.value <= _LONGEST_SHORT else None

    def _expect(self, field: Field) -> None:
        if field.kind != LENGTH:
            raise Damaged(
                f"field {field.number} before offset {field.at} has wire type {field.kind}, expected {LENGTH}"
            )

    def _head(self, at: int) -> tuple[int, int, int, int]:
        """Number, kind and value of the field at `at`, and where its content or the next field begins."""
        self._source.step(_HEAD, at)
        key, at = self._varint(at)
        number, kind = key >> 3, key & 7
        if not 1 <= number < 1 << 29:
            raise Damaged(f"field number {number} before offset {at}")
        if kind in (VARINT, LENGTH):
            value, at = self._varint(at)
        elif kind in (FIXED64, FIXED32):
            size = 8 if kind == FIXED64 else 4
            value = int.from_bytes(self._read(at, size), "little")
            at += size
        else:
            raise Damaged(f"wire type {kind} before offset {at}")
        return number, kind, value, at

    def _read(self, at: int, size: int) -> bytes:
        if size > self._end - at:
            raise Damaged(f"it breaks off at offset {self._end}")
        data = self._source.read(at, size)
        if len(data) < size:
            raise Damaged(f"it breaks off at offset {at + len(data)}")
        return data

    def _varint(self, at: int) -> tuple[int, int]:
        """The number at `at` and where it ends."""
        number = 0
        for size, byte in enumerate(self._source.read(at, min(_LONGEST_NUMBER, self._end - at))):
            number |= (byte & 0x7F) << (7 * size)
            if byte < 0x80:
                return number, at + size + 1
        raise Damaged(f"the number at offset {at} does not end")


def signed(value: int) -> int:
    """A varint as int64."""
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >> 63 else value
