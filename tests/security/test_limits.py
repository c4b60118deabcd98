"""B1-B10: hostile bytes meet bounds, over raw sockets; the server's process stays the same."""

from __future__ import annotations

import json
import socket

import pytest

ROW = [0.0] * 16
BODY = json.dumps({"inputs": [{"name": "INPUT0", "shape": [1, 16], "datatype": "FP32", "data": ROW}]}).encode()


@pytest.fixture(scope="module")
def server(module_repository, tmp_path_factory):
    from tests.support.server import serve

    module_repository.identity("m")
    log = tmp_path_factory.mktemp("log") / "serve.log"
    with serve(module_repository.root, log, "--http-max-input-size=65536") as running:
        running.wait_ready()
        yield running
        assert running.process.poll() is None, "the server died"
        assert running.infer("m", ROW).status == 200


def _raw(server, *pieces: bytes, until: bytes | None = None, at: str | None = None) -> bytes:
    """Sends bytes as they are and reads to the end of the connection, or until `until` was seen."""
    host, port = (at or server.address).rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        try:
            for piece in pieces:
                connection.sendall(piece)
        except (BrokenPipeError, ConnectionResetError):
            pass  # refused while sending; the answer is still to be read
        got = b""
        while until is None or until not in got:
            try:
                block = connection.recv(65536)
            except ConnectionResetError:
                break
            if not block:
                break
            got += block
        return got


def _head(*lines: str, path: str = "/v2/models/m/infer") -> bytes:
    return "\r\n".join([f"POST {path} HTTP/1.1", "Host: localhost", *lines, "", ""]).encode()


def test_b2_depth(server):
    def nested(depth: int) -> bytes:
        data = b"[" * depth + b",".join([b"0"] * 16) + b"]" * depth
        return b'{"inputs":[{"name":"INPUT0","shape":[1,16],"datatype":"FP32","data":' + data + b"}]}"

    assert server.post("/v2/models/m/infer", nested(99)).status == 200
    refused = server.post("/v2/models/m/infer", nested(100))
    assert (refused.status, refused.error) == (400, "JSON nesting depth exceeds maximum allowed limit (100)")
    assert server.post("/v2/models/m/infer", b"[" * 60_000).status == 400


def test_w23_a_body_over_the_limit(server):
    answer = server.post("/v2/models/m/infer", b" " * 65_537)
    assert answer.status == 400
    assert "exceeds the maximum allowed input size of 65536 bytes" in answer.error
    assert answer.error.endswith("Use --http-max-input-size to increase the limit.")


def test_b3_b4_shapes(server):
    def shaped(shape: str) -> int:
        tensor = f'{{"name":"INPUT0","shape":{shape},"datatype":"FP32","data":[0]}}'
        return server.post("/v2/models/m/infer", f'{{"inputs":[{tensor}]}}'.encode()).status

    for shape in (
        "[2147483648,2147483648,2147483648]", "[-1,16]", "[0]", "[9223372036854775808]", "[1.5,16]", "[1e309]", "[-0]",
        "[" + "9" * 400 + "]", '["1"]', "{}", "[[1]]", "1",
    ):  # fmt: skip
        assert shaped(shape) == 400, shape


def test_b10_headers(server):
    giant = _raw(server, _head("X-Big: " + "a" * (1 << 20), "Content-Length: 0"))
    assert giant.startswith(b"HTTP/1.1 431")
    many = _raw(server, _head(*[f"X-{i}: 1" for i in range(200)], "Content-Length: 0"))
    assert many.startswith(b"HTTP/1.1 431")


def test_b1_a_flood_of_tiny_chunks(server):
    flood = b"1\r\n \r\n" * 70_000 + b"0\r\n\r\n"
    answer = _raw(server, _head("Transfer-Encoding: chunked"), flood, until=b"}")
    assert answer.startswith(b"HTTP/1.1 4")


def test_w6_chunks_and_pipelining(server):
    half = len(BODY) // 2
    chunked = b"%x\r\n%s\r\n%x\r\n%s\r\n0\r\n\r\n" % (half, BODY[:half], len(BODY) - half, BODY[half:])
    whole = _head(f"Content-Length: {len(BODY)}") + BODY
    last = _head(f"Content-Length: {len(BODY)}", "Connection: close") + BODY
    answer = _raw(server, _head("Transfer-Encoding: chunked") + chunked + whole + last)
    assert answer.count(b"HTTP/1.1 200") == 3


def test_expect_continue(server):
    refused = _raw(server, _head("Expect: 100-continue", "Content-Length: 10", path="/v2/nothing"), until=b"}")
    assert refused.startswith(b"HTTP/1.1 404")
    taken = _raw(server, _head("Expect: 100-continue", f"Content-Length: {len(BODY)}"), until=b"100 Continue")
    assert taken.startswith(b"HTTP/1.1 100")


@pytest.mark.parametrize(
    "garbage", [b"\0" * 100, b"GET\r\n\r\n", b"\x16\x03\x01\x02\0" * 20, b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n"]
)
def test_b8_garbage(server, garbage):
    assert not _raw(server, garbage).startswith(b"HTTP/1.1 2")


def test_b1_b8_b10_on_the_metrics_listener(server):
    scrape = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n"
    for hostile in (
        b"\0" * 100,
        b"GET\r\n\r\n",
        scrape + b"X-Big: " + b"a" * (1 << 20) + b"\r\n\r\n",
        scrape + b"X: 1\r\n" * 200 + b"\r\n",
        b"POST /metrics HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\n \r\n" * 70_000,
        b"GET /../../etc/passwd HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    ):
        answer = _raw(server, hostile, until=b"\r\n\r\n", at=server.metrics)
        assert not answer.startswith(b"HTTP/1.1 2"), (hostile[:60], answer[:80])
    assert "nv_inference_count" in server.scrape()


@pytest.mark.parametrize("value", ["abc", "-1", "99999", "9" * 30, "", "1.5", "0x10"])
def test_w28_a_false_header_length(server, value):
    answer = server.post("/v2/models/m/infer", BODY, Inference_Header_Content_Length=value)
    assert answer.status == 400
    assert "nference" in answer.error
