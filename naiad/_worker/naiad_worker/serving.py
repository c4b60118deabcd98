"""Executes what comes on the data channel and answers it: the loop of a model that gives one response a request."""

from __future__ import annotations

import socket
import sys
import time
from collections import deque
from collections.abc import Iterator
from typing import Any

from naiad_worker import channel, output
from naiad_worker.arena import ALIGN, Arena, ArenaError, NoRoom
from naiad_worker.tensors import BYTES, code_of, encode_bytes

REPLY_AFTER_NS = 200_000
REPLY_ROOM = channel.MAX_FRAME - channel.HEADER.size
OK, INTERNAL, UNAVAILABLE, CANCELLED = 0, 2, 5, 8
_FDS = socket.CMSG_SPACE(4)
_now = time.monotonic_ns


class Serving:
    """One instance at work."""

    def __init__(self, data: socket.socket, backend: Any) -> None:
        self._data = data
        self._backend = backend
        self._arena = Arena()
        self._buffer = bytearray(channel.MAX_FRAME)
        self._view = memoryview(self._buffer)
        self._deferred: deque[tuple[bytes, list[int]]] = deque()
        self._records: list[bytes] = []
        self._records_size = 0
        self._records_since = 0
        self._told: set[str] = set()

    def run(self) -> bool:
        """Until the end of the channel; whether the core ended it."""
        try:
            while True:
                if self._deferred:
                    frame, descriptors = self._deferred.popleft()
                    self._handle(frame, len(frame), descriptors)
                    continue
                size, descriptors = self._receive()
                if size == 0:
                    return True
                self._handle(self._view, size, descriptors)
        except (channel.FrameError, ArenaError, OSError) as error:
            return gone(error)

    def _receive(self) -> tuple[int, list[int]]:
        size, ancillary, flags, _ = self._data.recvmsg_into([self._view], _FDS, socket.MSG_CMSG_CLOEXEC)
        if flags & socket.MSG_TRUNC:
            raise channel.FrameError(f"a frame is longer than {channel.MAX_FRAME} bytes")
        if not ancillary:
            return size, []
        descriptors = []
        for _, _, content in ancillary:
            descriptors.extend(
                int.from_bytes(content[at : at + 4], sys.byteorder) for at in range(0, len(content) // 4 * 4, 4)
            )
        return size, descriptors

    def _handle(self, frame: Any, size: int, descriptors: list[int]) -> None:
        kind, count = channel.unpack_header(frame, size)
        if kind == channel.EXECUTE:
            for call in channel.unpack_execute(frame, size, count):
                if call.mode == channel.GATHERED:
                    self._execute(call, call.requests, call.entries, channel.WHOLE_CALL)
                else:
                    for index, (request, entries) in enumerate(apart(call)):
                        self._execute(call, [request], entries, index)
            self._flush()
        elif kind == channel.SEGMENT:
            self._add_segment(frame, size, descriptors)
        else:
            raise channel.FrameError(f"unexpected frame kind {kind}")

    def _add_segment(self, frame: Any, size: int, descriptors: list[int]) -> None:
        if size != channel.HEADER.size + channel.SEGMENT_BODY.size or len(descriptors) != 1:
            raise channel.FrameError("a SEGMENT frame needs its size and one descriptor")
        segment, _, extent = channel.SEGMENT_BODY.unpack_from(frame, channel.HEADER.size)
        self._arena.add(segment, descriptors[0], extent)

    def _execute(self, call: channel.Call, requests: list[Any], entries: list[Any], index: int) -> None:
        """Runs the requests as one execution and queues its record."""
        start = _now()
        if not self._begin(requests):
            self._record((call.call, index, CANCELLED, channel.FINAL), [], b"cancelled", (start, start, start, start))
            return
        inputs = {entry.tensor: self._arena.tensor(entry) for entry in entries}
        ready = ran = _now()
        try:
            outputs, text = self._backend.execute(inputs)
            ran = _now()
            prepared = prepare(outputs)
        except Exception as error:  # a model may raise anything, also what the channel raises
            self._tell(error)
            self._record(
                (call.call, index, INTERNAL, channel.FINAL), [], error_text(error), (start, ready, ran, _now())
            )
            return
        try:
            written = self._write(call, prepared, index)
        except NoRoom as error:
            self._record(
                (call.call, index, UNAVAILABLE, channel.FINAL), [], error_text(error), (start, ready, ran, _now())
            )
            return
        self._record((call.call, index, OK, channel.FINAL), written, text, (start, ready, ran, _now()))

    def _begin(self, requests: list[Any]) -> bool:
        """Says that the requests have started; whether one of them is still wanted."""
        started, cancelled = self._arena.started, self._arena.cancelled
        if started is None:
            raise channel.FrameError("an EXECUTE frame came before the first segment")
        alive = False
        try:
            for slot, tag, _rows, _segment, _meta in requests:
                started[slot] = tag
                if cancelled[slot] != tag:
                    alive = True
        except IndexError:
            raise channel.FrameError(f"a request slot is out of range: {slot}") from None
        return alive

    def _write(self, call: channel.Call, prepared: list[Any], index: int) -> list[Any]:
        """Copies the outputs into the arena, one behind the other."""
        segment, at, length = call.area
        end = at + length
        entries = []
        for position, (tensor, code, content, size) in enumerate(prepared):
            at = (at + ALIGN - 1) & -ALIGN
            if at + size > end:
                segment, at, length = self._need(call.call, room(prepared, position))
                end = at + length
                at = (at + ALIGN - 1) & -ALIGN
                if at + size > end:
                    raise ArenaError(f"the granted range of {length} bytes is too small for {size}")
            dims = self._put(code, content, segment, at, size)
            entries.append((tensor, code, index, segment, at, size, dims))
            at += size
        return entries

    def _put(self, code: int, content: Any, segment: int, at: int, size: int) -> Any:
        """Writes one prepared output; its dims."""
        if code == BYTES:
            dims, raw = content
            self._arena.memory(segment, at, size)[:] = raw
            return dims
        if size:
            self._arena.array(content.shape, code, segment, at)[...] = content
        return content.shape

    def _need(self, call: int, size: int) -> tuple[int, int, int]:
        """Asks the core for room and waits for the answer; other frames are kept for later."""
        self._flush()
        self._data.send(channel.pack_need(call, size))
        while True:
            got, descriptors = self._receive()
            if got == 0:
                raise ConnectionResetError("the core is gone")
            kind, _ = channel.unpack_header(self._view, got)
            if kind == channel.SEGMENT:
                self._handle(self._view, got, descriptors)
            elif kind == channel.GRANT:
                return granted(self._view, got, size)
            else:
                self._deferred.append((bytes(self._view[:got]), descriptors))

    def _record(self, head: tuple[int, int, int, int], entries: list[Any], text: bytes, times: tuple[int, ...]) -> None:
        record = channel.pack_record(head, entries, text, times)
        records = self._records
        if self._records_size + len(record) > REPLY_ROOM:
            self._flush()
        if not records:
            self._records_since = times[3]
        records.append(record)
        self._records_size += len(record)
        if times[3] - self._records_since > REPLY_AFTER_NS:
            self._flush()

    def _flush(self) -> None:
        if self._records:
            body = b"".join(self._records)
            self._data.send(channel.pack_frame(channel.REPLY, len(self._records), body))
            self._records.clear()
            self._records_size = 0

    def _tell(self, error: Exception) -> None:
        """The traceback goes to the log once for each kind of error."""
        key = error_text(error).decode()[:200]
        if key not in self._told and len(self._told) < 100:
            self._told.add(key)
            output.say_error(error)


def gone(error: Exception) -> bool:
    """Whether what ended the loop is the end of the core; anything else is said, and ends the worker as a failure."""
    if isinstance(error, ConnectionError):
        return True
    output.say(output.ERROR, f"the data channel is closed: {error}")
    return False


def apart(call: channel.Call) -> Iterator[tuple[Any, list[Any]]]:
    """The requests of a listed call, each with its own entries."""
    own: list[list[Any]] = [[] for _ in call.requests]
    for entry in call.entries:
        if entry.request >= len(own):
            raise channel.FrameError(f"an entry names request {entry.request} of {len(own)}")
        own[entry.request].append(entry)
    return zip(call.requests, own)


def granted(frame: Any, size: int, wanted: int) -> tuple[int, int, int]:
    """The range of a GRANT frame: segment, offset, length; raises `NoRoom` if there is none."""
    if size != channel.HEADER.size + channel.GRANT_BODY.size:
        raise channel.FrameError("a GRANT frame has the wrong length")
    _, status, segment, _, offset, length = channel.GRANT_BODY.unpack_from(frame, channel.HEADER.size)
    if status:
        raise NoRoom(f"the outputs need {wanted} more bytes than the server's byte budget allows")
    return segment, offset, length


def prepare(outputs: list[tuple[int, Any]]) -> list[tuple[int, int, Any, int]]:
    """(tensor, datatype, content, size in bytes) of each output; the content of BYTES is (shape, bytes)."""
    prepared = []
    for tensor, array in outputs:
        code = code_of(array)
        if code == BYTES:
            raw = encode_bytes(array)
            prepared.append((tensor, code, (array.shape, raw), len(raw)))
        else:
            prepared.append((tensor, code, array, array.nbytes))
    return prepared


def room(prepared: list[tuple[int, int, Any, int]], position: int) -> int:
    """Bytes that the outputs from `position` on take at most."""
    return sum(size + ALIGN for *_, size in prepared[position:])


def error_text(error: Exception) -> bytes:
    """An error as its record's text: whole characters, at most MAX_TEXT bytes."""
    try:
        text = str(error)
    except Exception:  # an exception class may be broken, too
        text = "(its message cannot be printed)"
    if not isinstance(error, NoRoom):
        text = f"{type(error).__name__}: {text}"
    return text.encode("utf-8", "replace")[: channel.MAX_TEXT].decode("utf-8", "ignore").encode()
