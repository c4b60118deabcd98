"""A document as YAML: blocks of keys, whose scalars are written as JSON, which every YAML reader takes for the same."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_WORDS = {"true", "false", "yes", "no", "on", "off", "y", "n", "null"}
"""Keys that some readers take for something else than text."""


def yaml_text(document: Mapping[str, Any]) -> str:
    """The text; it holds what JSON can hold."""
    return "".join(f"{line}\n" for line in _mapping(document, ""))


def _mapping(document: Mapping[str, Any], indent: str) -> Iterator[str]:
    for key, value in document.items():
        plain = _PLAIN.fullmatch(key) is not None and key.lower() not in _WORDS
        name = f"{indent}{key if plain else _text(key)}:"
        if isinstance(value, Mapping) and value:
            yield name
            yield from _mapping(value, indent + "  ")
        elif _is_list(value) and any(isinstance(item, Mapping) or _is_list(item) for item in value):
            yield name
            yield from _items(value, indent)
        else:
            yield f"{name} {_inline(value)}"


def _items(values: Sequence[Any], indent: str) -> Iterator[str]:
    for value in values:
        if isinstance(value, Mapping) and value:
            first, *rest = _mapping(value, indent + "  ")
            yield f"{indent}- {first.lstrip(' ')}"
            yield from rest
        else:
            yield f"{indent}- {_inline(value)}"


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _inline(value: Any) -> str:
    """A value on one line."""
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{_text(key)}: {_inline(inner)}' for key, inner in value.items())}}}"
    if _is_list(value):
        return f"[{', '.join(map(_inline, value))}]"
    return json.dumps(value)


def _text(text: str) -> str:
    """In double quotes; what cannot be printed is spelled out, for terminals and for YAML, which forbids it."""
    quoted = json.dumps(text, ensure_ascii=False)
    return "".join(
        char if char.isprintable() else f"\\u{ord(char):04x}" if ord(char) < 1 << 16 else f"\\U{ord(char):08x}"
        for char in quoted
    )
