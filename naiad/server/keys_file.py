"""Reads `--keys-file` into an access snapshot, and again whenever the file changes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from naiad.errors import ConfigError

ROW = {"id", "digest", "scopes", "services", "expires"}


def read(path: Path, *, generation: int) -> dict[str, Any]:
    """The snapshot of a keys file; raises `ConfigError` that names the file and the row."""
    try:
        document = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        text = f"keys file '{path}' does not exist; make a key with: naiad key create --keys-file {path}"
        raise ConfigError(text) from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"keys file '{path}': {error}") from error
    rows = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(rows, list):
        raise ConfigError(f"keys file '{path}': expected an object with a list 'keys'")
    kept = []
    for position, row in enumerate(rows):
        if not isinstance(row, dict) or not {"id", "digest", "scopes"} <= set(row):
            raise ConfigError(f"keys file '{path}': keys[{position}]: expected id, digest and scopes")
        kept.append({name: value for name, value in row.items() if name in ROW})
    return {"generation": generation, "keys": kept}


def stamp(path: Path) -> tuple[int, int, int] | None:
    """What changes when the file does; None while it is absent."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size
