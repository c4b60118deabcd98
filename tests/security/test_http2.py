"""B1, B6, B8, B10: broken and hostile HTTP/2 on the HTTP port meets bounds; the server's process stays the same."""

from __future__ import annotations

import struct

import pytest

from tests.support import http2
from tests.support.http2 import Connection, frame, request
from tests.support.process import resident

MIB = 1 << 20
OK = b"\x88"
"""`:status: 200` in a header block."""
ENDED = http2.END_STREAM | http2.END_HEADERS


@pytest.fixture(autouse=True)
def bounded(server):
    """Whatever a test sends, the server's memory stays where it was."""
    before = resident(server.pid)
    yield
    assert resident(server.pid) - before < 64 * MIB


def test_a_request_by_prior_knowledge(server):
    with Connection(server.address) as client:
        client.send(frame(http2.HEADERS, ENDED, 1, request()))
        assert client.until(http2.DATA, 1) == b'{"live":true}'


@pytest.mark.parametrize(
    "broken",
    [
        frame(http2.SETTINGS, 0, 0, b"\0"),
        frame(http2.HEADERS, ENDED, 0, request()),
        frame(http2.HEADERS, ENDED, 2, request()),
        frame(http2.HEADERS, ENDED, 1, b"\xff" * 40),
        frame(http2.DATA, 0, 1, b"x"),
        frame(http2.CONTINUATION, http2.END_HEADERS, 1, request()),
        frame(http2.WINDOW_UPDATE, 0, 0, struct.pack(">I", 0)),
        frame(http2.PING, 0, 0, b"short"),
        struct.pack(">I", 0xFFFFFF)[1:] + b"\0\0" + struct.pack(">I", 1) + b"x" * 1000,
        b"GET / HTTP/1.1\r\n\r\n" * 100,
    ],
    ids=[
        "settings", "stream-0", "even-stream", "header-block", "idle-stream", "continuation", "window", "ping",
        "length", "http1",
    ],
)  # fmt: skip
def test_b8_broken_frames_end_one_connection_only(server, broken):
    with Connection(server.address) as client:
        client.send(broken)
        assert client.until(http2.GOAWAY) is not None
        while client.frame() is not None:
            pass
    with Connection(server.address) as other:
        other.send(frame(http2.HEADERS, ENDED, 1, request()))
        assert other.until(http2.DATA, 1) == b'{"live":true}'


def test_b10_giant_headers_are_refused(server):
    with Connection(server.address) as client:
        big = request("/v2", "GET", *[(f"x-{at}", "a" * 4000) for at in range(5)])
        client.send(frame(http2.HEADERS, http2.END_STREAM, 1, big[:16384]))
        client.send(frame(http2.CONTINUATION, http2.END_HEADERS, 1, big[16384:]))
        answer = client.until(http2.HEADERS, 1)
        assert answer is None or not answer.startswith(OK)


def test_b10_a_flood_of_continuations_ends_the_connection(server):
    with Connection(server.address) as client:
        client.send(frame(http2.HEADERS, http2.END_STREAM, 1, request()))
        piece = frame(http2.CONTINUATION, 0, 1, http2.block(("x", "y" * 16000)))
        taken = sum(client.send(piece) for _ in range(4000))
        assert taken < 4000, "64 MB of header were taken"


def test_b1_a_body_of_tiny_pieces_is_refused(server):
    head = request("/v2/repository/index", "POST")
    with Connection(server.address) as client:
        client.send(frame(http2.HEADERS, http2.END_HEADERS, 1, head))
        tiny = frame(http2.DATA, 0, 1, b" ") * 1000
        for _ in range(100):
            if not client.send(tiny):
                break
        client.send(frame(http2.DATA, http2.END_STREAM, 1, b""))
        seen = set()
        while (found := client.frame()) is not None and found[0] not in (http2.HEADERS, http2.GOAWAY):
            seen.add(found[0])
        assert found is None or found[0] == http2.GOAWAY or not found[3].startswith(OK)


def test_b6_requests_that_are_reset_at_once(server):
    with Connection(server.address) as client:
        body = request("/v2/models/m/infer", "POST")
        for start in range(1, 40_001, 2000):
            burst = b"".join(
                frame(http2.HEADERS, http2.END_HEADERS, stream, body)
                + frame(http2.RST_STREAM, 0, stream, struct.pack(">I", 8))
                for stream in range(start, start + 2000, 2)
            )
            if not client.send(burst):
                break


@pytest.mark.parametrize("flood", [frame(http2.PING, 0, 0, b"12345678"), frame(http2.SETTINGS, 0, 0)])
def test_b6_floods_that_want_an_answer(server, flood):
    with Connection(server.address) as client:
        client.socket.settimeout(2)
        try:
            for _ in range(200):
                if not client.send(flood * 1000):
                    break
        except TimeoutError:
            pass  # the server waits until its answers are taken


def test_b6_streams_are_counted(server):
    with Connection(server.address) as client:
        head = request("/v2/models/m/infer", "POST")
        for stream in range(1, 1201, 2):
            client.send(frame(http2.HEADERS, http2.END_HEADERS, stream, head))
        refused = client.until(http2.RST_STREAM)
        assert refused == struct.pack(">I", 7), "expected REFUSED_STREAM"
