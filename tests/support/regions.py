"""Shared memory as the stock clients make it: a region with a key of its own that is gone afterwards."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from tritonclient.utils import shared_memory

_NUMBERS = itertools.count()


class Region:
    """A file in shared memory, behind the stock client's helper."""

    def __init__(self, byte_size: int) -> None:
        self.key = f"/naiad-{os.getpid()}-{next(_NUMBERS)}"
        self.path = Path("/dev/shm") / self.key[1:]
        self.byte_size = byte_size
        self._handle: Any = shared_memory.create_shared_memory_region("region", self.key, byte_size)

    def put(self, array: np.ndarray, offset: int = 0) -> None:
        shared_memory.set_shared_memory_region(self._handle, [array], offset)

    def get(self, datatype: Any, shape: list[int], offset: int = 0) -> np.ndarray:
        """A copy of what lies there now."""
        return np.array(shared_memory.get_contents_as_numpy(self._handle, datatype, shape, offset))

    def clear(self) -> None:
        self.put(np.zeros(self.byte_size, np.uint8))

    def destroy(self) -> None:
        shared_memory.destroy_shared_memory_region(self._handle)


@contextlib.contextmanager
def region(byte_size: int) -> Iterator[Region]:
    """A region for the time of a test."""
    made = Region(byte_size)
    try:
        yield made
    finally:
        made.destroy()
