"""The serve loop on a real data channel, with models that misbehave."""

from __future__ import annotations

import array
import os
import socket
import struct
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from naiad_worker import channel
from naiad_worker.control import ControlChannel
from naiad_worker.main import Worker

from tests.support.fake_core import OUTPUT_AT, FakeCore, Link

ROWS = np.arange(32, dtype=np.float32).reshape(2, 16)


class Model:
    """Does what the test says."""

    def __init__(self) -> None:
        self.act: Any = lambda array: array

    def execute(self, inputs: dict[int, Any]) -> tuple[list[tuple[int, Any]], bytes]:
        return [(index, self.act(array)) for index, array in inputs.items()], b""


class Bench:
    def __init__(self) -> None:
        self.core = FakeCore()
        number, theirs = self.core.open_worker(b"{}")
        self.link: Link = self.core.links[number]
        self.control, self.end = socket.socketpair()
        self.model = Model()
        self.data = socket.socket(fileno=theirs)
        worker = Worker(ControlChannel(self.end), self.data, "identity")
        worker._backend = self.model
        self.ended: list[bool] = []
        self.thread = threading.Thread(target=lambda: self.ended.append(worker._serve()))
        self.thread.start()

    def ask(self, act: Any, **options: Any) -> dict[str, Any]:
        self.model.act = act
        self.link.execute(ROWS, **options)
        return self.link.reply()

    def close(self) -> None:
        self.control.close()
        for thread in threading.enumerate():
            if thread.name == "control":  # the worker's watch on its control channel
                thread.join(10)
        self.thread.join(10)
        assert not self.thread.is_alive(), "the end of the control channel did not end the loop"
        assert len(self.ended) == 1
        self.end.close()
        self.data.close()
        self.core.close()


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.close()


def raising(error: BaseException) -> Any:
    def act(_array: Any) -> Any:
        raise error

    return act


class Broken(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no message")


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("größe"), "ValueError: größe"),
        (FileNotFoundError("weights.bin"), "FileNotFoundError: weights.bin"),
        (BrokenPipeError(32, "Broken pipe"), "BrokenPipeError: [Errno 32] Broken pipe"),
        (channel.FrameError("not yours"), "FrameError: not yours"),
        (Broken(), "Broken: (its message cannot be printed)"),
        (ValueError("\ud800"), "ValueError: ?"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_what_a_model_raises_is_its_answer_and_ends_nothing(bench, error, text, capsys):
    reply = bench.ask(raising(error))
    assert (reply["status"], reply["text"], reply["tensors"]) == (2, text, [])
    assert "Traceback" in capsys.readouterr().err
    assert bench.ask(lambda array: array)["status"] == 0


def test_a_long_error_is_cut_between_characters(bench):
    text = bench.ask(raising(ValueError("é" * 5_000)))["text"]
    assert len(text.encode()) in (channel.MAX_TEXT - 1, channel.MAX_TEXT)


def test_an_output_without_a_datatype_is_the_models_fault(bench):
    reply = bench.ask(lambda array: array.astype(np.complex64))
    assert reply["status"] == 2 and "complex64 have no v2 datatype" in reply["text"]


@pytest.mark.parametrize("act", [lambda a: a.T.copy().T, lambda a: a.astype(">f4"), lambda a: a[::1]], ids="FBS")
def test_any_layout_of_an_output_arrives_the_same(bench, act):
    [(_, array)] = bench.ask(act)["tensors"]
    np.testing.assert_array_equal(array, ROWS)


@pytest.mark.parametrize("granted", [True, False])
def test_room_is_asked_for_where_outputs_do_not_fit(bench, granted):
    bench.model.act = lambda array: np.concatenate([array, array])
    call = bench.link.execute(ROWS, area=64)
    need = bench.link.sock.recv(channel.MAX_FRAME)
    assert channel.unpack_header(need, len(need)) == (channel.NEED, 1)
    asked_for, _, size = channel.NEED_BODY.unpack_from(need, 8)
    assert asked_for == call and size >= 256
    grant = channel.GRANT_BODY.pack(call, 0 if granted else 1, 0, 0, OUTPUT_AT + 65_536, size if granted else 0)
    bench.link.sock.send(channel.pack_frame(channel.GRANT, 1, grant))
    reply = bench.link.reply()
    if granted:
        np.testing.assert_array_equal(reply["tensors"][0][1], np.concatenate([ROWS, ROWS]))
    else:
        assert reply["status"] == 5 and "byte budget" in reply["text"]


def execute(body: bytes, count: int = 1) -> bytes:
    return channel.pack_frame(channel.EXECUTE, count, body)


def call(*, slot: int = 0, offset: int = 8_192, length: int = 64, dims: tuple[int, ...] = (1, 16)) -> bytes:
    body = channel.CALL.pack(1, 0, 0, 1, 1, 0, 1, 0, 0, OUTPUT_AT, 4_096) + channel.REQUEST.pack(slot, 1, 1, 0, 0)
    entry = channel.ENTRY.pack(0, 11, len(dims), channel.WHOLE_CALL, 0, 0, 0, offset, length)
    return body + entry + struct.pack(f"<{len(dims)}q", *dims)


@pytest.mark.parametrize(
    "frame",
    [
        execute(call(slot=1_024)),
        execute(call(offset=1 << 40)),
        execute(call(offset=(1 << 20) - 4)),
        execute(call(length=60)),
        execute(call(dims=(-1, 16))),
        execute(call(dims=(1 << 62, 1 << 62))),
        execute(call(), count=2),
        channel.pack_frame(channel.SEGMENT, 1, channel.SEGMENT_BODY.pack(1, 0, 4_096)),
        channel.pack_frame(channel.REPLY, 0, b""),
        b"\x01",
    ],
    ids=["slot", "offset", "edge", "length", "negative", "overflow", "count", "no-descriptor", "kind", "cut"],
)
def test_a_frame_that_breaks_the_protocol_closes_the_loop(bench, frame, capsys):
    bench.link.sock.send(frame)
    bench.thread.join(10)
    assert not bench.thread.is_alive()
    assert "the data channel is closed: " in capsys.readouterr().err
    assert bench.ended == [False]


def test_a_segment_that_cannot_be_mapped_is_told(bench, capsys):
    frame = channel.pack_frame(channel.SEGMENT, 1, channel.SEGMENT_BODY.pack(1, 0, 1 << 60))
    with os.fdopen(os.memfd_create("arena"), "rb") as memory:
        os.ftruncate(memory.fileno(), 1 << 60)
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [memory.fileno()]))
        bench.link.sock.sendmsg([frame], [rights])
    bench.thread.join(10)
    text = f"the data channel is closed: segment 1 of {1 << 60} bytes cannot be mapped: Cannot allocate memory"
    assert text in capsys.readouterr().err
    assert bench.ended == [False]


def test_the_end_of_the_core_is_no_failure(bench, capsys):
    bench.ask(lambda array: array)
    bench.link.sock.close()
    bench.thread.join(10)
    assert (bench.ended, capsys.readouterr().err) == ([True], "")
