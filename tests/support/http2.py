"""HTTP/2 frames by hand, broken ones included."""

from __future__ import annotations

import contextlib
import socket
import struct
from types import TracebackType

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
END_STREAM, END_HEADERS = 1, 4


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """One frame as it is on the wire."""
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def block(*fields: tuple[str, str | bytes]) -> bytes:
    """A header block: each field a literal without indexing."""

    def text(value: str | bytes) -> bytes:
        raw = value.encode() if isinstance(value, str) else value
        size, prefix = len(raw), b""
        if size < 127:
            prefix = bytes([size])
        else:
            rest, tail = size - 127, bytearray([127])
            while rest >= 128:
                tail.append(rest % 128 + 128)
                rest //= 128
            tail.append(rest)
            prefix = bytes(tail)
        return prefix + raw

    return b"".join(b"\0" + text(name) + text(value) for name, value in fields)


def request(path: str = "/v2/health/live", method: str = "GET", *more: tuple[str, str | bytes]) -> bytes:
    """The header block of a request."""
    return block((":method", method), (":scheme", "http"), (":path", path), (":authority", "localhost"), *more)


class Connection:
    """A connection that has said hello."""

    def __init__(self, address: str, *, settings: bytes = b"") -> None:
        host, port = address.rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)), timeout=30)
        self.unread = b""
        self.send(PREFACE + frame(SETTINGS, 0, 0, settings))

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.socket.close()

    def send(self, bytes_: bytes) -> bool:
        """Whether the server took them; one that has closed does not."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.socket.sendall(bytes_)
            return True
        return False

    def frame(self) -> tuple[int, int, int, bytes] | None:
        """The next frame: kind, flags, stream, payload; none once the server has closed."""
        while len(self.unread) < 9 or len(self.unread) < 9 + int.from_bytes(self.unread[:3]):
            try:
                more = self.socket.recv(65536)
            except ConnectionResetError:
                return None
            if not more:
                return None
            self.unread += more
        size = int.from_bytes(self.unread[:3])
        head, payload = self.unread[:9], self.unread[9 : 9 + size]
        self.unread = self.unread[9 + size :]
        return head[3], head[4], int.from_bytes(head[5:9]) & 0x7FFFFFFF, payload

    def until(self, kind: int, stream: int | None = None) -> bytes | None:
        """The payload of the next frame of a kind; none if the server closes first."""
        while (found := self.frame()) is not None:
            if found[0] == kind and stream in (None, found[2]):
                return found[3]
        return None
