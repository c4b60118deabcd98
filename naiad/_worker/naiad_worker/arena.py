"""The arena seen from the worker: segments as memory and arrays, and the words of its requests."""

from __future__ import annotations

import mmap
import os
import struct
from typing import Any

import numpy as np

from naiad_worker.tensors import BF16, BYTES, NUMPY, Bf16Array, decode_bytes

SLOTS = 1_024
STARTED = 4_096
ALIGN = 64


class ArenaError(Exception):
    """A range that lies outside the arena, or a segment that cannot be a part of it."""


class NoRoom(Exception):
    """The core refused more room for outputs."""


class Arena:
    """The mapped segments of this worker."""

    def __init__(self) -> None:
        self._segments: list[Any] = []
        self.cancelled: Any = None
        self.started: Any = None

    def add(self, segment: int, descriptor: int, size: int) -> None:
        """Maps a segment and closes its descriptor; segments come in order. Raises `ArenaError`."""
        try:
            if segment != len(self._segments):
                raise ArenaError(f"segment {segment} came where {len(self._segments)} was due")
            mapped = mmap.mmap(descriptor, size)
        except OSError as error:  # of the address space, above all
            raise ArenaError(f"segment {segment} of {size} bytes cannot be mapped: {error.strerror}") from None
        finally:
            os.close(descriptor)
        self._segments.append(mapped)
        if segment == 0:
            words = memoryview(mapped)  # cheaper to index than an array
            self.cancelled = words[: SLOTS * 4].cast("I")
            self.started = words[STARTED : STARTED + SLOTS * 4].cast("I")

    def memory(self, segment: int, offset: int, length: int) -> Any:
        """The bytes of a range; raises `ArenaError`."""
        if segment >= len(self._segments):
            raise ArenaError(f"segment {segment} does not exist")
        memory = memoryview(self._segments[segment])[offset : offset + length]
        if len(memory) != length:
            raise ArenaError(f"range {offset}+{length} lies outside segment {segment}")
        return memory

    def array(self, shape: Any, code: int, segment: int, offset: int) -> Any:
        """Memory of the arena as an array of a fixed-size type; raises `ArenaError`."""
        try:
            return np.ndarray(shape, NUMPY[code], self._segments[segment], offset)
        except (IndexError, KeyError, TypeError, ValueError, OverflowError) as error:
            text = f"no room for type {code} of shape {list(shape)} at offset {offset} of segment {segment}: {error}"
            raise ArenaError(text) from None

    def tensor(self, entry: Any) -> Any:
        """An input as an array: a view for fixed-size types, an object array for BYTES."""
        if entry.datatype == BYTES:
            try:
                return decode_bytes(self.memory(entry.segment, entry.offset, entry.length), entry.dims)
            except (struct.error, ValueError) as error:
                raise ArenaError(f"a BYTES tensor of shape {list(entry.dims)} is malformed: {error}") from None
        array = self.array(entry.dims, entry.datatype, entry.segment, entry.offset)
        if array.nbytes != entry.length:
            raise ArenaError(f"a tensor of shape {list(entry.dims)} has {array.nbytes} bytes, not {entry.length}")
        return array.view(Bf16Array) if entry.datatype == BF16 else array
