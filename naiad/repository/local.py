"""What poll mode compares: the files of a model directory with their times and sizes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

Snapshot = Mapping[str, tuple[int, ...]]
MAX_FILES = 10_000


def snapshot(directory: Path) -> Snapshot:
    """(mtime in ns, size, inode) of each file and folder by relative path; what vanishes meanwhile is left out.

    Links are followed, for repositories are often made of them.
    """
    seen: dict[str, tuple[int, ...]] = {}
    walked: set[tuple[int, int]] = set()
    for folder, folders, files in os.walk(directory, followlinks=True):
        if len(seen) >= MAX_FILES:
            break
        place = _stat(folder)
        if place is None or (place.st_dev, place.st_ino) in walked:
            folders.clear()  # a link in a circle
            continue
        walked.add((place.st_dev, place.st_ino))
        # Python's cache is written by loading itself; the order matters where MAX_FILES cuts off.
        folders[:] = sorted(name for name in folders if name != "__pycache__")
        relative = os.path.relpath(folder, directory)
        seen[relative] = (place.st_ino,)
        for file in files:
            status = _stat(os.path.join(folder, file))
            if status is not None:
                seen[os.path.normpath(os.path.join(relative, file))] = (
                    status.st_mtime_ns,
                    status.st_size,
                    status.st_ino,
                )
    return seen


def _stat(path: str) -> os.stat_result | None:
    try:
        return os.stat(path)
    except OSError:
        return None
