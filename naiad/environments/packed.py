"""Environments that come as an archive: extracted once by content, reused by every model and every later start."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

from blake3 import blake3

from naiad.environments import archive
from naiad.environments.leases import exclusive

_BLOCK = 1 << 20


class Archives:
    """Extracted archives below one folder, each under the digest of its bytes."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._digests: dict[tuple[str, int, int, int], str] = {}
        self._guard = threading.Lock()

    def extracted(self, path: Path, finish: Callable[[Path], None]) -> Path:
        """The environment of an archive; `finish` completes a fresh one. Raises `BadArchive` or `OSError`."""
        digest = self._digest(path)
        folder, mark = self._root / digest, self._root / f"{digest}.json"
        self._root.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
        with exclusive(self._root / f"{digest}.making", wait_seconds=None):
            if not (mark.is_file() and folder.is_dir()):
                shutil.rmtree(folder, ignore_errors=True)
                archive.extract(path, folder)
                finish(root_of(folder))
                mark.write_text(json.dumps({"archive": path.name}) + "\n", "utf-8")
        return root_of(folder)

    def _digest(self, path: Path) -> str:
        """BLAKE3 of the file, kept for as long as it looks the same."""
        found = path.stat()
        stamp = (str(path), found.st_size, found.st_mtime_ns, found.st_ino)
        with self._guard:
            known = self._digests.get(stamp)
        if known is None:
            hasher = blake3()
            with path.open("rb") as stream:
                while block := stream.read(_BLOCK):
                    hasher.update(block)
            known = hasher.hexdigest()[:32]
            with self._guard:
                self._digests[stamp] = known
        return known


def root_of(folder: Path) -> Path:
    """The environment itself: the folder, or the only folder in it."""
    if (folder / "bin").is_dir():
        return folder
    inside = [child for child in folder.iterdir() if child.is_dir() and not child.is_symlink()]
    return inside[0] if len(inside) == 1 and (inside[0] / "bin").is_dir() else folder
