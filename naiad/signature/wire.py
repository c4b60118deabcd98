"""Reads the wire format of protocol buffers from an open file: fields by number, large ones by offset, never by code.

Source: protobuf's "Encoding" page. Weights are seeked over, so that a model of gigabytes costs some kilobytes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
MAX_FIELDS = 60_000
"""Fields that one file may have us look at; the graph of a large model has some 20,000."""
MAX_TEXT = 1 << 16
_WINDOW = 8 << 10
"""Bytes that are read at once: fields that follow each other closely cost no call of the system each."""
_LONGEST_NUMBER = 10


class Damaged(ValueError):
    """The bytes are no message: says at which offset and why."""


class Field(NamedTuple):
    """One field of a message."""

    number: int
    kind: int
    value: int
    """Of a varint or a fixed number; the length of a LENGTH field."""
    at: int
    """Where the content of a LENGTH field begins."""


class _Source:
    """The file, a window on it, and how many fields may still be looked at."""

    def __init__(self, file: BinaryIO, fields: int) -> None:
        self._file = file
        self._at = 0
        self._data = b""
        self.fields = fields

    def window(self, at: int, size: int) -> tuple[bytes, int]:
        """Bytes that hold `size` from offset `at` on, as far as the file does, and where in them these begin."""
        place = at - self._at
        if place < 0 or place + size > len(self._data):
            self._file.seek(at)
            self._data = self._file.read(max(size, _WINDOW))
            self._at, place = at, 0
        return self._data, place


class Message:
    """A range of a file that holds one message. All messages of a file share one budget of fields."""

    def __init__(self, source: _Source, begin: int, end: int) -> None:
        self._source = source
        self._begin = begin
        self._end = end

    @classmethod
    def of(cls, file: BinaryIO, *, fields: int = MAX_FIELDS) -> Message:
        """The message that a whole file is; at most so many fields are looked at."""
        return cls(_Source(file, fields), 0, os.fstat(file.fileno()).st_size)

    def fields(self) -> Iterator[Field]:
        """The fields in their order; raises `Damaged`."""
        at = self._begin
        while at < self._end:
            self._source.fields -= 1
            if self._source.fields < 0:
                raise Damaged(f"too many fields before offset {at}")
            key, at = self._varint(at)
            number, kind = key >> 3, key & 7
            if not 1 <= number < 1 << 29:
                raise Damaged(f"field number {number} before offset {at}")
            value = 0
            content = at
            if kind == VARINT:
                value, at = self._varint(at)
            elif kind in (FIXED64, FIXED32):
                size = 8 if kind == FIXED64 else 4
                value = int.from_bytes(self._read(at, size), "little")
                at += size
            elif kind == LENGTH:
                value, content = self._varint(at)
                if value > self._end - content:
                    raise Damaged(
                        f"field {number} before offset {content} claims {value} bytes of the {self._end - content} left"
                    )
                at = content + value
            else:
                raise Damaged(f"wire type {kind} before offset {at}")
            yield Field(number, kind, value, content)

    def inner(self, field: Field) -> Message:
        """The message in a LENGTH field; raises `Damaged` for another kind."""
        self._expect(field)
        return Message(self._source, field.at, field.at + field.value)

    def text(self, field: Field) -> str:
        """The text of a LENGTH field; raises `Damaged` where it is none or too long."""
        self._expect(field)
        if field.value > MAX_TEXT:
            raise Damaged(f"a text of {field.value} bytes at offset {field.at}, at most {MAX_TEXT}")
        try:
            return self._read(field.at, field.value).decode()
        except UnicodeDecodeError:
            raise Damaged(f"the text at offset {field.at} is not UTF-8") from None

    def _expect(self, field: Field) -> None:
        if field.kind != LENGTH:
            raise Damaged(
                f"field {field.number} before offset {field.at} has wire type {field.kind}, expected {LENGTH}"
            )

    def _read(self, at: int, size: int) -> bytes:
        if size > self._end - at:
            raise Damaged(f"it breaks off at offset {self._end}")
        data, place = self._source.window(at, size)
        if len(data) - place < size:
            raise Damaged(f"it breaks off at offset {at + len(data) - place}")
        return data[place : place + size]

    def _varint(self, at: int) -> tuple[int, int]:
        """The number at `at` and where it ends."""
        data, place = self._source.window(at, min(_LONGEST_NUMBER, self._end - at))
        number = 0
        for size, byte in enumerate(data[place : place + min(_LONGEST_NUMBER, self._end - at)]):
            number |= (byte & 0x7F) << (7 * size)
            if byte < 0x80:
                return number, at + size + 1
        raise Damaged(f"the number at offset {at} does not end")


def signed(value: int) -> int:
    """A varint as int64."""
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >> 63 else value
