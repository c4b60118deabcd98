"""The loop that hands a model its requests apart, on a real data channel."""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from naiad_worker import channel
from naiad_worker.control import ControlChannel
from naiad_worker.listing import MAX_PARAMETERS, Answer, Asked
from naiad_worker.main import Worker

from tests.support.fake_core import INPUT_AT, OUTPUT_AT, FakeCore, Link

META_AT = INPUT_AT + 16_384
Act = Callable[[list[Asked]], list[Answer]]


class Model:
    """Does what the test says."""

    act: Act

    def answer(self, asked: list[Asked]) -> list[Answer]:
        return self.act(asked)


class Bench:
    def __init__(self) -> None:
        self.core = FakeCore()
        number, theirs = self.core.open_worker(b"{}")
        self.link: Link = self.core.links[number]
        self.control, self.end = socket.socketpair()
        self.model = Model()
        self.data = socket.socket(fileno=theirs)
        worker = Worker(ControlChannel(self.end), self.data, "python")
        worker._backend = self.model
        self.thread = threading.Thread(target=worker._serve)
        self.thread.start()

    def send(
        self,
        rows: list[int],
        *,
        metas: dict[int, Any] | None = None,
        cancelled: tuple[int, ...] = (),
        area: int = 65_536,
    ) -> None:
        """One gathered call of requests with so many rows of two numbers each, counted upwards."""
        total = sum(rows)
        raw = np.arange(total * 2, dtype="<f4").tobytes()
        memory = self.link.memory
        memory[INPUT_AT : INPUT_AT + len(raw)] = raw
        body = channel.CALL.pack(1, channel.GATHERED, 0, len(rows), 1, 0, total, 0, 0, OUTPUT_AT, area)
        for slot, count in enumerate(rows):
            meta = json.dumps((metas or {}).get(slot, {})).encode() if slot in (metas or {}) else b""
            at = META_AT + slot * 64
            memory[at : at + len(meta)] = meta
            struct.pack_into("<I", memory, slot * 4, slot + 1 if slot in cancelled else 0)
            body += channel.REQUEST.pack(slot, slot + 1, count, 0, at | len(meta) << 40 if meta else 0)
        body += channel.ENTRY.pack(0, 11, 2, channel.WHOLE_CALL, 0, 0, 0, INPUT_AT, len(raw))
        body += struct.pack("<2q", total, 2)
        self.link.sock.send(channel.pack_frame(channel.EXECUTE, 1, body))

    def records(self, count: int = 1) -> list[tuple[int, int, Any, str]]:
        """(request, status, outputs, text) of the next records, so many at least: a slow machine sends them apart."""
        found: list[tuple[int, int, Any, str]] = []
        while len(found) < count:
            found += self._frame()
        return found

    def _frame(self) -> list[tuple[int, int, Any, str]]:
        frame = self.link.sock.recv(channel.MAX_FRAME)
        kind, count = channel.unpack_header(frame, len(frame))
        assert kind == channel.REPLY
        at, found = 8, []
        for _ in range(count):
            call, request, status, flags, entries, _, text, *times = channel.RECORD.unpack_from(frame, at)
            assert (call, flags) == (1, channel.FINAL)
            assert times == sorted(times)
            at += channel.RECORD.size
            outputs = []
            for _ in range(entries):
                tensor, _, rank, of, _, _, _, offset, length = channel.ENTRY.unpack_from(frame, at)
                assert of == request
                at += channel.ENTRY.size
                dims = struct.unpack_from(f"<{rank}q", frame, at)
                at += 8 * rank
                array = np.frombuffer(self.link.memory[offset : offset + length], "<f4").reshape(dims)
                outputs.append((tensor, array.tolist()))
            found.append((request, status, outputs, frame[at : at + text].decode()))
            at += text
        return found

    def close(self) -> None:
        self.control.close()
        for thread in threading.enumerate():
            if thread.name == "control":
                thread.join(10)
        self.thread.join(10)
        assert not self.thread.is_alive()
        self.end.close()
        self.data.close()
        self.core.close()


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.close()


def echo(asked: list[Asked]) -> list[Answer]:
    return [Answer(0, list(one.inputs.items()), b"") for one in asked]


def test_each_request_has_its_own_rows_and_its_own_record(bench):
    bench.model.act = echo
    bench.send([1, 2])
    assert bench.records() == [
        (0, 0, [(0, [[0.0, 1.0]])], ""),
        (1, 0, [(0, [[2.0, 3.0], [4.0, 5.0]])], ""),
    ]


def test_what_the_client_said_comes_with_its_request(bench):
    seen: list[bytes] = []

    def act(asked: list[Asked]) -> list[Answer]:
        seen.extend(one.meta for one in asked)
        return echo(asked)

    bench.model.act = act
    bench.send([1, 1, 1], metas={1: {"id": "b"}})
    bench.records()
    assert seen == [b"", b'{"id": "b"}', b""]


def test_a_cancelled_request_is_not_in_the_list(bench):
    bench.model.act = echo
    bench.send([1, 1, 1], cancelled=(1,))
    assert sorted(bench.records(3)) == [
        (0, 0, [(0, [[0.0, 1.0]])], ""),
        (1, 8, [], "cancelled"),
        (2, 0, [(0, [[4.0, 5.0]])], ""),
    ]
    bench.send([1], cancelled=(0,))
    assert bench.records() == [(0, 8, [], "cancelled")]


def test_a_model_sees_when_a_request_is_cancelled_while_it_runs(bench):
    seen: list[bool] = []

    def act(asked: list[Asked]) -> list[Answer]:
        seen.append(asked[0].is_cancelled())
        struct.pack_into("<I", bench.link.memory, 0, 1)
        seen.append(asked[0].is_cancelled())
        return echo(asked)

    bench.model.act = act
    bench.send([1])
    bench.records()
    assert seen == [False, True]


def test_errors_stay_with_their_request(bench):
    bench.model.act = lambda asked: [Answer(4, [], b"wrong"), *echo(asked[1:])]
    bench.send([1, 1])
    assert bench.records(2) == [(0, 4, [], "wrong"), (1, 0, [(0, [[2.0, 3.0]])], "")]


def test_what_cannot_travel_is_an_error_of_its_request(bench, capsys):
    big = Answer(0, [], b"x" * (MAX_PARAMETERS + 1))
    bench.model.act = lambda asked: [Answer(0, [(0, np.zeros(1, np.complex64))], b""), big, *echo(asked[2:])]
    bench.send([1, 1, 1])
    first, second, third = bench.records(3)
    assert first[:3] == (0, 2, [])
    assert "complex64" in first[3]
    assert second == (1, 2, [], f"ValueError: the response's parameters take 32769 bytes, at most {MAX_PARAMETERS}")
    assert third == (2, 0, [(0, [[4.0, 5.0]])], "")


def test_more_room_is_asked_for_once_for_all_that_is_left(bench):
    bench.model.act = echo
    bench.send([1, 1, 1], area=64)
    assert bench.records() == [(0, 0, [(0, [[0.0, 1.0]])], "")]
    frame = bench.link.sock.recv(channel.MAX_FRAME)
    kind, _ = channel.unpack_header(frame, len(frame))
    call, _, size = channel.NEED_BODY.unpack_from(frame, 8)
    assert (kind, call, size) == (channel.NEED, 1, 2 * (8 + 64))
    grant = channel.GRANT_BODY.pack(1, 0, 0, 0, OUTPUT_AT + 4_096, size)
    bench.link.sock.send(channel.pack_frame(channel.GRANT, 1, grant))
    assert [record[:3] for record in bench.records(2)] == [(1, 0, [(0, [[2.0, 3.0]])]), (2, 0, [(0, [[4.0, 5.0]])])]


def test_room_that_is_refused_is_unavailable_for_who_needs_it(bench):
    bench.model.act = echo
    bench.send([1, 1], area=64)
    bench.records()
    bench.link.sock.recv(channel.MAX_FRAME)
    bench.link.sock.send(channel.pack_frame(channel.GRANT, 1, channel.GRANT_BODY.pack(1, 1, 0, 0, 0, 0)))
    ((request, status, outputs, text),) = bench.records()
    assert (request, status, outputs) == (1, 5, [])
    assert "byte budget" in text


def test_a_backend_that_raises_fails_all_of_them(bench, capsys):
    def act(asked: list[Asked]) -> list[Answer]:
        raise KeyError("x")

    bench.model.act = act
    bench.send([1, 1])
    assert [record[1:] for record in bench.records(2)] == [(2, [], "KeyError: 'x'")] * 2
