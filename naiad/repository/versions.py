"""Which version folders a model has, and which of them the version policy serves."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

MAX_VERSION = (1 << 63) - 1
_VERSION = re.compile(r"[1-9][0-9]*", re.ASCII)


def numbered(directory: Path) -> tuple[list[int], list[str]]:
    """(version numbers ascending, folders that look like versions but are none)."""
    versions, ignored = [], []
    for entry in directory.iterdir():
        if not entry.is_dir() or entry.name in ("configs", "warmup", "initial_state", "__pycache__"):
            continue
        if _VERSION.fullmatch(entry.name) and int(entry.name) <= MAX_VERSION:
            versions.append(int(entry.name))
        elif not entry.name.startswith("."):
            ignored.append(entry.name)
    return sorted(versions), sorted(ignored)


def chosen(policy: Any, available: list[int]) -> list[int]:
    """The versions that a `version_policy` message serves, ascending."""
    if policy.HasField("all"):
        return available
    if policy.HasField("specific"):
        return [version for version in available if version in set(policy.specific.versions)]
    count = policy.latest.num_versions or 1
    return available[-count:]
