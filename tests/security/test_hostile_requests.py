"""B1, B3, B4, B6, B8: hostile headers, sizes and lists; each is refused within bounds, the process stays the same."""

from __future__ import annotations

import json
import random
import socket

import pytest

from tests.support.process import resident

ROW = [0.0] * 16
LIMIT = 65_536
MIB = 1 << 20


@pytest.fixture(scope="module")
def server(module_repository, tmp_path_factory):
    from tests.support.server import serve

    module_repository.identity("m")
    module_repository.identity("wide", dims="-1, -1", max_batch=0)
    log = tmp_path_factory.mktemp("log") / "serve.log"
    with serve(module_repository.root, log, f"--http-max-input-size={LIMIT}") as running:
        running.wait_ready()
        pid = running.pid
        yield running
        assert running.process.poll() is None and running.pid == pid, "the server died"
        assert running.infer("m", ROW).status == 200


@pytest.fixture(autouse=True)
def bounded(server):
    """Whatever a test sends, the server's memory stays where it was."""
    before = resident(server.pid)
    yield
    assert resident(server.pid) - before < 32 * MIB


def _exchange(server, request: bytes) -> bytes:
    """What comes back until the server closes."""
    host, port = server.address.rsplit(":", 1)
    got = b""
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        try:
            connection.sendall(request)
            connection.shutdown(socket.SHUT_WR)
            while block := connection.recv(65536):
                got += block
        except OSError:
            pass  # closed while sending
    return got


FUZZED = [
    "Host", "Content-Type", "Content-Encoding", "Accept-Encoding", "Inference-Header-Content-Length", "Authorization",
    "X-API-Key", "X-Request-Timeout", "Expect", "Connection", "Transfer-Encoding", "Origin", "Sec-Fetch-Site",
    "Upgrade", "traceparent", "Content-Length",
]  # fmt: skip


@pytest.mark.parametrize("name", FUZZED)
def test_b8_values_of_headers(server, name):
    rng = random.Random(name)
    body = json.dumps({"inputs": [{"name": "INPUT0", "shape": [1, 16], "datatype": "FP32", "data": ROW}]}).encode()
    values = [
        b"", b" ", b"\x80\xff", b"0", b"-1", b"9" * 400, b"1e309", b"nan", b"inf", b"a" * 8000, b",,,;;;===", b"\t\t",
        b'"', b"*", b"gzip;q=", b"gzip;q=1e309", b"bytes=0-", *(rng.randbytes(rng.randrange(1, 60)) for _ in range(60)),
    ]  # fmt: skip
    for value in (value.translate(None, b"\r\n") for value in values):
        lines = [b"POST /v2/models/m/infer HTTP/1.1", name.encode() + b": " + value]
        if name != "Host":
            lines.append(b"Host: localhost")
        if name not in ("Content-Length", "Transfer-Encoding"):
            lines.append(b"Content-Length: %d" % len(body))
        got = _exchange(server, b"\r\n".join([*lines, b"Connection: close", b"", body]))
        assert got == b"" or got[:9] == b"HTTP/1.1 ", (value, got[:80])
        assert not got.startswith(b"HTTP/1.1 500"), (value, got)


def test_b1_sizes_up_to_the_limit_and_beyond(server):
    for size in (1, LIMIT - 1, LIMIT):
        answer = server.post("/v2/models/m/infer", b" " * size)
        assert answer.status == 400 and "parse the request JSON" in answer.error
    for size in (LIMIT + 1, 2 * LIMIT, 8 * MIB):
        answer = server.post("/v2/models/m/infer", b" " * size)
        assert answer.status == 400 and "exceeds the maximum allowed input size" in answer.error
    answer = server.post("/v2/models/m/infer", b"\0" * (LIMIT + 1), Inference_Header_Content_Length="0")
    assert answer.status == 400 and answer.error.startswith("Raw input has a byte_size")


@pytest.mark.parametrize("declared", [10, 1 << 20, 1 << 62])
def test_b1_a_body_shorter_than_it_says(server, declared):
    head = f"POST /v2/models/m/infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: {declared}\r\n\r\n{{"
    got = _exchange(server, head.encode())
    assert got == b"" or got.startswith(b"HTTP/1.1 4")


def test_b3_b4_numbers_of_shapes(server):
    rng = random.Random(3)
    for _ in range(300):
        dims = [rng.choice([0, 1, 2, 3, 2**31, 2**32, 2**62, 2**63 - 1, rng.randrange(1, 50)]) for _ in range(2)]
        count = dims[0] * dims[1]
        data = [0] * min(count, 100)
        tensor = {"name": "INPUT0", "shape": dims, "datatype": "FP32", "data": data}
        answer = server.post("/v2/models/wide/infer", {"inputs": [tensor]})
        # Without elements the other dims must not overflow either: a worker could not make the array.
        taken = count == len(data) and max(dims) * 8 < 2**63
        assert answer.status == (200 if taken else 400), (dims, answer.body)
        if taken:
            assert answer.json["outputs"][0]["shape"] == dims


def test_b6_lists_without_end(server):
    outputs = [{"name": "OUTPUT0"}] * 2000
    answer = server.post("/v2/models/m/infer", {"inputs": [], "outputs": outputs})
    assert answer.status == 400
    tensor = {"name": "INPUT0", "shape": [1, 16], "datatype": "FP32", "data": []}
    answer = server.post("/v2/models/m/infer", {"inputs": [tensor] * 500})
    assert answer.status == 400
    answer = server.post("/v2/models/m/infer", b'{"inputs":[' + b"{}," * 20_000 + b"{}]}")
    assert answer.status == 400
    dims = {"name": "INPUT0", "shape": [1] * 20_000, "datatype": "FP32", "data": []}
    assert server.post("/v2/models/m/infer", {"inputs": [dims]}).status == 400
    assert server.post("/v2/models/m/generate", b"{" + b'"a":1,' * 9000 + b'"a":1}').status == 400
