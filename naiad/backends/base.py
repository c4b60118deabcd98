"""What the server knows of a backend."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """The server half of a backend; the worker half has the same file name."""

    name: str
    platforms: tuple[str, ...]
    default_filename: str
    """"" where the backend needs no file."""
    reads_signature: bool
    """Whether `signature` can say something about its files."""
    max_batch_size: int = 32
    """What Naiad chooses where nothing says."""
