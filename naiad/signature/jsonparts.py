"""Parts of a large JSON document, without the rest of it: parsing all of a program's graph takes seconds and gigabytes.

A part is found by its key and the bracket that opens it. Within a text such a key has its quotes escaped, so what is
found is a key. Where a key stands several times, the last one counts: graphs within a graph come before its own end.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from naiad.signature.opcodes import NotReadable

MAX_PARSED = 4 << 20
"""Bytes that are parsed of one document."""
MAX_PART = 2 << 20
"""Bytes of one part."""
MAX_VALUES = 100_000
"""Values in one part: each takes up to 100 bytes once it is read."""
MAX_KEYS = 40_000
_LONGEST_KEY = 1024
_DECODER = json.JSONDecoder()


class Parts:
    """The document, and how much of it may still be parsed."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._left = MAX_PARSED

    def find(self, key: str, opens: str, *, begin: int = 0) -> int:
        """Where the value of the last `key` begins that is a list (`[`) or an object (`{`); raises `NotReadable`."""
        at = self._data.rfind(f'"{key}": {opens}'.encode(), begin)
        if at < 0:
            raise NotReadable(f"the program has no '{key}'")
        return at + len(key) + 4

    def keyed(self, names: set[str], first: str, *, end: int) -> dict[str, int]:
        """Where the last object of each of these names begins before `end`, among those whose first key is `first`."""
        wanted = {json.dumps(name)[1:-1].encode(): name for name in names}
        found: dict[str, int] = {}
        needle = f'": {{"{first}": '.encode()
        at = self._data.find(needle, 0, end)
        for _ in range(MAX_KEYS):
            if at < 0:
                return found
            name = self._data[self._data.rfind(b'"', max(0, at - _LONGEST_KEY), at) + 1 : at]
            if name in wanted:
                found[wanted[name]] = at + 3
            at = self._data.find(needle, at + 1, end)
        raise NotReadable(f"its JSON has more than {MAX_KEYS} objects that begin with '{first}'")

    def value(self, at: int, *, limit: int = MAX_PART) -> Any:
        """The value at an offset; raises `NotReadable` for what is none, too long or nested too deeply."""
        text = self._text(at, limit)
        value, end = self._decoded(text, 0, at)
        self._charge(end)
        return value

    def elements(self, at: int) -> Iterator[Any]:
        """The elements of the list at an offset, one by one."""
        text = self._text(at, MAX_PART)
        place = 1
        while text[place : place + 1] != "]":
            value, end = self._decoded(text, place, at)
            yield value
            place = end + (2 if text.startswith(", ", end) else 0)
            if place == end and text[end : end + 1] != "]":
                raise NotReadable(f"its JSON has a list at offset {at} that does not end within {MAX_PART} bytes")
        self._charge(place)

    def _text(self, at: int, limit: int) -> str:
        data = self._data[at : at + limit]
        values = data.count(b",") + data.count(b"[") + data.count(b"{")
        if values > MAX_VALUES:
            raise NotReadable(f"its JSON has {values} values at offset {at}, at most {MAX_VALUES}")
        return data.decode("utf-8", "replace")

    def _decoded(self, text: str, place: int, at: int) -> tuple[Any, int]:
        try:
            return _DECODER.raw_decode(text, place)
        except (ValueError, RecursionError) as error:
            why = error.msg if isinstance(error, json.JSONDecodeError) else type(error).__name__
            raise NotReadable(f"its JSON is not readable at offset {at}: {why}") from error

    def _charge(self, count: int) -> None:
        self._left -= count
        if self._left < 0:
            raise NotReadable(f"more than {MAX_PARSED} bytes of its JSON tell of inputs and outputs")
