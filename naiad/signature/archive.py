"""Reads zip archives: the names of their members in one pass, and the beginning of single members.

Python's own reader makes an object of each member before anything can be bounded, which takes seconds and hundreds of
megabytes for a crafted archive. Source: PKWARE's APPNOTE.
"""

from __future__ import annotations

import os
import struct
import zlib
from typing import BinaryIO, NamedTuple

MAX_DIRECTORY = 4 << 20
MAX_MEMBERS = 40_000
"""A forest of 8,000 trees has so many."""
_END, _ENTRY, _LOCAL = b"PK\5\6", b"PK\1\2", b"PK\3\4"
_END_SIZE, _END64_SIZE, _LOCATOR_SIZE, _ENTRY_SIZE, _LOCAL_SIZE = 22, 56, 20, 46, 30
_LONGEST_COMMENT = 1 << 16
_STORED, _DEFLATED = 0, 8
_OPEN = 0xFFFFFFFF
"""A number that stands in the extra field of zip64 instead."""
_CHUNK = 256 << 10


class BadArchive(ValueError):
    """The file is no archive that can be read: says why."""


class _Directory(NamedTuple):
    """Where the directory lies, and how far everything is shifted by what was put before the archive."""

    begin: int
    size: int
    shift: int


class Archive:
    """An open archive. Sizes in it are not believed: no more is read than is asked for."""

    def __init__(self, file: BinaryIO) -> None:
        """Raises `BadArchive`, also for a directory that is too large."""
        self._descriptor = file.fileno()
        end = os.fstat(self._descriptor).st_size
        directory = _find(self._descriptor, end)
        if directory is None:
            raise BadArchive("it has no directory")
        if directory.size > MAX_DIRECTORY or not 0 <= directory.begin <= end:
            raise BadArchive(f"its directory claims {directory.size} bytes, at most {MAX_DIRECTORY}")
        self._shift = directory.shift
        self.shifted = directory.shift != 0
        """Whether something was put before the archive, so that its own numbers are wrong."""
        self._data = os.pread(self._descriptor, directory.size, directory.begin)
        self._entries = _entries(self._data)
        self.names = list(self._entries)

    def read(self, name: str, limit: int) -> bytes | None:
        """A member of at most `limit` bytes; None if it is absent, damaged or larger."""
        data = self.head(name, limit + 1)
        return data if data is not None and len(data) <= limit else None

    def head(self, name: str, size: int) -> bytes | None:
        """At most the first `size` bytes of a member; None if it is absent, damaged or encrypted."""
        if name not in self._entries:
            return None
        try:
            return self._head(self._entries[name], size)
        except (BadArchive, OSError, OverflowError, struct.error, zlib.error):
            return None

    def _head(self, at: int, size: int) -> bytes:
        flags, method = struct.unpack_from("<HH", self._data, at + 8)
        checksum, packed, unpacked = struct.unpack_from("<LLL", self._data, at + 16)
        (offset,) = struct.unpack_from("<L", self._data, at + 42)
        if flags & 1 or method not in (_STORED, _DEFLATED):
            raise BadArchive("a member is encrypted or packed in an unknown way")
        if _OPEN in (packed, unpacked, offset):
            unpacked, packed, offset = self._wide(at, [unpacked, packed, offset])
        begin = offset + self._shift
        local = os.pread(self._descriptor, _LOCAL_SIZE, begin)
        if local[:4] != _LOCAL:
            raise BadArchive("a member does not begin where the directory says")
        begin += _LOCAL_SIZE + sum(struct.unpack_from("<HH", local, 26))
        if method == _STORED:
            data = os.pread(self._descriptor, min(packed, size), begin)
        else:
            data = _inflated(self._descriptor, begin, packed, size)
        if len(data) < size and (len(data) != unpacked or zlib.crc32(data) != checksum):
            raise BadArchive("a member breaks off or is damaged")
        return data

    def _wide(self, at: int, numbers: list[int]) -> list[int]:
        """The numbers with those that are open taken from the extra field of zip64, where they stand in this order."""
        name, extra = struct.unpack_from("<HH", self._data, at + 28)
        field, end = at + _ENTRY_SIZE + name, at + _ENTRY_SIZE + name + extra
        while field + 4 <= end:
            kind, size = struct.unpack_from("<HH", self._data, field)
            if kind == 1:
                told = iter(struct.unpack_from(f"<{size // 8}Q", self._data, field + 4))
                return [next(told, number) if number == _OPEN else number for number in numbers]
            field += 4 + size
        return numbers


def is_archive(file: BinaryIO) -> bool:
    """Whether a file ends as an archive does."""
    return _find(file.fileno(), os.fstat(file.fileno()).st_size) is not None


def _find(descriptor: int, end: int) -> _Directory | None:
    """The directory that the end of the file names."""
    begin = max(0, end - _END_SIZE - _LONGEST_COMMENT)
    tail = os.pread(descriptor, end - begin, begin)
    at = tail.rfind(_END, 0, max(0, len(tail) - _END_SIZE) + len(_END))
    if at < 0:
        return None
    size, offset = struct.unpack_from("<LL", tail, at + 12)
    at += begin
    locator = os.pread(descriptor, _LOCATOR_SIZE, at - _LOCATOR_SIZE) if at >= _LOCATOR_SIZE + _END64_SIZE else b""
    if locator[:4] == b"PK\6\7":
        wide = os.pread(descriptor, _END64_SIZE, at - _LOCATOR_SIZE - _END64_SIZE)
        if wide[:4] == b"PK\6\6":
            size, offset = struct.unpack_from("<QQ", wide, 40)
            at -= _LOCATOR_SIZE + _END64_SIZE
    return _Directory(at - size, size, at - size - offset)


def _entries(data: bytes) -> dict[str, int]:
    """Where each member stands in the directory, by name; of equal names the last counts. Raises `BadArchive`."""
    found: dict[str, int] = {}
    at, end = 0, len(data)
    lengths = struct.Struct("<HHH").unpack_from
    while at < end:
        if data[at : at + 4] != _ENTRY or at + _ENTRY_SIZE > end:
            raise BadArchive("its directory is damaged")
        name, extra, comment = lengths(data, at + 28)
        begin = at + _ENTRY_SIZE
        written = data[begin : begin + name]
        if b"\0" in written:  # other readers end the name there
            written = written[: written.index(b"\0")]
        found[written.decode("utf-8", "replace")] = at
        if len(found) > MAX_MEMBERS:
            raise BadArchive(f"it has more than {MAX_MEMBERS} members")
        at = begin + name + extra + comment
    return found


def _inflated(descriptor: int, begin: int, packed: int, size: int) -> bytes:
    """The first `size` bytes of what is packed."""
    machine = zlib.decompressobj(-zlib.MAX_WBITS)
    parts: list[bytes] = []
    missing, end = size, begin + packed
    while missing > 0 and begin < end and not machine.eof:
        chunk = os.pread(descriptor, min(_CHUNK, end - begin), begin)
        if not chunk:
            break
        begin += len(chunk)
        part = machine.decompress(chunk, missing)
        while part:
            parts.append(part)
            missing -= len(part)
            part = machine.decompress(machine.unconsumed_tail, missing) if missing and machine.unconsumed_tail else b""
    return b"".join(parts)
