"""Requests with several responses on a real data channel: `repeat`, `square` and models that misbehave."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from naiad_worker import backends, channel
from naiad_worker.backends import LoadFailure, LoadSpec, repeat, square
from naiad_worker.streaming import Streaming

from tests.support.fake_core import FakeCore

FINAL, RELEASED, BARE = channel.FINAL, channel.RELEASED, channel.BARE
CODES = {np.dtype("<i4"): 8, np.dtype("<u4"): 4}
ROOM_AT = 262_144


def spec(decoupled: bool = True) -> LoadSpec:
    config = {"model_transaction_policy": {"decoupled": decoupled}}
    return LoadSpec("m", 1, 0, "", "", config, {"kind": "cpu"}, 1)


def table(*names: str) -> list[dict[str, Any]]:
    return [{"name": name} for name in names]


class Link:
    """The core's end of a worker with a decoupled model."""

    def __init__(self, backend: Any) -> None:
        self.core = FakeCore()
        number, theirs = self.core.open_worker(b"{}")
        link = self.core.links[number]
        self.sock, self.memory = link.sock, link.memory
        self.data = socket.socket(fileno=theirs)
        self.ended: list[bool] = []
        self.thread = threading.Thread(target=lambda: self.ended.append(Streaming(self.data, backend).run()))
        self.thread.start()
        self.calls, self.room_at = 0, ROOM_AT

    def execute(self, *requests: list[np.ndarray], cancelled: bool = False, slot: int = 0) -> int:
        """One listed call; its requests have slots from `slot` on, and their tag is the call's number."""
        self.calls += 1
        at, slots, entries = 8_192 * (self.calls + 1), b"", b""
        for index, arrays in enumerate(requests):
            struct.pack_into("<I", self.memory, 4 * (slot + index), self.calls if cancelled else 0)
            slots += channel.REQUEST.pack(slot + index, self.calls, 0, 0, 0)
            for tensor, array in enumerate(arrays):
                self.memory[at : at + array.nbytes] = array.tobytes()
                place = (0, 0, 0, at, array.nbytes)
                entries += channel.ENTRY.pack(tensor, CODES[array.dtype], array.ndim, index, *place)
                entries += struct.pack(f"<{array.ndim}q", *array.shape)
                at += 64
        count = sum(len(arrays) for arrays in requests)
        head = channel.CALL.pack(self.calls, channel.LISTED, 0, len(requests), count, 0, 0, 0, 0, 0, 0)
        self.sock.send(channel.pack_frame(channel.EXECUTE, 1, head + slots + entries))
        return self.calls

    def cancel(self, slot: int = 0, tag: int | None = None) -> None:
        struct.pack_into("<I", self.memory, 4 * slot, tag or self.calls)

    def record(self, *, grant: bool = True) -> dict[str, Any]:
        """The next record; room is granted where it is asked for."""
        frame = self.sock.recv(channel.MAX_FRAME)
        assert frame, "the worker has ended"
        kind, count = channel.unpack_header(frame, len(frame))
        assert count == 1
        if kind == channel.NEED:
            call, _, size = channel.NEED_BODY.unpack_from(frame, 8)
            assert call == channel.STREAM
            body = channel.GRANT_BODY.pack(call, 0 if grant else 1, 0, 0, self.room_at if grant else 0, size)
            self.room_at += size
            self.sock.send(channel.pack_frame(channel.GRANT, 1, body))
            return self.record(grant=grant)
        assert kind == channel.REPLY
        call, request, status, flags, entries, _, text, *times = channel.RECORD.unpack_from(frame, 8)
        at, outputs = 8 + channel.RECORD.size, []
        for _ in range(entries):
            _, code, rank, _, _, _, _, offset, length = channel.ENTRY.unpack_from(frame, at)
            dims = struct.unpack_from(f"<{rank}q", frame, at + channel.ENTRY.size)
            at += channel.ENTRY.size + 8 * rank
            kind_of = {code: dtype for dtype, code in CODES.items()}[code]
            outputs.append(np.frombuffer(self.memory[offset : offset + length], kind_of).reshape(dims).tolist())
        assert times == sorted(times)
        return {
            "call": call, "request": request, "status": status, "flags": flags, "outputs": outputs,
            "text": frame[at : at + text].decode(), "times": times,
        }  # fmt: skip

    def close(self) -> None:
        self.cancel()  # nobody waits out what is left of a WAIT
        self.sock.shutdown(socket.SHUT_RDWR)
        self.thread.join(10)
        assert not self.thread.is_alive(), "the end of the channel did not end the loop"
        for thread in threading.enumerate():
            if thread.name in ("data", "repeat"):
                thread.join(10)
        self.data.close()
        self.core.close()


@pytest.fixture
def link() -> Iterator[Any]:
    links = []

    def start(backend: Any) -> Link:
        links.append(Link(backend))
        return links[-1]

    yield start
    for link in links:
        link.close()


def repeating(link: Any) -> Link:
    backend = repeat.Backend(spec())
    backend.serve(table("IN", "DELAY", "WAIT"), table("OUT", "IDX"))
    return link(backend)


def ask(values: list[int], delays: list[int], wait: int) -> list[np.ndarray]:
    return [np.array(values, "<i4"), np.array(delays, "<u4"), np.array([wait], "<u4")]


def test_repeat_gives_each_element_back_and_then_the_end(link):
    core = repeating(link)
    core.execute(ask([7, 8, 9], [0, 0, 0], 60_000))
    for index, value in enumerate([7, 8, 9]):
        record = core.record()
        assert (record["flags"], record["outputs"]) == (0, [[value], [index]])
    assert core.record()["flags"] == FINAL | BARE


def test_repeat_without_elements_gives_no_response(link):
    core = repeating(link)
    core.execute(ask([], [], 60_000))
    assert core.record()["flags"] == FINAL | BARE


def test_repeat_releases_its_request_before_its_responses(link):
    core = repeating(link)
    one = core.execute(ask([7], [3_600_000], 0))
    assert core.record()["flags"] == RELEASED | BARE
    two = core.execute(ask([8], [0], 3_600_000), slot=1)  # the instance is free
    records = [core.record(), core.record()]
    assert [(record["call"], record["flags"]) for record in records] == [(two, 0), (two, FINAL | BARE)]
    core.cancel(1, two)
    core.cancel(0, one)
    record = core.record()
    assert (record["call"], record["flags"]) == (one, FINAL | BARE), "a cancelled one waits no longer"


def test_repeat_refuses_lengths_that_differ(link, capsys):
    core = repeating(link)
    core.execute(ask([7, 8], [0], 0))
    record = core.record()
    assert (record["status"], record["flags"]) == (2, FINAL)
    assert "expected as many elements in DELAY as in IN, got 1 and 2" in record["text"]
    capsys.readouterr()


def squaring(link: Any) -> Link:
    backend = square.Backend(spec())
    backend.serve(table("IN"), table("OUT"))
    return link(backend)


def test_square_answers_n_times_with_room_for_all(link):
    core = squaring(link)
    core.execute([np.array([2_000], "<i4")])
    records = [core.record() for _ in range(2_000)]
    assert all(record["outputs"] == [[2_000]] and record["flags"] == 0 for record in records)
    assert core.record()["flags"] == FINAL | BARE
    assert core.room_at == ROOM_AT + 2 * 65_536, "a piece holds a thousand small responses"


def test_requests_of_one_call_are_answered_apart(link):
    core = squaring(link)
    core.execute([np.array([1], "<i4")], [np.array([0], "<i4")])
    records = [core.record() for _ in range(3)]
    seen = [(record["request"], record["flags"], record["outputs"]) for record in records]
    assert seen == [(0, 0, [[1]]), (0, FINAL | BARE, []), (1, FINAL | BARE, [])]


def test_a_request_that_nobody_wants_is_not_run(link):
    core = squaring(link)
    core.execute([np.array([5], "<i4")], cancelled=True)
    record = core.record()
    assert (record["status"], record["flags"], record["text"]) == (8, FINAL, "cancelled")


class Model:
    """Does what the test says with the sender."""

    def __init__(self, act: Any) -> None:
        self.act = act

    def stream(self, inputs: dict[int, Any], sender: Any) -> None:
        self.act(sender)


ONE = np.array([[1]], "<i4")


def test_a_backend_sees_that_its_request_is_cancelled(link):
    go = threading.Event()

    def act(sender: Any) -> None:
        sender.send([(0, ONE)])
        go.wait(10)
        assert sender.is_cancelled()
        sender.finish()

    core = link(Model(act))
    core.execute([ONE])
    assert core.record()["flags"] == 0
    core.cancel()
    go.set()
    assert core.record()["flags"] == FINAL | BARE


def test_what_a_model_raises_ends_its_request_and_nothing_else(link, capsys):
    turns = iter([ValueError("no"), None])

    def act(sender: Any) -> None:
        sender.send([(0, ONE)])
        if error := next(turns):
            raise error
        sender.send([(0, ONE)], b'{"k":1}', final=True)
        with pytest.raises(RuntimeError, match="behind the last one"):
            sender.send([(0, ONE)])

    core = link(Model(act))
    core.execute([ONE])
    assert core.record()["status"] == 0
    record = core.record()
    assert (record["status"], record["flags"], record["text"]) == (2, FINAL, "ValueError: no")
    core.execute([ONE])
    assert core.record()["flags"] == 0
    record = core.record()
    assert (record["flags"], record["text"]) == (FINAL, '{"k":1}')
    capsys.readouterr()


def test_an_error_may_stand_between_responses(link):
    def act(sender: Any) -> None:
        sender.fail("not this one", status=4, final=False)
        sender.send([(0, ONE)], final=True)
        sender.fail("too late")

    core = link(Model(act))
    core.execute([ONE])
    record = core.record()
    assert (record["status"], record["flags"], record["text"]) == (4, 0, "not this one")
    assert core.record()["flags"] == FINAL


def test_room_that_is_refused_fails_the_request_only(link):
    core = link(Model(lambda sender: sender.send([(0, ONE)], final=True)))
    core.execute([ONE])
    record = core.record(grant=False)
    assert (record["status"], record["flags"]) == (5, FINAL) and "byte budget" in record["text"]
    core.execute([ONE])
    assert core.record()["outputs"] == [[[1]]]


def test_a_backend_with_one_answer_serves_a_decoupled_model(link):
    class Echo:
        def execute(self, inputs: dict[int, Any]) -> tuple[list[tuple[int, Any]], bytes]:
            return list(inputs.items()), b""

    core = link(Echo())
    core.execute([ONE])
    record = core.record()
    assert (record["flags"], record["outputs"]) == (FINAL, [[[1]]])


def test_threads_answer_at_once_and_their_responses_do_not_mix(link):
    threads = []

    def act(sender: Any) -> None:
        def respond(number: int) -> None:
            for _ in range(50):
                sender.send([(0, np.full((1, 100), number, "<i4"))])

        own = [threading.Thread(target=respond, args=(number,)) for number in range(4)]
        threads.extend(own)
        for thread in own:
            thread.start()

    core = link(Model(act))
    core.execute([ONE])
    records = [core.record() for _ in range(201)]
    rows = [record["outputs"][0][0] for record in records if record["outputs"]]
    assert all(len(set(row)) == 1 for row in rows)
    assert sorted(row[0] for row in rows) == sorted([0, 1, 2, 3] * 50)
    assert [record["flags"] for record in records if not record["outputs"]] == [RELEASED | BARE]
    for thread in threads:
        thread.join(10)


@pytest.mark.parametrize("frame", [channel.pack_frame(channel.REPLY, 0, b""), b"\x01"], ids=["kind", "cut"])
def test_a_frame_that_breaks_the_protocol_closes_the_loop(link, frame, capsys):
    core = squaring(link)
    core.sock.send(frame)
    core.thread.join(10)
    assert not core.thread.is_alive()
    assert "the data channel is closed: " in capsys.readouterr().err
    assert core.ended == [False]


@pytest.mark.parametrize("name", ["repeat", "square"])
def test_the_configuration_must_be_decoupled_and_name_the_tensors(name):
    module = backends.backend(name)
    with pytest.raises(LoadFailure, match="any number of responses") as failure:
        module.Backend(spec(decoupled=False))
    assert "decoupled: true" in failure.value.fix
    with pytest.raises(LoadFailure, match="expected a tensor 'IN', got X"):
        module.Backend(spec()).serve(table("X"), table("OUT"))
