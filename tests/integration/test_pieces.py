"""Tensors that come in pieces of any size, over both protocols, reach the model and come back byte for byte."""

from __future__ import annotations

import http.client
import itertools
import json
import random
import struct
from collections.abc import Iterator

import pytest
from tritonclient.grpc import service_pb2

from tests.support import http2
from tests.support.http2 import Connection, frame, request
from tests.support.repository import Repository
from tests.support.server import Serve, serve

FLOATS = random.Random(7).randbytes(4 * 300_001)
TEXTS = b"".join(struct.pack("<I", size) + b"x" * size for size in (0, 1, 70_000, 5, 130_000))
"""Five elements."""
JSON_LENGTH = "Inference-Header-Content-Length"
FIELDS = ("content-type", "application/grpc"), ("te", "trailers")
ACK = 1
INITIAL_WINDOW_SIZE = 4
SIZES = {
    "single bytes first": [1] * 40 + [999_983],
    "odd": [7, 65_537, 3, 131_071, 1, 1, 16_385],
    "small": [1_021],
    "kept and joined": [65_536, 1, 262_144, 2, 2, 16_384],
}
pieces = pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES.keys())


@pytest.fixture(scope="module")
def server(module_repository: Repository, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    module_repository.identity("raw", dims="-1", max_batch=0)
    second = "\n".join(
        f'{kind} {{ name: "{kind.upper()}1" data_type: TYPE_STRING dims: [ -1 ] }}' for kind in ("input", "output")
    )
    module_repository.identity("both", dims="-1", max_batch=0, extra=second)
    with serve(module_repository.root, tmp_path_factory.mktemp("log") / "serve.log") as running:
        yield running.wait_ready()


def _cut(content: bytes, sizes: list[int], *, most: int = 1 << 30) -> Iterator[bytes]:
    """The content in pieces of these sizes, over and over."""
    at = 0
    for size in itertools.cycle(sizes):
        if at >= len(content):
            return
        yield content[at : at + min(size, most)]
        at += min(size, most)


def _chunked(
    server: Serve, model: str, body: bytes, length: int, sizes: list[int]
) -> tuple[bytes, http.client.HTTPMessage]:
    host, port = server.address.rsplit(":", 1)
    connection = http.client.HTTPConnection(host, int(port), timeout=60)
    try:
        headers = {JSON_LENGTH: str(length), "Transfer-Encoding": "chunked"}
        connection.request("POST", f"/v2/models/{model}/infer", _cut(body, sizes), headers, encode_chunked=True)
        answer = connection.getresponse()
        content = answer.read()
        assert answer.status == 200, content[:500]
        return content, answer.headers
    finally:
        connection.close()


@pieces
def test_w27_binary_tensors_in_chunks_of_any_size(server: Serve, sizes: list[int]) -> None:
    inputs = [
        {"name": "INPUT0", "shape": [300_001], "datatype": "FP32", "parameters": {"binary_data_size": len(FLOATS)}},
        {"name": "INPUT1", "shape": [5], "datatype": "BYTES", "parameters": {"binary_data_size": len(TEXTS)}},
    ]
    head = json.dumps({"inputs": inputs, "parameters": {"binary_data_output": True}}).encode()
    content, headers = _chunked(server, "both", head + FLOATS + TEXTS, len(head), sizes)
    assert content[int(headers[JSON_LENGTH]) :] == FLOATS + TEXTS


@pieces
def test_w31_a_raw_body_in_chunks_of_any_size(server: Serve, sizes: list[int]) -> None:
    content, headers = _chunked(server, "raw", FLOATS, 0, sizes)
    assert content[int(headers[JSON_LENGTH]) :] == FLOATS


def _message(model: str, *raw: bytes) -> bytes:
    """A request with its prefix."""
    message = service_pb2.ModelInferRequest(model_name=model, id="7", raw_input_contents=raw)
    message.inputs.add(name="INPUT0", datatype="FP32", shape=[300_001])
    if len(raw) > 1:
        message.inputs.add(name="INPUT1", datatype="BYTES", shape=[5])
    text = message.SerializeToString()
    return struct.pack(">BI", 0, len(text)) + text


def _call(server: Serve, method: str, body: bytes, sizes: list[int]) -> list[bytes]:
    """The messages that answer a call whose DATA frames have these sizes."""
    window = struct.pack(">HI", INITIAL_WINDOW_SIZE, 16 << 20)
    with Connection(server.grpc, settings=window) as connection:
        connection.send(frame(http2.WINDOW_UPDATE, 0, 0, struct.pack(">I", 16 << 20)))
        head = request(f"/inference.GRPCInferenceService/{method}", "POST", *FIELDS)
        connection.send(frame(http2.HEADERS, http2.END_HEADERS, 1, head))
        settings = connection.until(http2.SETTINGS)
        assert settings
        connection.send(frame(http2.SETTINGS, ACK, 0))
        answer = b""
        room = {0: 65_535, 1: _initial_window(settings)}  # of the connection and of the call
        for piece in _cut(body, sizes, most=1 << 18):
            while min(room.values()) < len(piece):
                found = connection.frame()
                assert found, "the connection was closed"
                if found[0] == http2.WINDOW_UPDATE:
                    room[found[2]] += struct.unpack(">I", found[3])[0]
                elif found[0] == http2.DATA:
                    answer += found[3]
            room = {stream: left - len(piece) for stream, left in room.items()}
            connection.send(frame(http2.DATA, 0, 1, piece))
        connection.send(frame(http2.DATA, http2.END_STREAM, 1))
        while (found := connection.frame()) is not None:
            if found[2] == 1 and found[0] == http2.DATA:
                answer += found[3]
            elif found[2] == 1 and found[1] & http2.END_STREAM:
                break
    messages = []
    while answer:
        length = int.from_bytes(answer[1:5])
        messages.append(answer[5 : 5 + length])
        answer = answer[5 + length :]
    return messages


def _initial_window(settings: bytes) -> int:
    return int(dict(struct.iter_unpack(">HI", settings))[INITIAL_WINDOW_SIZE])


@pieces
def test_w40_raw_contents_in_data_frames_of_any_size(server: Serve, sizes: list[int]) -> None:
    (answer,) = _call(server, "ModelInfer", _message("both", FLOATS, TEXTS), sizes)
    response = service_pb2.ModelInferResponse.FromString(answer)
    assert (response.id, list(response.raw_output_contents)) == ("7", [FLOATS, TEXTS])


@pieces
def test_w56_messages_of_a_stream_in_data_frames_of_any_size(server: Serve, sizes: list[int]) -> None:
    body = _message("both", FLOATS, TEXTS) + _message("raw", FLOATS[::-1]) + _message("both", FLOATS, TEXTS)
    answers = _call(server, "ModelStreamInfer", body, sizes)
    responses = [service_pb2.ModelStreamInferResponse.FromString(answer).infer_response for answer in answers]
    raw = [list(response.raw_output_contents) for response in responses]
    assert raw == [[FLOATS, TEXTS], [FLOATS[::-1]], [FLOATS, TEXTS]]
