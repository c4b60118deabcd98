"""Environments that come as an archive: extracted once by content, reused by every model and every later start.

What no worker uses is removed a while after its last use, when another archive is extracted, so that a model whose
archive changes with each release does not fill the disk; and at once where the disk is full.
"""

from __future__ import annotations

import errno
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blake3 import blake3

from naiad.environments import archive
from naiad.environments.errors import BadArchive, EnvironmentBusy, NoSuchEnvironment
from naiad.environments.leases import Lease
from naiad.environments.shelf import Shelf

KEPT_SECONDS = 7 * 86_400.0
_BLOCK = 1 << 20
_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Extracted:
    """An archive that was extracted."""

    digest: str
    archive: str
    """The file's name when it was extracted."""
    last_used: float
    """Seconds of the system's clock."""
    used: bool
    """Whether a server holds it."""


class Archives:
    """Extracted archives below one folder, each under the digest of its bytes."""

    def __init__(self, root: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._shelf = Shelf(root)
        self._clock = clock
        self._digests: dict[tuple[str, int, int, int], str] = {}
        self._guard = threading.Lock()

    def extracted(self, path: Path, finish: Callable[[Path], None]) -> tuple[Path, Lease]:
        """The environment of an archive, held until the lease is dropped; `finish` completes a fresh one.

        Raises `BadArchive` or `OSError`.
        """
        stamp = _stamp(path)
        digest = self._digest(path, stamp)

        def make(folder: Path) -> Mapping[str, Any]:
            archive.extract(path, folder)
            if _stamp(path) != stamp:
                shutil.rmtree(folder, ignore_errors=True)
                raise BadArchive("the archive changed while it was read")
            finish(root_of(folder))
            return {"archive": path.name}

        try:
            lease, made = self._shelf.have(digest, make)
        except OSError as error:
            if error.errno not in _FULL or not self.collect(older_than=0.0):
                raise
            lease, made = self._shelf.have(digest, make)
        if made:
            self.collect(older_than=KEPT_SECONDS)
        return root_of(self._shelf.root / digest), lease

    def all(self) -> list[Extracted]:
        """Those that are there."""
        return [
            Extracted(
                digest=key,
                archive=str(self._shelf.made_of(key).get("archive", "")),
                last_used=self._shelf.last_used(key),
                used=self._shelf.is_used(key),
            )
            for key in self._shelf.keys()
        ]

    def find(self, beginning: str) -> Extracted:
        """The one whose digest begins so; raises `NoSuchEnvironment`."""
        found = [extracted for extracted in self.all() if beginning and extracted.digest.startswith(beginning)]
        if len(found) != 1:
            text = f"expected the digest of one extracted archive, '{beginning[:64]}' begins {len(found)} of them"
            raise NoSuchEnvironment(text)
        return found[0]

    def collect(self, *, older_than: float) -> list[str]:
        """Removes those that nobody uses or has used for so many seconds, and what is half done; their digests."""
        self._shelf.sweep()
        begin = self._clock() - older_than
        old = [key for key in self._shelf.keys() if self._shelf.last_used(key) <= begin]
        gone = [key for key in old if self._shelf.drop(key)]
        for key in set(old).difference(gone):
            self._shelf.touch(key)  # it is in use now, so its time begins again
        return gone

    def remove(self, beginning: str) -> None:
        """Removes the one whose digest begins so; raises `NoSuchEnvironment`, or `EnvironmentBusy` if it is in use."""
        digest = self.find(beginning).digest
        if not self._shelf.drop(digest):
            text = f"the environment of archive '{digest[:12]}' is in use by a running server; unload its models first"
            raise EnvironmentBusy(text)

    def _digest(self, path: Path, stamp: tuple[str, int, int, int]) -> str:
        """BLAKE3 of the file, kept for as long as it looks the same."""
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


def _stamp(path: Path) -> tuple[str, int, int, int]:
    found = path.stat()
    return (str(path), found.st_size, found.st_mtime_ns, found.st_ino)


def root_of(folder: Path) -> Path:
    """The environment itself: the folder, or the only folder in it."""
    if (folder / "bin").is_dir():
        return folder
    inside = [child for child in folder.iterdir() if child.is_dir() and not child.is_symlink()]
    return inside[0] if len(inside) == 1 and (inside[0] / "bin").is_dir() else folder
