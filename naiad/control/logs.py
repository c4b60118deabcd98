"""Reads the log file of a service or a build: its newest lines, and the lines to come."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

_BLOCK = 64 << 10
_LOOK_SECONDS = 0.3


def tail(path: Path, lines: int) -> bytes:
    """The last whole lines of a file; nothing if there is none yet."""
    return _tail(path, lines)[0]


def follow(path: Path, lines: int, *, stopped: Iterator[bool] | None = None) -> Iterator[bytes]:
    """The last lines, then each new one; a rotated file is begun from its start. Ends when the reader goes.

    Where `stopped` says so, what is there still comes and nothing after it.
    """
    text, position, file = _tail(path, lines)
    yield text
    ended = False
    while not ended:
        ended = stopped is not None and next(stopped)
        if not ended:
            time.sleep(_LOOK_SECONDS)
        size, now = _size(path)
        if now != file or size < position:
            position, file = 0, now
        block = b""
        if size > position:
            with contextlib.suppress(FileNotFoundError), path.open("rb") as stream:  # else another is about to begin
                stream.seek(position)
                block = stream.read(size - position)
        complete = block[: block.rfind(b"\n") + 1]
        position += len(complete)
        yield complete


def _size(path: Path) -> tuple[int, int]:
    """Bytes of a file and its number; zeros where there is none."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return 0, 0
    return found.st_size, found.st_ino


def _tail(path: Path, lines: int) -> tuple[bytes, int, int]:
    """The last whole lines of a file, where in it they end, and its number: what is written meanwhile comes after."""
    try:
        stream = path.open("rb")
    except FileNotFoundError:
        return b"", 0, 0
    with stream:
        file = os.fstat(stream.fileno()).st_ino
        size = position = stream.seek(0, os.SEEK_END)
        blocks: list[bytes] = []
        found = 0
        while position > 0 and found <= lines:
            count = min(_BLOCK, position)
            position = stream.seek(position - count)
            block = stream.read(count)
            found += block.count(b"\n")
            blocks.insert(0, block)
    text = b"".join(blocks)
    complete = text[: text.rfind(b"\n") + 1]
    shown = b"".join(complete.splitlines(keepends=True)[-lines:]) if lines else b""
    return shown, size - len(text) + len(complete), file
