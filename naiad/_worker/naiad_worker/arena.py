"""The arena seen from the worker: segments as memory, request words, and room for outputs."""

from __future__ import annotations

import mmap
import os
from typing import Any, Callable

import numpy as np

from naiad_worker.tensors import BF16, BYTES, NUMPY, Bf16Array, decode_bytes

SLOTS = 1_024
STARTED = 4_096
ALIGN = 64


class ArenaError(Exception):
    """A range that lies outside the arena."""


class NoRoom(Exception):
    """The core refused more room for outputs."""


class Arena:
    """The mapped segments of this worker."""

    def __init__(self) -> None:
        self._segments: list[Any] = []
        self.cancelled: Any = None
        self.started: Any = None

    def add(self, segment: int, descriptor: int, size: int) -> None:
        """Maps a segment and closes its descriptor; segments come in order."""
        try:
            if segment != len(self._segments):
                raise ArenaError(f"segment {segment} came where {len(self._segments)} was due")
            mapped = mmap.mmap(descriptor, size)
        finally:
            os.close(descriptor)
        array = np.frombuffer(mapped, dtype=np.uint8)
        self._segments.append(array)
        if segment == 0:
            self.cancelled = array[: SLOTS * 4].view(np.uint32)
            self.started = array[STARTED : STARTED + SLOTS * 4].view(np.uint32)

    def memory(self, segment: int, offset: int, length: int) -> Any:
        """The bytes of a range as a uint8 array; raises `ArenaError`."""
        if segment >= len(self._segments):
            raise ArenaError(f"segment {segment} does not exist")
        memory = self._segments[segment][offset : offset + length]
        if len(memory) != length:
            raise ArenaError(f"range {offset}+{length} lies outside segment {segment}")
        return memory

    def tensor(self, entry: Any) -> Any:
        """An input as an array: a view for fixed-size types, an object array for BYTES."""
        memory = self.memory(entry.segment, entry.offset, entry.length)
        if entry.datatype == BYTES:
            return decode_bytes(memory, entry.dims)
        array = memory.view(NUMPY[entry.datatype]).reshape(entry.dims)
        return array.view(Bf16Array) if entry.datatype == BF16 else array


class OutputArea:
    """Room for the outputs of one call; asks for more when it is used up."""

    def __init__(self, arena: Arena, area: tuple[int, int, int], need: Callable[[int], tuple[int, int, int]]) -> None:
        self._arena = arena
        self._segment, self._at, length = area
        self._end = self._at + length
        self._need = need

    def place(self, size: int, *, later: int = 0) -> tuple[int, int, Any]:
        """(segment, offset, memory) for `size` bytes; `later` is what the outputs behind it will want."""
        start = -(-self._at // ALIGN) * ALIGN
        if start + size > self._end:
            self._segment, self._at, length = self._need(size + later + ALIGN)
            self._end = self._at + length
            start = -(-self._at // ALIGN) * ALIGN
        self._at = start + size
        return self._segment, start, self._arena.memory(self._segment, start, size)
