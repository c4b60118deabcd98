"""Folders named by what they are made of: there whole or not at all, held while in use, dropped when nobody does.

Beside each folder lie `KEY.json` (it is whole), `KEY.making` (locked by who makes or drops it) and `KEY.use` (locked by
who uses it; its time is that of the last use).
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from naiad.environments.errors import Stopped
from naiad.environments.leases import Lease, exclusive

_SCRATCH, _GRAVE = ".part", ".removed"


class Shelf:
    """The folders below one root; safe to be used by several processes."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def keys(self) -> list[str]:
        """Those that are whole."""
        with contextlib.suppress(OSError):
            return sorted(path.stem for path in self.root.glob("*.json") if self.is_whole(path.stem))
        return []

    def is_whole(self, key: str) -> bool:
        """Whether it is there."""
        return (self.root / f"{key}.json").is_file() and (self.root / key).is_dir()

    def made_of(self, key: str) -> dict[str, Any]:
        """What was said of it when it was made."""
        return read_json(self.root / f"{key}.json") or {}

    def hold(self, key: str) -> Lease | None:
        """Keeps it from being dropped; None if it is not there. Needs no right to write."""
        use = self.root / f"{key}.use"
        try:
            lease = Lease(use)
        except FileNotFoundError:
            return None
        if not self.is_whole(key):
            return None
        self.touch(key)
        return lease

    def touch(self, key: str) -> None:
        """Counts as a use; what may only be read keeps its time."""
        with contextlib.suppress(OSError):
            os.utime(self.root / f"{key}.use")

    def have(
        self, key: str, make: Callable[[Path], Mapping[str, Any]], *, give_up: Callable[[], bool] = lambda: False
    ) -> tuple[Lease, bool]:
        """Holds it, made now unless it is there; whether it was made. `make` makes the folder and says of what.

        While another makes it, `give_up` is asked again and again whether to wait no longer; then raises `Stopped`.
        """
        lease = self.hold(key)
        if lease is not None:
            return lease, False
        self.root.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.root.mkdir(exist_ok=True, mode=0o700)
        making = self.root / f"{key}.making"
        with exclusive(making, wait_seconds=math.inf, stopped=give_up) as alone:
            if not alone:
                raise Stopped("another process makes it, and nobody waits for that any more")
            made = not self.is_whole(key)
            if made:
                self._make(key, make)
            use = self.root / f"{key}.use"
            use.touch()
            use.chmod(0o644)  # a server that may only read holds it, too
            lease = self.hold(key)
        if lease is None:
            raise RuntimeError(f"'{key}' was made and is not there")
        return lease, made

    def _make(self, key: str, make: Callable[[Path], Mapping[str, Any]]) -> None:
        shutil.rmtree(self._buried(key), ignore_errors=True)
        try:
            write_json(self.root / f"{key}.json", make(self.root / key))
        except BaseException:  # of it nothing stays, not even on a disk without room for the mark
            shutil.rmtree(self._buried(key), ignore_errors=True)
            raise

    def is_used(self, key: str) -> bool:
        """Whether somebody holds it; needs no right to write."""
        try:
            with Lease(self.root / f"{key}.use", alone=True):
                return False
        except BlockingIOError:
            return True
        except OSError:
            return False

    def last_used(self, key: str) -> float:
        """When somebody last began to use it, in seconds of the system's clock."""
        try:
            return (self.root / f"{key}.use").stat().st_mtime
        except OSError:
            return 0.0

    def drop(self, key: str, *, unless: Callable[[], bool] = lambda: False) -> bool:
        """Removes it; False if somebody makes or uses it, or `unless` holds once nobody can begin to."""
        with self._alone(key) as alone:
            if not alone or unless():
                return False
            (self.root / f"{key}.json").unlink(missing_ok=True)
            grave = self._buried(key)
        shutil.rmtree(grave, ignore_errors=True)  # which may take long: nobody waits for the lock meanwhile
        return True

    def sweep(self) -> None:
        """Removes what a process that was killed had begun to make or to remove."""
        for path in self.root.glob(f"*{_GRAVE}"):
            shutil.rmtree(path, ignore_errors=True)
        for path in self.root.glob("*/"):
            key = path.name.removesuffix(_SCRATCH)
            if path.name == key and self.is_whole(key):
                continue
            with self._alone(key) as alone:
                if alone and (path.name != key or not self.is_whole(key)):
                    shutil.rmtree(path, ignore_errors=True)

    def _buried(self, key: str) -> Path:
        """Takes the folder out of its place; where it is now."""
        grave = self.root / f"{key}.{secrets.token_hex(4)}{_GRAVE}"
        with contextlib.suppress(FileNotFoundError):
            (self.root / key).rename(grave)
        return grave

    @contextlib.contextmanager
    def _alone(self, key: str) -> Iterator[bool]:
        making, use = (self.root / f"{key}.{kind}" for kind in ("making", "use"))
        with exclusive(making, wait_seconds=0) as nobody_makes, exclusive(use, wait_seconds=0) as nobody_uses:
            yield nobody_makes and nobody_uses


def read_json(path: Path) -> dict[str, Any] | None:
    """The JSON object in a file; None if there is none."""
    try:
        document = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return document if isinstance(document, dict) else None


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Replaces a file in one step."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        part.write_text(json.dumps(document, indent=2) + "\n", "utf-8")
        os.replace(part, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink()
        raise OSError(error.errno, error.strerror, str(path)) from error  # a full disk names no file by itself
