"""Reads the log file of a service or a build: its newest lines, and the lines to come."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

_BLOCK = 64 << 10
_LOOK_SECONDS = 0.3


def tail(path: Path, lines: int) -> bytes:
    """The last whole lines of a file; nothing if there is none yet."""
    try:
        stream = path.open("rb")
    except FileNotFoundError:
        return b""
    with stream:
        position = stream.seek(0, os.SEEK_END)
        blocks: list[bytes] = []
        found = 0
        while position > 0 and found <= lines:
            size = min(_BLOCK, position)
            position = stream.seek(position - size)
            block = stream.read(size)
            found += block.count(b"\n")
            blocks.insert(0, block)
    text = b"".join(blocks)
    complete = text[: text.rfind(b"\n") + 1]
    return b"".join(complete.splitlines(keepends=True)[-lines:]) if lines else b""


def follow(path: Path, lines: int, *, stopped: Iterator[bool] | None = None) -> Iterator[bytes]:
    """The last lines, then each new one; a rotated file is begun from its start. Ends when the reader goes.

    Where `stopped` says so, what is there still comes and nothing after it.
    """
    yield tail(path, lines)
    position = path.stat().st_size if path.exists() else 0
    ended = False
    while not ended:
        ended = stopped is not None and next(stopped)
        if not ended:
            time.sleep(_LOOK_SECONDS)
        size = path.stat().st_size if path.exists() else 0
        if size < position:
            position = 0
        if size > position:
            with path.open("rb") as stream:
                stream.seek(position)
                block = stream.read(size - position)
            complete = block[: block.rfind(b"\n") + 1]
            position += len(complete)
            yield complete
        else:
            yield b""
