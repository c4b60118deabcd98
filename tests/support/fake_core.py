"""Plays the core for workers: real channels, real arenas, frames as in docs/internals/worker-protocol.md."""

from __future__ import annotations

import array
import itertools
import json
import mmap
import os
import socket
import struct
import threading
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from naiad._worker.naiad_worker import channel

INPUT_AT, OUTPUT_AT, SEGMENT_SIZE = 8_192, 65_536, 1 << 20


@dataclass
class Link:
    """The core's end of a worker: its data channel and its arena."""

    place: dict[str, Any]
    sock: socket.socket
    memory: mmap.mmap
    closed: bool = False
    calls: Any = field(default_factory=lambda: itertools.count(1))

    @property
    def started(self) -> int:
        """The tag of the last request that ran in slot 0."""
        return struct.unpack_from("<I", self.memory, 4_096)[0]

    def execute(self, rows: np.ndarray, *, cancelled: bool = False, area: int = 65_536) -> int:
        """Sends one gathered call with one FP32 input; its number."""
        raw = np.ascontiguousarray(rows, dtype="<f4").tobytes()
        self.memory[INPUT_AT : INPUT_AT + len(raw)] = raw
        call = next(self.calls)
        struct.pack_into("<I", self.memory, 0, call if cancelled else 0)
        body = channel.CALL.pack(call, channel.GATHERED, 0, 1, 1, 0, len(rows), 0, 0, OUTPUT_AT, area)
        body += channel.REQUEST.pack(0, call, len(rows), 0, 0)
        body += channel.ENTRY.pack(0, 11, rows.ndim, channel.WHOLE_CALL, 0, 0, 0, INPUT_AT, len(raw))
        body += struct.pack(f"<{rows.ndim}q", *rows.shape)
        self.sock.send(channel.pack_frame(channel.EXECUTE, 1, body))
        return call

    def reply(self) -> dict[str, Any]:
        """The next frame, which must be a REPLY with one record; an empty one at end-of-file."""
        frame = self.sock.recv(channel.MAX_FRAME)
        if not frame:
            return {}
        kind, count = channel.unpack_header(frame, len(frame))
        assert (kind, count) == (channel.REPLY, 1), (kind, count)
        call, request, status, flags, entries, _, text, *times = channel.RECORD.unpack_from(frame, 8)
        at, tensors = 8 + channel.RECORD.size, []
        for _ in range(entries):
            tensor, datatype, rank, _, _, _, _, offset, length = channel.ENTRY.unpack_from(frame, at)
            at += channel.ENTRY.size
            dims = struct.unpack_from(f"<{rank}q", frame, at)
            at += 8 * rank
            assert datatype == 11, datatype
            tensors.append((tensor, np.frombuffer(self.memory[offset : offset + length], "<f4").reshape(dims)))
        assert times == sorted(times)
        return {
            "call": call,
            "request": request,
            "status": status,
            "flags": flags,
            "tensors": tensors,
            "text": frame[at : at + text].decode(),
        }


class FakeCore:
    """The doors of the core that supervision uses, and what came through them."""

    def __init__(self) -> None:
        self.links: dict[int, Link] = {}
        self.attached: list[tuple[str, int, int]] = []
        self.followed: list[int] = []
        self.attach_error: Exception | None = None
        self.output: list[tuple[dict[str, Any], str]] = []
        self.changed = threading.Condition()
        self._ids = itertools.count(1)
        self._pumps: list[threading.Thread] = []

    def open_worker(self, spec: bytes) -> tuple[int, int]:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.settimeout(20)
        descriptor = os.memfd_create("arena", os.MFD_CLOEXEC)
        os.ftruncate(descriptor, SEGMENT_SIZE)
        frame = channel.pack_frame(channel.SEGMENT, 1, channel.SEGMENT_BODY.pack(0, 0, SEGMENT_SIZE))
        ours.sendmsg([frame], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [descriptor]))])
        number = next(self._ids)
        with self.changed:
            self.links[number] = Link(json.loads(spec), ours, mmap.mmap(descriptor, SEGMENT_SIZE))
            self.changed.notify_all()
        os.close(descriptor)
        return number, theirs.detach()

    def close_worker(self, worker: int) -> None:
        with self.changed:
            link = self.links[worker]
            link.sock.close()
            link.memory.close()
            link.closed = True
            self.changed.notify_all()

    def attach_worker(self, model: str, version: int, worker: int) -> None:
        if self.attach_error is not None:
            raise self.attach_error
        with self.changed:
            self.attached.append((model, version, worker))
            self.changed.notify_all()

    def follow_worker(self, worker: int, control: int) -> None:
        with self.changed:
            self.followed.append(worker)
            self.changed.notify_all()
        os.close(control)

    def pump_output(self, descriptor: int, labels: bytes) -> None:
        thread = threading.Thread(target=self._pump, args=(descriptor, json.loads(labels)))
        self._pumps.append(thread)
        thread.start()

    def _pump(self, descriptor: int, labels: dict[str, Any]) -> None:
        with os.fdopen(descriptor, errors="replace") as lines:
            for line in lines:
                with self.changed:
                    self.output.append((labels, line.rstrip("\n")))
                    self.changed.notify_all()

    def wait(self, condition: Any, seconds: float = 20) -> None:
        """Until `condition()` holds; the deadline is the failure."""
        with self.changed:
            assert self.changed.wait_for(condition, seconds), f"not within {seconds} s; output: {self.output}"

    @property
    def pipes(self) -> int:
        """Output pipes that are still open on the other side."""
        return sum(thread.is_alive() for thread in self._pumps)

    def close(self) -> None:
        """Ends what is left; every output pipe must have reached its end."""
        for link in self.links.values():
            link.sock.close()
            link.memory.close()
        for thread in self._pumps:
            thread.join(20)
            assert not thread.is_alive(), "a process still holds an output pipe"
