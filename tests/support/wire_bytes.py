"""Bytes of the wire format of protocol buffers by hand, from its specification."""

from __future__ import annotations


def varint(value: int) -> bytes:
    """A number; a negative one as its 64 bits."""
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def block(number: int, content: bytes | str) -> bytes:
    """A field of bytes, text or a message."""
    raw = content.encode() if isinstance(content, str) else content
    return varint(number << 3 | 2) + varint(len(raw)) + raw
