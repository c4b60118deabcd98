"""The control channel: JSON lines over a stream socket, descriptors on the first byte of a line."""

from __future__ import annotations

import array
import json
import socket
import threading
from typing import Any

MAX_LINE = 16 << 20


class Closed(Exception):
    """The other side is gone."""


class ControlChannel:
    """One end of a control channel; `send` may be called from any thread."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._buffer = bytearray()
        self._descriptors: list[int] = []
        self._lock = threading.Lock()

    def fileno(self) -> int:
        """The socket's descriptor."""
        return self._socket.fileno()

    def close(self) -> None:
        """Closes the socket and descriptors that nobody took."""
        self._socket.close()
        for descriptor in self._descriptors:
            _close(descriptor)
        self._descriptors.clear()

    def send(self, message: dict[str, Any], descriptors: tuple[int, ...] = ()) -> None:
        """Writes a message; raises `Closed` if the other side is gone."""
        line = json.dumps(message, separators=(",", ":")).encode() + b"\n"
        try:
            with self._lock:
                if descriptors:
                    rights = array.array("i", descriptors)
                    self._socket.sendmsg([line[:1]], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
                    line = line[1:]
                self._socket.sendall(line)
        except OSError as error:
            raise Closed(str(error)) from error

    def receive(self, *, timeout: float | None = None) -> tuple[dict[str, Any], list[int]]:
        """The next message and the descriptors that came with it.

        Raises `Closed` at end-of-file or for a line that is no JSON object, `TimeoutError` when the time is over.
        """
        self._socket.settimeout(timeout)
        while b"\n" not in self._buffer:
            if len(self._buffer) > MAX_LINE:
                raise Closed(f"a line of the control channel is longer than {MAX_LINE} bytes")
            self._fill()
        line, _, rest = bytes(self._buffer).partition(b"\n")
        self._buffer[:] = rest
        descriptors, self._descriptors = self._descriptors, []
        try:
            message = json.loads(line)
        except ValueError as error:
            raise Closed(f"a line of the control channel is no JSON: {error}") from error
        if not isinstance(message, dict):
            raise Closed("a line of the control channel is no JSON object")
        return message, descriptors

    def _fill(self) -> None:
        space = socket.CMSG_SPACE(8 * array.array("i").itemsize)
        try:
            data, ancillary, _flags, _address = self._socket.recvmsg(65536, space, socket.MSG_CMSG_CLOEXEC)
        except TimeoutError:
            raise
        except socket.timeout as error:
            raise TimeoutError(str(error)) from error
        except OSError as error:
            raise Closed(str(error)) from error
        for level, kind, content in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                rights = array.array("i")
                rights.frombytes(content[: len(content) - len(content) % rights.itemsize])
                self._descriptors.extend(rights)
        if not data:
            raise Closed("end of file")
        self._buffer += data


def _close(descriptor: int) -> None:
    import os

    try:
        os.close(descriptor)
    except OSError:
        pass
