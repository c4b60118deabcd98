"""B9: clients that leave at any moment; nothing of them stays, and the next ones are served."""

from __future__ import annotations

import contextlib
import json
import random
import socket
import struct
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from tests.support import http2
from tests.support.http2 import PREFACE, frame, request
from tests.support.process import descriptors, resident
from tests.support.server import serve

MIB = 1 << 20
TIMES = 600
ROW = [0.0] * 16
BODY = json.dumps({"inputs": [{"name": "INPUT0", "shape": [1, 16], "datatype": "FP32", "data": ROW}]}).encode()
HTTP = f"POST /v2/models/m/infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(BODY)}\r\n\r\n".encode() + BODY
ABRUPT = struct.pack("ii", 1, 0)
"""SO_LINGER: the connection is reset, not closed."""


def _message(model: str) -> service_pb2.ModelInferRequest:
    message = service_pb2.ModelInferRequest(model_name=model, raw_input_contents=[bytes(64)])
    message.inputs.add(name="INPUT0", datatype="FP32", shape=[1, 16])
    return message


def _grpc() -> bytes:
    raw = _message("m").SerializeToString()
    fields = ("content-type", "application/grpc"), ("te", "trailers")
    head = request("/inference.GRPCInferenceService/ModelInfer", "POST", *fields)
    body = b"\0" + struct.pack(">I", len(raw)) + raw
    return (
        PREFACE
        + frame(http2.SETTINGS, 0, 0)
        + frame(http2.HEADERS, http2.END_HEADERS, 1, head)
        + frame(http2.DATA, http2.END_STREAM, 1, body)
    )


@pytest.fixture(scope="module")
def server(module_repository, tmp_path_factory):
    module_repository.identity("m")
    slow = 'parameters { key: "execute_delay_ms" value: { string_value: "5" } }'
    module_repository.identity("slow", extra=f"{slow}\ndynamic_batching {{ max_queue_delay_microseconds: 2000 }}")
    log = tmp_path_factory.mktemp("log") / "serve.log"
    with serve(module_repository.root, log) as running:
        yield running.wait_ready()
        assert running.process.poll() is None, "the server died"
        assert "panicked" not in log.read_text()


def _idle(server) -> bool:
    """Whether no request is in flight or waits."""
    names = ("naiad_requests_in_flight", "naiad_queue_depth", "naiad_request_bytes ")
    lines = [line for line in server.scrape().splitlines() if line.startswith(names)]
    return len(lines) >= 5 and all(line.endswith(" 0") for line in lines)


@pytest.mark.parametrize("protocol", ["http", "grpc"])
@pytest.mark.parametrize("end", ["closed", "reset"])
def test_b9_a_client_that_leaves_in_the_middle(server, protocol, end):
    rng = random.Random(protocol + end)
    host, port = (server.grpc if protocol == "grpc" else server.address).rsplit(":", 1)
    whole = _grpc() if protocol == "grpc" else HTTP

    def leave(times: int) -> None:
        for _ in range(times):
            with socket.create_connection((host, int(port)), timeout=30) as connection:
                if end == "reset":
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABRUPT)
                connection.sendall(whole[: rng.randrange(1, len(whole) + 1)])

    leave(100)
    server.until(lambda: _idle(server), 30, "a request of a client that left stays")
    memory, before = resident(server.pid), descriptors(server.pid)
    leave(TIMES)
    server.until(lambda: descriptors(server.pid) <= before + 4, 30, "descriptors stay open")
    server.until(lambda: _idle(server), 30, "a request of a client that left stays")
    assert resident(server.pid) - memory < 16 * MIB
    assert server.infer("m", ROW).status == 200


def test_b9_calls_that_are_cancelled_at_any_moment(server):
    rng = random.Random(9)
    with grpc.insecure_channel(server.grpc) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        kept, left = [], []
        for _ in range(TIMES):
            call = stub.ModelInfer.future(_message("slow"), timeout=60)
            (left if rng.random() < 0.7 else kept).append(call)
            if left and rng.random() < 0.5:
                rng.choice(left).cancel()
        for call in left:
            call.cancel()
        assert all(call.result().raw_output_contents == [bytes(64)] for call in kept)
    server.until(lambda: _idle(server), 30, "a cancelled request stays")


def test_b9_http_clients_that_leave_while_the_model_runs(server):
    host, port = server.address.rsplit(":", 1)
    whole = HTTP.replace(b"/m/", b"/slow/")

    def leave(seed: int) -> None:
        rng = random.Random(seed)
        for _ in range(TIMES // 4):
            with socket.create_connection((host, int(port)), timeout=30) as connection:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABRUPT)
                connection.sendall(whole)
                connection.settimeout(rng.random() / 50)
                with contextlib.suppress(TimeoutError):
                    connection.recv(1)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(leave, range(4)))
    server.until(lambda: _idle(server), 30, "a request of a client that left stays")
    assert server.infer("slow", ROW).status == 200
