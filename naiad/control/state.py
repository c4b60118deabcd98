"""The state folder: what lies where, who holds it, and the addresses that are kept over a restart."""

from __future__ import annotations

import fcntl
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from naiad import settings
from naiad.errors import NaiadError


class StateBusy(NaiadError):
    """Another `naiad up` holds the state folder."""

    def __init__(self, folder: Path, pid: int | None) -> None:
        who = f" (process {pid})" if pid else ""
        super().__init__(f"'naiad up' is already running on '{folder}'{who}; stop it with: naiad down --state {folder}")
        self.pid = pid


class StateUnusable(NaiadError):
    """The state folder cannot be made or written."""


def default_state() -> Path:
    """The state folder where none is named: `naiad` in the XDG state home."""
    return settings.read().state_home / "naiad"


@dataclass(frozen=True, slots=True)
class StateFolder:
    """The paths inside one state folder."""

    root: Path

    @property
    def database(self) -> Path:
        """The SQLite file."""
        return self.root / "naiad.db"

    @property
    def models(self) -> Path:
        """The model repository of the server that is driven."""
        return self.root / "models"

    @property
    def scratch(self) -> Path:
        """Model directories while they are made or removed; on the same file system as `models`."""
        return self.root / "snapshots"

    @property
    def uploads(self) -> Path:
        """Files that clients are sending."""
        return self.root / "uploads"

    @property
    def environments(self) -> Path:
        """Named environments and extracted archives; the server that is driven reads them."""
        return self.root / "environments"

    @property
    def keys(self) -> Path:
        """Keys of this machine's own CLI (0600)."""
        return self.root / "keys"

    @property
    def admin_key(self) -> Path:
        """The key that the CLI reads."""
        return self.keys / "admin"

    @property
    def logs(self) -> Path:
        """One file a service, and the server's own."""
        return self.root / "logs"

    @property
    def run(self) -> Path:
        """Addresses and locks of running programs."""
        return self.root / "run"

    @property
    def lock(self) -> Path:
        """Held by `naiad up`."""
        return self.root / "lock"

    def make(self) -> None:
        """Makes the folders, for their owner only (C6); says what keeps them from being made."""
        try:
            needed = (self.models, self.scratch, self.environments, self.uploads, self.keys, self.logs, self.run)
            for folder in (self.root, *needed):
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                if not os.access(folder, os.W_OK | os.X_OK):
                    raise PermissionError(13, "Permission denied")
        except OSError as error:
            raise StateUnusable(
                f"the state folder '{self.root}' cannot be written: {error.strerror}; name another with --state"
            ) from error

    def addresses(self) -> dict[str, Any]:
        """What the last `naiad up` on this folder bound; empty if there was none."""
        try:
            document = json.loads((self.run / "addresses.json").read_text("utf-8"))
        except (OSError, ValueError):
            return {}
        return document if isinstance(document, dict) else {}

    def write_addresses(self, document: dict[str, Any]) -> None:
        """Keeps the bound addresses for clients and for the next start."""
        write_private(self.run / "addresses.json", json.dumps(document) + "\n")


class Lock:
    """The state folder's lock: held while the process lives, released by the kernel when it dies."""

    def __init__(self, state: StateFolder) -> None:
        self._state = state
        self._descriptor: int | None = None

    def take(self) -> None:
        """Takes the lock, or raises `StateBusy` naming the process that holds it."""
        descriptor = os.open(self._state.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = _pid_in(descriptor)
            os.close(descriptor)
            raise StateBusy(self._state.root, pid) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        self._descriptor = descriptor

    def release(self) -> None:
        """Gives the lock back."""
        if self._descriptor is not None:
            os.ftruncate(self._descriptor, 0)
            os.close(self._descriptor)
            self._descriptor = None


def holder(state: StateFolder) -> int | None:
    """The process that holds the state folder; None if nobody does."""
    try:
        descriptor = os.open(state.lock, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return None
    except BlockingIOError:
        return _pid_in(descriptor)
    finally:
        os.close(descriptor)


def write_private(path: Path, text: str) -> None:
    """Writes a file that only its owner reads; a reader sees the old text or the new, never half."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(part, path)


def _pid_in(descriptor: int) -> int | None:
    text = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
    return int(text) if text.isdigit() else None
