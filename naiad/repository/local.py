"""What poll mode compares: the files of a model directory with their times and sizes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

Snapshot = Mapping[str, tuple[int, int]]
MAX_FILES = 10_000


def snapshot(directory: Path) -> Snapshot:
    """(mtime in ns, size) by path relative to the directory; files that vanish meanwhile are left out."""
    seen: dict[str, tuple[int, int]] = {}
    for path in directory.rglob("*"):
        if len(seen) >= MAX_FILES:
            break
        try:
            status = path.stat()
        except OSError:
            continue
        if path.is_file():
            seen[str(path.relative_to(directory))] = (status.st_mtime_ns, status.st_size)
    return seen
