"""B1, B6-B8 over gRPC: hostile messages meet bounds; the server's process stays the same."""

from __future__ import annotations

import grpc
import pytest
from tritonclient.grpc import service_pb2

from tests.support import http2
from tests.support.http2 import Connection, frame, request

MIB = 1 << 20
INFER = "/inference.GRPCInferenceService/ModelInfer"
TINY_INPUT = b"\x2a\x00"
HEAD = request(INFER, "POST", ("content-type", "application/grpc"), ("te", "trailers"))


@pytest.fixture(scope="module")
def server(module_repository, tmp_path_factory):
    from tests.support.server import serve

    module_repository.identity("m")
    log = tmp_path_factory.mktemp("log") / "serve.log"
    with serve(module_repository.root, log) as running:
        running.wait_ready()
        yield running
        assert running.process.poll() is None, "the server died"
        assert running.infer("m", [0.0] * 16).status == 200


def _refused(server, message: bytes, *, gzip: bool = False) -> tuple[grpc.StatusCode, str]:
    compression = grpc.Compression.Gzip if gzip else grpc.Compression.NoCompression
    options = [("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(server.grpc, options=options) as channel, pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary(INFER)(message, compression=compression, timeout=60)
    return caught.value.code(), caught.value.details()


def test_b7_a_compressed_bomb_is_refused(server):
    request = service_pb2.ModelInferRequest(model_name="m", raw_input_contents=[bytes(64 * MIB)])
    code, text = _refused(server, request.SerializeToString(), gzip=True)
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
