"""A worker's life: load, probe, warm up on the control channel; then execute what comes on the data channel."""

from __future__ import annotations

import argparse
import contextlib
import os
import socket
import sys
import threading
import time
import traceback
from collections import deque
from typing import Any

from naiad_worker import PROTOCOL, backends, channel, process
from naiad_worker.arena import ALIGN, Arena, ArenaError, NoRoom
from naiad_worker.control import Closed, ControlChannel
from naiad_worker.probe import Probe, one_line
from naiad_worker.tensors import BYTES, code_of, encode_bytes

REPLY_AFTER_NS = 200_000
REPLY_ROOM = channel.MAX_FRAME - channel.HEADER.size
OK, INTERNAL, UNAVAILABLE, CANCELLED = 0, 2, 5, 8
_FDS = socket.CMSG_SPACE(4)
_now = time.monotonic_ns


class Worker:
    """One instance of one model."""

    def __init__(self, control: ControlChannel, data: socket.socket, backend: str) -> None:
        self._control = control
        self._data = data
        self._name = backend
        self._backend: Any = None
        self._arena = Arena()
        self._buffer = bytearray(channel.MAX_FRAME)
        self._view = memoryview(self._buffer)
        self._deferred: deque[tuple[bytes, list[int]]] = deque()
        self._records: list[bytes] = []
        self._records_size = 0
        self._records_since = 0
        self._told: set[str] = set()

    # -- control channel --------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Follows the control channel until SERVE or the end."""
        self._control.send(
            {"type": "HELLO", "protocol": PROTOCOL, "pid": os.getpid(), "python": sys.version.split()[0]}
        )
        steps = {"LOAD": self._load, "PROBE": self._probe, "WARMUP": self._warm_up}
        while True:
            message, _ = self._control.receive()
            kind = message.get("type")
            if kind == "EXIT":
                return
            if kind == "SERVE":
                if self._guarded("serve", self._prepare, message):
                    self._serve()
                    return
            elif kind in steps:
                self._guarded(kind.lower(), steps[kind], message)
            else:
                self._control.send(_failed("load", f"unknown message '{kind}'", "", ""))

    def _guarded(self, stage: str, step: Any, message: dict[str, Any]) -> bool:
        """Runs a step; whatever it raises becomes one FAILED message and never ends the worker."""
        stage = {"warm_up": "warmup"}.get(stage, stage)
        try:
            self._control.send(step(message))
            return True
        except Closed:
            raise
        except backends.LoadFailure as error:
            self._control.send(_failed(stage, str(error), error.fix, traceback.format_exc()))
        except ImportError as error:
            module = error.name or str(error)
            fix = f"install it into this environment: pip install {module.split('.')[0]}"
            self._control.send(_failed("import", f"{type(error).__name__}: {error}", fix, traceback.format_exc()))
        except Exception as error:  # a model may raise anything
            self._control.send(_failed(stage, one_line(error), "", traceback.format_exc()))
        return False

    def _load(self, message: dict[str, Any]) -> dict[str, Any]:
        start = _now()
        module = backends.backend(message["backend"])
        spec = backends.LoadSpec(
            model=message["model"],
            version=message["version"],
            instance=message["instance"],
            directory=message["version_directory"],
            file=message["file"],
            config=message["config"],
            device=message["device"],
            threads=message["threads"],
        )
        self._backend = module.Backend(spec)
        return {"type": "LOADED", "load_ns": _now() - start}

    def _probe(self, message: dict[str, Any]) -> dict[str, Any]:
        report = Probe(self._backend, message["inputs"]).report(batched=message["batched"])
        return {"type": "PROBED", **report}

    def _warm_up(self, message: dict[str, Any]) -> dict[str, Any]:
        """Some frameworks compile at the first calls of each batch size: let them do it before READY."""
        probe = Probe(self._backend, message["inputs"])
        shapes = probe.recorded()
        sample = message.get("sample")
        try:
            for batch in message["batch_sizes"]:
                rows = {name: [batch, *dims[1:]] if batch else dims for name, dims in shapes.items()}
                for _ in range(message["count"]):
                    probe.run(rows)
        except Exception as error:  # a model may raise anything
            if sample is None:
                raise
            raise backends.LoadFailure(f"warmup sample '{sample}': {one_line(error)}") from error
        return {"type": "WARMED"}

    def _prepare(self, message: dict[str, Any]) -> dict[str, Any]:
        self._backend.serve(message["inputs"], message["outputs"])
        return {"type": "READY"}

    def _watch(self) -> None:
        """Waits for EXIT or the end of the control channel, then wakes the main thread by an end-of-file."""
        try:
            while self._control.receive()[0].get("type") != "EXIT":
                pass
        except Closed:
            pass
        try:
            self._data.shutdown(socket.SHUT_RD)
        except OSError:
            pass

    # -- data channel -----------------------------------------------------------------------------------------------

    def _serve(self) -> None:
        threading.Thread(target=self._watch, name="control", daemon=True).start()
        try:
            while True:
                if self._deferred:
                    frame, descriptors = self._deferred.popleft()
                    self._handle(frame, len(frame), descriptors)
                    continue
                size, descriptors = self._receive()
                if size == 0:
                    return
                self._handle(self._view, size, descriptors)
        except (channel.FrameError, ArenaError) as error:
            print(f"the data channel is closed: {error}", file=sys.stderr, flush=True)
        except OSError:
            pass  # the core is gone

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
                    own: list[list[Any]] = [[] for _ in call.requests]
                    for entry in call.entries:
                        if entry.request >= len(own):
                            raise channel.FrameError(f"an entry names request {entry.request} of {len(own)}")
                        own[entry.request].append(entry)
                    for index, request in enumerate(call.requests):
                        self._execute(call, [request], own[index], index)
            self._flush()
        elif kind == channel.SEGMENT:
            if size != channel.HEADER.size + channel.SEGMENT_BODY.size or len(descriptors) != 1:
                raise channel.FrameError("a SEGMENT frame needs its size and one descriptor")
            segment, _, extent = channel.SEGMENT_BODY.unpack_from(frame, channel.HEADER.size)
            self._arena.add(segment, descriptors[0], extent)
        else:
            raise channel.FrameError(f"unexpected frame kind {kind}")

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
            prepared = _prepared(outputs)
        except Exception as error:  # a model may raise anything, also what the channel raises
            self._tell(error)
            self._record((call.call, index, INTERNAL, channel.FINAL), [], _text(error), (start, ready, ran, _now()))
            return
        try:
            written = self._write(call, prepared, index)
        except NoRoom as error:
            self._record((call.call, index, UNAVAILABLE, channel.FINAL), [], _text(error), (start, ready, ran, _now()))
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
                segment, at, length = self._need(call.call, _room(prepared, position))
                end = at + length
                at = (at + ALIGN - 1) & -ALIGN
                if at + size > end:
                    raise ArenaError(f"the granted range of {length} bytes is too small for {size}")
            if code == BYTES:
                dims, raw = content
                self._arena.memory(segment, at, size)[:] = raw
            else:
                dims = content.shape
                if size:
                    self._arena.array(dims, code, segment, at)[...] = content
            entries.append((tensor, code, index, segment, at, size, dims))
            at += size
        return entries

    def _need(self, call: int, size: int) -> tuple[int, int, int]:
        """Asks the core for room and waits for the answer; other frames are kept for later."""
        self._flush()
        self._data.send(channel.pack_need(call, size))
        while True:
            got, descriptors = self._receive()
            if got == 0:
                raise OSError("the core is gone")
            kind, _ = channel.unpack_header(self._view, got)
            if kind == channel.SEGMENT:
                self._handle(self._view, got, descriptors)
            elif kind == channel.GRANT:
                if got != channel.HEADER.size + channel.GRANT_BODY.size:
                    raise channel.FrameError("a GRANT frame has the wrong length")
                _, status, segment, _, offset, length = channel.GRANT_BODY.unpack_from(self._view, channel.HEADER.size)
                if status:
                    raise NoRoom(f"the outputs need {size} more bytes than the server's byte budget allows")
                return segment, offset, length
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
        key = _text(error).decode()[:200]
        if key not in self._told and len(self._told) < 100:
            self._told.add(key)
            with contextlib.suppress(Exception):  # an error that cannot be printed is answered all the same
                traceback.print_exc()

    def finalize(self) -> None:
        """Lets the backend give back what it holds."""
        if self._backend is not None:
            self._backend.finalize()


def _prepared(outputs: list[tuple[int, Any]]) -> list[tuple[int, int, Any, int]]:
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


def _room(prepared: list[tuple[int, int, Any, int]], position: int) -> int:
    """Bytes that the outputs from `position` on take at most."""
    return sum(size + ALIGN for *_, size in prepared[position:])


def _text(error: Exception) -> bytes:
    """An error as its record's text: whole characters, at most MAX_TEXT bytes."""
    try:
        text = str(error)
    except Exception:  # an exception class may be broken, too
        text = "(its message cannot be printed)"
    if not isinstance(error, NoRoom):
        text = f"{type(error).__name__}: {text}"
    return text.encode("utf-8", "replace")[: channel.MAX_TEXT].decode("utf-8", "ignore").encode()


def _failed(stage: str, cause: str, fix: str, trace: str) -> dict[str, Any]:
    return {"type": "FAILED", "stage": stage, "cause": cause, "fix": fix, "traceback": trace}


def serve(control_fd: int, data_fd: int, backend: str) -> None:
    """Runs a worker on inherited descriptors and ends the process."""
    control = ControlChannel(socket.socket(fileno=control_fd))
    data = socket.socket(fileno=data_fd)
    worker = Worker(control, data, backend)
    status = 0
    try:
        worker.run()
        worker.finalize()
    except Closed:
        pass  # the server is gone
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    # Frameworks' own exit handlers may hang or crash after a fork; the kernel takes everything back.
    os._exit(status)


def main() -> None:
    """Entry of a worker that is spawned and not forked."""
    parser = argparse.ArgumentParser(prog="naiad_worker.main")
    parser.add_argument("--backend", required=True)
    parser.add_argument("--control-fd", type=int, required=True)
    parser.add_argument("--data-fd", type=int, required=True)
    parser.add_argument("--server-pid", type=int, required=True)
    options = parser.parse_args()
    process.die_with_parent(options.server_pid)
    process.prefer_for_oom()
    process.leave_signals_to_server()
    process.close_all_but({options.control_fd, options.data_fd})
    serve(options.control_fd, options.data_fd, options.backend)


if __name__ == "__main__":
    main()
