"""The frames of the data channel (docs/internals/worker-protocol.md §2), packed and unpacked."""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

VERSION = 1
EXECUTE, REPLY, NEED, GRANT, SEGMENT = 1, 2, 3, 4, 5
MAX_FRAME = 65_536
WHOLE_CALL = 0xFFFF
GATHERED, LISTED = 0, 1
FINAL = 1
MAX_TEXT = 4_096

HEADER = struct.Struct("<BBHI")
RANGE = struct.Struct("<IIQQ")
ENTRY = struct.Struct("<HBBHHIIQQ")
CALL = struct.Struct("<IBBHHHIIIQQ")
REQUEST = struct.Struct("<IIIIQ")
RECORD = struct.Struct("<IHBBHHIQQQQ")
NEED_BODY = struct.Struct("<IIQ")
GRANT_BODY = struct.Struct("<IIIIQQ")
SEGMENT_BODY = struct.Struct("<IIQ")
_DIMS = [struct.Struct(f"<{rank}q") for rank in range(17)]


class FrameError(Exception):
    """A frame that breaks the protocol: the channel is closed."""


class Entry(NamedTuple):
    """One tensor of a call: where it lies and what it is."""

    tensor: int
    datatype: int
    request: int
    segment: int
    offset: int
    length: int
    dims: tuple[int, ...]


class Request(NamedTuple):
    """One request of a call."""

    slot: int
    tag: int
    rows: int
    meta_segment: int
    meta: int


class Call(NamedTuple):
    """One execution: its requests, its inputs and the room for its outputs."""

    call: int
    mode: int
    rows: int
    area: tuple[int, int, int]
    requests: list[Request]
    entries: list[Entry]


def _dims(rank: int) -> struct.Struct:
    return _DIMS[rank] if rank < len(_DIMS) else struct.Struct(f"<{rank}q")


def unpack_header(frame: Any, size: int) -> tuple[int, int]:
    """(kind, count) of a frame of `size` bytes; raises `FrameError`."""
    if size < HEADER.size:
        raise FrameError(f"a frame of {size} bytes has no header")
    version, kind, count, length = HEADER.unpack_from(frame)
    if version != VERSION:
        raise FrameError(f"frame version: expected {VERSION}, got {version}")
    if length != size:
        raise FrameError(f"frame length: the header says {length}, got {size}")
    return kind, count


def unpack_execute(frame: Any, size: int, count: int) -> list[Call]:
    """The calls of an EXECUTE frame; raises `FrameError`."""
    try:
        return _unpack_execute(frame, size, count)
    except struct.error as error:
        raise FrameError(f"an EXECUTE frame is cut off: {error}") from error


def _unpack_execute(frame: Any, size: int, count: int) -> list[Call]:
    at, calls = HEADER.size, []
    view = memoryview(frame)[:size]
    for _ in range(count):
        call, mode, _zero, requests, entries, _zero, rows, segment, _zero, offset, length = CALL.unpack_from(view, at)
        at += CALL.size
        end = at + requests * REQUEST.size
        members = [Request._make(fields) for fields in REQUEST.iter_unpack(view[at:end])]
        if len(members) != requests:
            raise FrameError("an EXECUTE frame is cut off in its requests")
        at = end
        tensors = []
        for _ in range(entries):
            tensor, datatype, rank, request, _zero, where, _zero, start, extent = ENTRY.unpack_from(view, at)
            at += ENTRY.size
            tensors.append(Entry(tensor, datatype, request, where, start, extent, _dims(rank).unpack_from(view, at)))
            at += rank * 8
        calls.append(Call(call, mode, rows, (segment, offset, length), members, tensors))
    if at != size:
        raise FrameError(f"an EXECUTE frame holds {size - at} bytes too many")
    return calls


def pack_record(head: tuple[int, int, int, int], entries: list[Entry], text: bytes, times: tuple[int, ...]) -> bytes:
    """One record of a REPLY; `head` = (call, request, status, flags), `times` = start, input, infer, output in ns."""
    call, request, status, flags = head
    parts = [RECORD.pack(call, request, status, flags, len(entries), 0, len(text), *times)]
    for tensor, datatype, of, segment, offset, length, dims in entries:
        rank = len(dims)
        parts.append(ENTRY.pack(tensor, datatype, rank, of, 0, segment, 0, offset, length))
        parts.append(_dims(rank).pack(*dims))
    parts.append(text)
    return b"".join(parts)


def pack_frame(kind: int, count: int, body: bytes) -> bytes:
    """A whole frame."""
    return HEADER.pack(VERSION, kind, count, HEADER.size + len(body)) + body


def pack_need(call: int, size: int) -> bytes:
    """A NEED frame: `size` more bytes for the outputs of `call`."""
    return pack_frame(NEED, 1, NEED_BODY.pack(call, 0, size))
