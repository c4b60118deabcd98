"""The text of a `model.py`, and whether its syntax tree is small enough to be made here."""

from __future__ import annotations

from pathlib import Path

MAX_BYTES = 16 << 20
"""A file that is longer is no model."""
MAX_PARSED = 128 << 10
MAX_TOKENS = 12_000
"""A longer file is left to the worker that imports it: a syntax tree takes hundreds of times as much as its text."""
_MARKS = b",;=()[]{}+-*/%<>&|^~!@:.\n"
_FIELD = 15
"""Tokens that an opening brace counts for: in a text with fields each is a source of its own."""


def read(path: Path) -> bytes | None:
    """The text; None where it is too long or too dense to be parsed here. Raises `OSError`."""
    with path.open("rb") as file:
        text = file.read(MAX_PARSED + 1)
    return text if len(text) <= MAX_PARSED and _tokens(text) <= MAX_TOKENS else None


def _tokens(text: bytes) -> int:
    """About as many as Python makes of it."""
    marks = len(text) - len(text.translate(None, _MARKS))
    return marks + len(text.split()) + _FIELD * text.count(b"{")
