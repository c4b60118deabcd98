"""The model file of a version folder."""

from __future__ import annotations

import os
from pathlib import Path

from naiad.errors import ConfigError
from naiad.repository.paths import below


def model_file(folder: Path, file: str) -> Path:
    """The path of `file` in a version folder; raises `ConfigError` naming what the folder holds instead (C2)."""
    path = below(folder, file)
    if not os.path.exists(path):  # unlike Path.exists, no name raises
        there = sorted(entry.name for entry in folder.iterdir())
        fix = f"rename it to '{file}', or write default_model_filename: \"{there[0]}\"" if len(there) == 1 else ""
        raise ConfigError(
            f"'{folder.name}/{file}' does not exist; the folder holds {', '.join(there[:5]) or 'nothing'} "
            f"(PATH_NOT_FOUND){'; ' if fix else ''}{fix}"
        )
    if not path.is_file() and not path.is_dir():
        raise ConfigError(f"'{folder.name}/{file}' is a pipe or a device, expected a file (FILE_UNREADABLE)")
    return path
