"""Model directories made from the `file:` content of load calls (W68): bounded, private, gone when unused."""

from __future__ import annotations

import base64
import binascii
import shutil
import tempfile
import threading
from collections import defaultdict
from collections.abc import Collection, Mapping
from pathlib import Path

from naiad.errors import ConfigError
from naiad.repository.paths import below, shown

MAX_FILES = 1_000
MAX_BYTES = 2 << 30
"""As much as a gRPC message can carry."""
MAX_DEPTH = 16


class Overrides:
    """The directories that stand in for a model's own; safe to be called from several threads."""

    def __init__(self, *, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._parents: defaultdict[str, set[Path]] = defaultdict(set)
        self._lock = threading.Lock()

    def write(self, name: str, files: Mapping[str, str]) -> Path:
        """A fresh model directory with these files (path → base64); raises `ConfigError` or `OSError`.

        No path leaves it: nothing is written before every path was checked (C1).
        """
        self._check(files)
        parent = Path(tempfile.mkdtemp(prefix="naiad-"))  # readable by this user only
        with self._lock:
            self._parents[name].add(parent)
        root = parent / name
        root.mkdir()
        for relative, content in files.items():
            path = below(root, relative)
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(base64.b64decode(content, validate=True))
            except binascii.Error as error:
                raise ConfigError(f"file '{shown(relative)}': expected base64: {error}") from error
            except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
                raise ConfigError(f"file '{shown(relative)}': another file's path names it as a folder") from error
        return root

    def _check(self, files: Mapping[str, str]) -> None:
        if len(files) > MAX_FILES:
            raise ConfigError(f"expected at most {MAX_FILES} files, got {len(files)}")
        size = sum(len(content) // 4 * 3 for content in files.values())
        if size > self._max_bytes:
            raise ConfigError(f"expected at most {self._max_bytes} bytes in all files, got {size}")
        nowhere = Path("/nonexistent")
        seen: dict[Path, str] = {}
        for relative in files:
            path = below(nowhere, relative)
            if len(path.parts) - len(nowhere.parts) > MAX_DEPTH:
                raise ConfigError(f"file '{shown(relative)}': expected at most {MAX_DEPTH} folders deep")
            if path in seen:
                raise ConfigError(f"file '{shown(relative)}': it is the same file as '{shown(seen[path])}'")
            seen[path] = relative

    def sweep(self, name: str, *, used: Collection[Path]) -> None:
        """Removes the model's directories but those in use.

        Those of a version that serves stay, for a worker that is started again reads its files anew.
        """
        with self._lock:
            unused = [parent for parent in self._parents.get(name, ()) if parent / name not in used]
            self._parents[name].difference_update(unused)
            if not self._parents[name]:
                del self._parents[name]
        for parent in unused:
            shutil.rmtree(parent, ignore_errors=True)

    def clean(self) -> None:
        """Removes every directory: the server ends."""
        with self._lock:
            parents = [parent for parents in self._parents.values() for parent in parents]
            self._parents.clear()
        for parent in parents:
            shutil.rmtree(parent, ignore_errors=True)
