"""The loop of a decoupled model: a request has any number of responses, which any thread may send."""

from __future__ import annotations

import queue
import socket
import threading
import time
from typing import Any

from naiad_worker import channel
from naiad_worker.arena import ALIGN, ArenaError, NoRoom
from naiad_worker.serving import (
    CANCELLED,
    INTERNAL,
    OK,
    UNAVAILABLE,
    Serving,
    apart,
    error_text,
    gone,
    granted,
    prepare,
    room,
)

# Room is asked for in pieces of this size at least, so that small responses share one.
PIECE = 65_536
_now = time.monotonic_ns
_Times = tuple[int, int, int, int]


class Streaming(Serving):
    """One instance at work. A thread of its own reads the channel: any other may have to wait for a GRANT."""

    def __init__(self, data: socket.socket, backend: Any) -> None:
        super().__init__(data, backend)
        self._calls: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._grants: queue.SimpleQueue[Any] = queue.SimpleQueue()
        # Holds together what is written, the record that names it and the order of the records.
        self._lock = threading.Lock()
        self._place = (0, 0, 0)
        self._failed = False

    def run(self) -> bool:
        """Until the end of the channel; whether the core ended it."""
        threading.Thread(target=self._read, name="data", daemon=True).start()
        try:
            while True:
                call = self._calls.get()
                if call is None:
                    return not self._failed
                for index, (request, entries) in enumerate(apart(call)):
                    self._stream(call.call, index, request, entries)
        except (channel.FrameError, ArenaError, OSError) as error:
            return gone(error) and not self._failed

    def _read(self) -> None:
        try:
            while True:
                size, descriptors = self._receive()
                if size == 0:
                    return
                self._route(size, descriptors)
        except (channel.FrameError, ArenaError, OSError) as error:
            self._failed = not gone(error)
        except BaseException:  # no memory, above all
            self._failed = True
            raise
        finally:
            self._calls.put(None)
            self._grants.put(None)

    def _route(self, size: int, descriptors: list[int]) -> None:
        kind, count = channel.unpack_header(self._view, size)
        if kind == channel.EXECUTE:
            for call in channel.unpack_execute(self._view, size, count):
                if call.mode != channel.LISTED:
                    raise channel.FrameError("a gathered call to a decoupled model")
                self._calls.put(call)
        elif kind == channel.GRANT:
            self._grants.put(bytes(self._view[:size]))
        elif kind == channel.SEGMENT:
            self._add_segment(self._view, size, descriptors)
        else:
            raise channel.FrameError(f"unexpected frame kind {kind}")

    def _stream(self, call: int, index: int, request: Any, entries: list[Any]) -> None:
        """Lets the backend answer one request; when it returns, the instance is free for the next."""
        start = _now()
        wanted = self._begin([request])
        sender = Sender(self, (call, index), request, start)
        if not wanted:
            sender.fail("cancelled", status=CANCELLED)
            return
        inputs = {entry.tensor: self._arena.tensor(entry) for entry in entries}
        sender.ready()
        try:
            if hasattr(self._backend, "stream"):
                self._backend.stream(inputs, sender)
            else:
                outputs, text = self._backend.execute(inputs)
                sender.send(outputs, text, final=True)
        except NoRoom as error:
            sender.fail(error_text(error).decode(), status=UNAVAILABLE)
        except Exception as error:  # a model may raise anything
            self._tell(error)
            sender.fail(error_text(error).decode())
        sender.release()

    def is_cancelled(self, slot: int, tag: int) -> bool:
        """Whether nobody waits for the request any more."""
        return bool(self._arena.cancelled[slot] == tag)

    def write(self, prepared: list[Any], index: int) -> list[Any]:
        """Copies the outputs of one response to where nothing else lies; the lock is held."""
        segment, at, end = self._place
        size = room(prepared, 0)
        if at + size > end:
            # The core takes the piece before back: every record that names it has been sent.
            segment, at, end = self._piece(max(PIECE, size))
        entries = []
        for tensor, code, content, size in prepared:
            at = (at + ALIGN - 1) & -ALIGN
            dims = self._put(code, content, segment, at, size)
            entries.append((tensor, code, index, segment, at, size, dims))
            at += size
        self._place = (segment, at, end)
        return entries

    def _piece(self, size: int) -> tuple[int, int, int]:
        self._place = (0, 0, 0)
        self._data.send(channel.pack_need(channel.STREAM, size))
        frame = self._grants.get()
        if frame is None:
            raise ConnectionResetError("the core is gone")
        segment, offset, length = granted(frame, len(frame), size)
        return segment, offset, offset + length

    def say(self, head: tuple[int, int, int, int], entries: list[Any], text: bytes, times: _Times) -> None:
        """Sends one record; the lock is held."""
        record = channel.pack_record(head, entries, text, times)
        self._data.send(channel.pack_frame(channel.REPLY, 1, record))

    @property
    def lock(self) -> threading.Lock:
        """To be held from writing a response to sending its record."""
        return self._lock


class Sender:
    """Gives one request its responses, from any thread.

    It may be used after the backend's `stream` has returned too; the request's inputs are gone by then.
    """

    def __init__(self, streaming: Streaming, place: tuple[int, int], request: Any, start: int) -> None:
        self._streaming = streaming
        self._call, self._index = place
        self._slot, self._tag = request[0], request[1]
        self._start = self._input = start
        self._finished = False

    def ready(self) -> None:
        """The inputs are there."""
        self._input = _now()

    def is_cancelled(self) -> bool:
        """Whether nobody waits for the responses any more; the backend may then stop, with `finish`."""
        return self._streaming.is_cancelled(self._slot, self._tag)

    def send(self, outputs: list[tuple[int, Any]], text: bytes = b"", *, final: bool = False) -> None:
        """One response: output arrays by index, and response parameters as JSON.

        Raises `NoRoom` where the server lacks memory for it.
        """
        prepared = prepare(outputs)
        infer = _now()
        with self._streaming.lock:
            entries = self._streaming.write(prepared, self._index)
            self._say(OK, channel.FINAL if final else 0, entries, text, infer)

    def fail(self, text: str, *, status: int = INTERNAL, final: bool = True) -> None:
        """An error in place of a response; nothing if the request has had its last one."""
        with self._streaming.lock:
            if not self._finished:
                cut = text.encode("utf-8", "replace")[: channel.MAX_TEXT].decode("utf-8", "ignore").encode()
                self._say(status, channel.FINAL if final else 0, [], cut, _now())

    def finish(self) -> None:
        """There is nothing more to come."""
        with self._streaming.lock:
            if not self._finished:
                self._say(OK, channel.FINAL | channel.BARE, [], b"", _now())

    def release(self) -> None:
        """The instance is free for the next request, whatever comes later."""
        with self._streaming.lock:
            if not self._finished:
                self._say(OK, channel.RELEASED | channel.BARE, [], b"", _now())

    def _say(self, status: int, flags: int, entries: list[Any], text: bytes, infer: int) -> None:
        if self._finished:
            raise RuntimeError("a response behind the last one of its request")
        self._finished = bool(flags & channel.FINAL)
        now = _now()
        # Another thread may have sent one since this one's outputs were there.
        times = (self._start, self._input, max(infer, self._input), now)
        self._start = self._input = now
        self._streaming.say((self._call, self._index, status, flags), entries, text, times)
