"""The frames of the data channel (docs/internals/worker-protocol.md §2), packed and unpacked."""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

VERSION = 1
EXECUTE, REPLY, NEED, GRANT, SEGMENT = 1, 2, 3, 4, 5
MAX_FRAME = 65_536
WHOLE_CALL = 0xFFFF
GATHERED, LISTED = 0, 1
# What a record means for its request: its last one, it needs the instance no longer, it carries no response.
FINAL, RELEASED, BARE = 1, 2, 4
# The call number of a NEED for room that any response of a decoupled request may use.
STREAM = 0
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
# Most records carry one output: its record, entry and dims are packed at once.
_ONE_OUTPUT = [struct.Struct(f"<IHBBHHIQQQQHBBHHIIQQ{rank}q") for rank in range(17)]


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


Request = tuple[int, int, int, int, int]
"""One request of a call: slot, tag, rows, segment of its meta, meta. Plain, since a frame may hold many."""


class Call(NamedTuple):
    """One execution: its requests, its inputs and the room for its outputs."""

    call: int
    mode: int
    rows: int
    area: tuple[int, int, int]
    requests: list[Any]
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
    # The buffer may be longer than the frame: what is read beyond its end is found out by the last check.
    at, calls = HEADER.size, []
    for _ in range(count):
        call, mode, _zero, requests, entries, _zero, rows, segment, _zero, offset, length = CALL.unpack_from(frame, at)
        at += CALL.size
        if requests == 1:
            members = [REQUEST.unpack_from(frame, at)]
        else:
            members = list(REQUEST.iter_unpack(frame[at : at + requests * REQUEST.size]))
            if len(members) != requests:
                raise FrameError("an EXECUTE frame is cut off in its requests")
        at += requests * REQUEST.size
        tensors = []
        for _ in range(entries):
            tensor, datatype, rank, request, _zero, where, _zero, start, extent = ENTRY.unpack_from(frame, at)
            at += ENTRY.size
            dims = _dims(rank).unpack_from(frame, at)
            tensors.append(_make_entry((tensor, datatype, request, where, start, extent, dims)))
            at += rank * 8
        calls.append(_make_call((call, mode, rows, (segment, offset, length), members, tensors)))
    if at > size:
        raise FrameError(f"an EXECUTE frame is cut off: {at} bytes announced, got {size}")
    if at != size:
        raise FrameError(f"an EXECUTE frame holds {size - at} bytes too many")
    return calls


_make_entry, _make_call = Entry._make, Call._make


def pack_record(head: tuple[int, int, int, int], entries: list[Any], text: bytes, times: tuple[int, ...]) -> bytes:
    """One record of a REPLY; `head` = (call, request, status, flags), `times` = start, input, infer, output in ns."""
    if len(entries) == 1:
        tensor, datatype, of, segment, offset, length, dims = entries[0]
        rank = len(dims)
        if rank < len(_ONE_OUTPUT):
            entry = (tensor, datatype, rank, of, 0, segment, 0, offset, length)
            return _ONE_OUTPUT[rank].pack(*head, 1, 0, len(text), *times, *entry, *dims) + text
    parts = [RECORD.pack(*head, len(entries), 0, len(text), *times)]
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
