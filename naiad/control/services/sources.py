"""Where a service's files come from: folders named at start, and uploads that are checked before they are seen."""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Sequence
from pathlib import Path

from naiad.control.paths import under_folder, under_roots
from naiad.control.problems import NoSuchResource, Rejected, TooLarge
from naiad.control.services.schema import ModelField

_UPLOAD = re.compile(r"[0-9a-f]{32}", re.ASCII)
_SPARE_BYTES = 256 << 20


class Sources:
    """The allowed roots and the uploads of one state folder."""

    def __init__(self, *, roots: Sequence[Path], uploads: Path, most_bytes: int) -> None:
        self._roots = tuple(root.resolve() for root in roots)
        self._uploads = uploads
        self._most_bytes = most_bytes
        uploads.mkdir(parents=True, exist_ok=True, mode=0o700)

    def locate(self, model: ModelField) -> Path:
        """The existing file or folder that a service's `model` names; refuses what lies elsewhere."""
        if model.upload is None:
            return under_roots(model.path, self._roots, field="model.path")
        folder = self._folder(model.upload)
        path = under_folder(model.path, folder, field="model.path") if model.path != "." else folder
        if not path.exists():
            raise Rejected.field("model.path", f"the upload holds no '{model.path[:200]}'", code="PATH_NOT_FOUND")
        return path

    def begin(self) -> str:
        """A new, empty upload."""
        identifier = secrets.token_hex(16)
        (self._uploads / identifier).mkdir(mode=0o700)
        return identifier

    def receive(self, upload: str, name: str, *, declared: int | None) -> Incoming:
        """Takes one file of an upload; it appears under its name when all of it is there."""
        target = under_folder(name, self._folder(upload), field="path")
        if target.exists():
            raise Rejected.field("path", f"the upload holds '{name}' already", code="ALREADY_EXISTS")
        room = shutil.disk_usage(self._uploads).free - _SPARE_BYTES
        limit = min(self._most_bytes, max(room, 0))
        if declared is not None and declared > limit:
            raise TooLarge(f"the file has {declared} bytes; {limit} are accepted (limit and free disk space)")
        return Incoming(target, limit=limit, declared=declared)

    def discard(self, upload: str) -> None:
        """Removes an upload."""
        shutil.rmtree(self._folder(upload))

    def consumed(self, model: ModelField) -> None:
        """Removes the upload that a service was made from; its files live on in the model directory."""
        if model.upload is not None:
            shutil.rmtree(self._uploads / model.upload, ignore_errors=True)

    def sweep(self, wanted: set[str]) -> None:
        """Removes the uploads that no service waits for."""
        for child in self._uploads.iterdir():
            if child.name not in wanted:
                shutil.rmtree(child, ignore_errors=True)

    def _folder(self, upload: str) -> Path:
        folder = self._uploads / upload
        if not _UPLOAD.fullmatch(upload) or not folder.is_dir():
            raise NoSuchResource(f"there is no upload '{upload[:40]}'")
        return folder


class Incoming:
    """A file that is being received: written beside its place, moved there when complete (G3)."""

    def __init__(self, target: Path, *, limit: int, declared: int | None) -> None:
        self._target = target
        self._limit = limit
        self._declared = declared
        self._size = 0
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._part = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
        self._stream = os.fdopen(os.open(self._part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")

    def write(self, block: bytes) -> None:
        """Appends; refuses more than is accepted."""
        self._size += len(block)
        if self._size > self._limit:
            raise TooLarge(f"more than {self._limit} bytes came; no more are accepted (limit and free disk space)")
        self._stream.write(block)

    def finish(self) -> int:
        """Puts the complete file in its place and answers its size."""
        if self._declared is not None and self._size != self._declared:
            raise Rejected.field("body", f"expected {self._declared} bytes, got {self._size}", code="SIZE_MISMATCH")
        self._stream.flush()
        os.fsync(self._stream.fileno())
        self._stream.close()
        os.link(self._part, self._target)
        os.unlink(self._part)
        return self._size

    def abandon(self) -> None:
        """Leaves nothing of a file that did not arrive whole."""
        self._stream.close()
        self._part.unlink(missing_ok=True)
