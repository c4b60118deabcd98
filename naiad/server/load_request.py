"""What is to be loaded, and the LOAD message that says so to a worker."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from naiad.backends.base import Backend
from naiad.config.json_form import to_dict
from naiad.config.pbtxt import PartialConfig
from naiad.server import devices

Place = tuple[Backend, Path, str]
"""The backend of a version, its folder, and the model file in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadRequest:
    """Which version to load from where."""

    model: str
    version: int
    directory: Path
    partial: PartialConfig


def load_message(request: LoadRequest, place: Place, *, threads: int) -> dict[str, Any]:
    """The fields of LOAD for the first instance of (backend, version folder, file)."""
    backend, folder, file = place
    message = request.partial.message
    return {
        "model": request.model,
        "version": request.version,
        "instance": 0,
        "backend": backend.name,
        "model_directory": str(request.directory),
        "version_directory": str(folder),
        "file": file,
        "config": to_dict(message),
        "signature": None,
        "device": devices.first(message),
        "threads": threads,
        "settings": {},
    }
