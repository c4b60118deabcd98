"""B1, B6-B8, B10 over gRPC: hostile messages meet bounds; the server's process stays the same."""

from __future__ import annotations

import contextlib
import gzip
import random
import struct

import grpc
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from tests.support import http2
from tests.support.http2 import Connection, frame, request
from tests.support.process import resident

MIB = 1 << 20
INFER = "/inference.GRPCInferenceService/ModelInfer"
STREAM = "/inference.GRPCInferenceService/ModelStreamInfer"
TINY_INPUT = b"\x2a\x00"
FIELDS = ("content-type", "application/grpc"), ("te", "trailers")
TOO_LARGE = b"\x48\x83\x69\x90\xff"
"""`:status: 431` in a header block."""
HEAD = request(INFER, "POST", *FIELDS)


def _refused(server, message: bytes, *, packed: bool = False) -> tuple[grpc.StatusCode, str]:
    compression = grpc.Compression.Gzip if packed else grpc.Compression.NoCompression
    options = [("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(server.grpc, options=options) as channel, pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary(INFER)(message, compression=compression, timeout=60)
    return caught.value.code(), caught.value.details()


def test_b7_a_compressed_bomb_is_refused(server):
    request = service_pb2.ModelInferRequest(model_name="m", raw_input_contents=[bytes(64 * MIB)])
    code, text = _refused(server, request.SerializeToString(), packed=True)
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert text == "message opens to far more than what was sent"


def test_b6_a_flood_of_tiny_tensors_is_refused(server):
    assert _refused(server, TINY_INPUT * 100_000)[0] is grpc.StatusCode.RESOURCE_EXHAUSTED
    name = b"\x0a\x01m"
    code, text = _refused(server, name + TINY_INPUT * 1000)
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "but got more than 17 inputs" in text


def test_b8_bytes_that_are_no_message(server):
    for message in (b"\xff" * 1000, b"\x0a\xff\xff\xff\xff\x0f", b"\x0b" * 500):
        assert _refused(server, message)[0] is grpc.StatusCode.INTERNAL


@pytest.mark.parametrize(
    "body",
    [
        b"\x00\xc0\x00\x00\x00" + bytes(100),  # W45: it promises 3 GB
        b"\x07\x00\x00\x00\x00",  # no such flag
        b"\x01\x00\x00\x00\x01x",  # compressed, and nobody says how
    ],
)
def test_b1_a_wrong_prefix_is_answered_at_once(server, body):
    with Connection(server.grpc) as connection:
        connection.send(frame(http2.HEADERS, http2.END_HEADERS, 1, HEAD) + frame(http2.DATA, 0, 1, body))
        assert connection.until(http2.HEADERS, 1)


@pytest.mark.parametrize("body", [b"", b"\x00\x00", b"\x00\x00\x00\x00\x09abc"])
def test_b1_a_message_that_ends_early_is_answered(server, body):
    with Connection(server.grpc) as connection:
        head = frame(http2.HEADERS, http2.END_HEADERS, 1, HEAD)
        connection.send(head + frame(http2.DATA, http2.END_STREAM, 1, body))
        assert connection.until(http2.HEADERS, 1)


def test_b6_a_flood_of_outputs_is_refused(server):
    message = service_pb2.ModelInferRequest(model_name="m")
    message.inputs.add(name="INPUT0", datatype="FP32", shape=[1, 16])
    message.raw_input_contents.append(bytes(64))
    before = resident(server.pid)
    for _ in range(100_000):
        message.outputs.add(name="OUTPUT0")
    code, _ = _refused(server, message.SerializeToString())
    assert code in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED)
    assert resident(server.pid) - before < 32 * MIB


def test_b6_idle_streams_are_counted(server):
    """A connection has its limit, and all connections together have theirs."""
    head = request(STREAM, "POST", *FIELDS)
    before = resident(server.pid)
    with grpc.insecure_channel(server.grpc) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        with Connection(server.grpc) as first, Connection(server.grpc) as second:
            for connection in (first, second):
                connection.send(b"".join(_opened(number, head) for number in range(4096)))
            first.send(_opened(4096, head))
            # Each has its answer, and goes on: only then, for what asks whether all are taken opens a stream itself.
            answers = _answers(first, 4096 + 1)
            assert answers.pop(2 * 4096 + 1) == (http2.RST_STREAM, struct.pack(">I", 7)), "expected REFUSED_STREAM"
            for answered in (answers, _answers(second, 4096)):
                assert {kind for kind, _ in answered.values()} == {http2.HEADERS}
            full = (grpc.StatusCode.RESOURCE_EXHAUSTED, "8192 streams are open already")
            server.until(lambda: _of_a_stream(stub) == full, 30, "every stream was taken")
            assert resident(server.pid) - before < 128 * MIB
        ended = (grpc.StatusCode.OK, "")
        server.until(lambda: _of_a_stream(stub) == ended, 30, "connections that are gone keep their streams")


def _opened(number: int, head: bytes) -> bytes:
    return frame(http2.HEADERS, http2.END_HEADERS, 2 * number + 1, head)


def _answers(connection: Connection, streams: int) -> dict[int, tuple[int, bytes]]:
    """What each of so many streams got first: HEADERS that leave it open, or its end."""
    answers: dict[int, tuple[int, bytes]] = {}
    while len(answers) < streams:
        found = connection.frame()
        assert found is not None, f"the server closed after {len(answers)} of {streams} answers"
        kind, flags, stream, payload = found
        if kind in (http2.HEADERS, http2.RST_STREAM) and stream not in answers:
            assert kind == http2.RST_STREAM or not flags & http2.END_STREAM, f"stream {stream} has ended"
            answers[stream] = kind, payload
    return answers


def _of_a_stream(stub: service_pb2_grpc.GRPCInferenceServiceStub) -> tuple[grpc.StatusCode, str]:
    """How a stream without requests ends."""
    call = stub.ModelStreamInfer(iter([]), timeout=30)
    with contextlib.suppress(grpc.RpcError):
        list(call)
    return call.code(), call.details()


def test_b7_failed_messages_keep_nothing(server):
    cut_off = gzip.compress(bytes(MIB))[:-1]
    body = b"\x01" + struct.pack(">I", len(cut_off)) + cut_off
    head = request(INFER, "POST", *FIELDS, ("grpc-encoding", "gzip"))

    def fail(times: int) -> None:
        with Connection(server.grpc) as connection:
            for number in range(times):
                stream = 2 * number + 1
                connection.send(_opened(number, head) + frame(http2.DATA, http2.END_STREAM, stream, body))
                assert connection.until(http2.HEADERS, stream)

    fail(100)
    before = resident(server.pid)
    fail(1000)
    assert resident(server.pid) - before < 16 * MIB


FUZZED = [
    ":authority", "content-type", "te", "grpc-timeout", "grpc-encoding", "grpc-accept-encoding", "authorization",
    "x-api-key", "user-agent", "traceparent", "own-bin", "triton_grpc_error", "host", "content-length",
]  # fmt: skip


@pytest.mark.parametrize("name", FUZZED)
def test_b8_values_of_metadata(server, name):
    rng = random.Random(name)
    values = [
        b"", b" ", b"\x80\xff", b"0", b"-1", b"9" * 400, b"1e309", b"nan", b"a" * 8000, b",,,;;;===", b"\t\t", b'"',
        b"1H", b"99999999H", b"-1S", b"1", b"S", b"+1S", b"gzip,,", b"identity;q=x", b"application/grpc+x", b"trailers",
        *(rng.randbytes(rng.randrange(1, 60)) for _ in range(40)),
    ]  # fmt: skip
    message = service_pb2.ModelInferRequest(model_name="m", raw_input_contents=[bytes(64)])
    message.inputs.add(name="INPUT0", datatype="FP32", shape=[1, 16])
    raw = message.SerializeToString()
    body = b"\0" + struct.pack(">I", len(raw)) + raw
    for value in values:
        fields = [(":method", "POST"), (":scheme", "http"), (":path", INFER), (":authority", "localhost"), *FIELDS]
        sent = [field for field in fields if field[0] != name]
        at = 0 if name.startswith(":") else len(sent)
        head = http2.block(*sent[:at], (name, value), *sent[at:])
        with Connection(server.grpc) as connection:
            connection.send(_opened(0, head) + frame(http2.DATA, http2.END_STREAM, 1, body))
            while (found := connection.frame()) is not None:
                if found[0] in (http2.RST_STREAM, http2.GOAWAY) or (found[0] == http2.HEADERS and found[1] & 1):
                    break
    assert "panicked" not in server.log.read_text()


def test_b10_giant_metadata_is_refused(server):
    for fields in ([("x-big", "a" * MIB)], [(f"x-{at}", "a" * 100) for at in range(300)]):
        head = request(INFER, "POST", *FIELDS, *fields)
        with Connection(server.grpc) as connection:
            connection.send(frame(http2.HEADERS, 0, 1, head[:16384]))
            rest = [head[at : at + 16384] for at in range(16384, len(head), 16384)]
            for number, piece in enumerate(rest):
                last = http2.END_HEADERS if number == len(rest) - 1 else 0
                if not connection.send(frame(http2.CONTINUATION, last, 1, piece)):
                    break
            answer = connection.until(http2.HEADERS, 1)
            assert answer is None or answer.startswith(TOO_LARGE), answer
