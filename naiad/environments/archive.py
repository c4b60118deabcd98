"""The one extractor of archives: checks every member and link, counts files and bytes, writes all or nothing (C4)."""

from __future__ import annotations

import bz2
import errno
import gzip
import os
import posixpath
import shutil
import stat
import tarfile
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from naiad.environments.errors import BadArchive

_UNREADABLE = (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError)
_OF_THE_ARCHIVE = {errno.EEXIST, errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL}
_OTHERS = {b"\xfd7zXZ\0": "xz", b"\x28\xb5\x2f\xfd": "zstd", b"hsqs": "squashfs", b"7z\xbc\xaf": "7z"}
"""What conda-pack and others make beside those that are read; xz may ask for gigabytes to be opened."""
_BLOCK = 1 << 20
_MOST_READ = 4 << 20
_MOST_DEPTH = 64
_MOST_NAME = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What an archive may become on the disk."""

    files: int = 500_000
    size: int = 64 << 30
    """Bytes of all its files."""
    ratio: int = 200
    """Bytes on the disk for one of the archive, beyond `free` bytes."""
    free: int = 256 << 20


def extract(archive: Path, destination: Path, limits: Limits | None = None) -> None:
    """Extracts a tar (plain, gzip, bzip2) or zip so that `destination` is there whole or not at all.

    Raises `BadArchive` for anything but files, folders and links that stay inside, and beyond the limits.
    """
    scratch = destination.with_name(f"{destination.name}.part")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(mode=0o700, parents=True)
    writer = _Writer(scratch, limits or Limits(), archive.stat().st_size)
    try:
        if zipfile.is_zipfile(archive):
            _zip(archive, writer)
        else:
            _tar(archive, writer)
        writer.finish()
        scratch.rename(destination)
    except _UNREADABLE as error:
        raise BadArchive(f"the archive cannot be read: {error}") from error
    except OSError as error:
        if error.errno is None or error.errno in _OF_THE_ARCHIVE:
            raise BadArchive(f"the archive cannot be read: {error.strerror or error}") from error
        raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


class _Writer:
    """Writes checked members below a folder."""

    def __init__(self, root: Path, limits: Limits, packed: int) -> None:
        self.root = root
        self._limits = limits
        self._left = min(limits.size, limits.free + packed * limits.ratio)
        self._count = 0
        self._links: set[str] = set()
        self._files: set[str] = set()

    def place(self, name: str) -> tuple[str, Path]:
        """The clean name of a member and its path; raises `BadArchive`."""
        self._count += 1
        if self._count > self._limits.files:
            raise BadArchive(f"expected at most {self._limits.files} members")
        clean = _clean(name)
        for parent in _parents(clean):
            if parent in self._links:
                raise BadArchive(f"member {_shown(name)} would be written through the link {_shown(parent)}")
            if parent in self._files:
                raise BadArchive(f"member {_shown(name)} lies below a file")
        if clean in self._links or clean in self._files:
            raise BadArchive(f"member {_shown(name)} is there twice")
        return clean, self.root / clean

    def folder(self, name: str) -> None:
        """Makes a folder."""
        clean = _clean(name)
        if clean != ".":
            _, path = self.place(name)
            path.mkdir(parents=True, exist_ok=True, mode=0o755)

    def file(self, name: str, content: IO[bytes], *, size: int, mode: int) -> None:
        """Writes a file, no more of it than the archive may bring."""
        self._room(name, size)
        clean, path = self.place(name)
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(path, flags, 0o755 if mode & 0o111 else 0o644)
        written = 0
        with os.fdopen(descriptor, "wb") as stream:
            while block := content.read(_BLOCK):
                written += len(block)
                self._room(name, written)
                stream.write(block)
        self._left -= written
        self._files.add(clean)

    def symlink(self, name: str, target: str) -> None:
        """Makes a link to something inside."""
        clean, path = self.place(name)
        if not target or target.startswith("/") or "\\" in target or "\0" in target:
            raise BadArchive(f"the link {_shown(name)} leads to {_shown(target)}; expected a path inside the archive")
        reached = posixpath.normpath(posixpath.join(posixpath.dirname(clean), target))
        if reached == ".." or reached.startswith("../"):
            raise BadArchive(f"the link {_shown(name)} leads out, to {_shown(target)}")
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
        path.symlink_to(target)
        self._links.add(clean)

    def hard_link(self, name: str, target: str) -> None:
        """Makes a hard link to a file that was written before."""
        clean, path = self.place(name)
        reached = _clean(target)
        if reached not in self._files:
            raise BadArchive(f"the hard link {_shown(name)} names {_shown(target)}, no file of the archive before it")
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
        os.link(self.root / reached, path, follow_symlinks=False)
        self._files.add(clean)

    def finish(self) -> None:
        """Refuses links that lead out once all of them are there: one may turn where another goes."""
        root = self.root.resolve()
        for link in self._links:
            if not (self.root / link).resolve().is_relative_to(root):
                raise BadArchive(f"the link {_shown(link)} leads out through another link")

    def _room(self, name: str, size: int) -> None:
        if size > self._left:
            raise BadArchive(f"member {_shown(name)}: the archive opens to more than it may, {self._limits.size} bytes")


class _Bounded:
    """A decompressed stream from which nobody takes much at once: a header may claim to be gigabytes long."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream

    def read(self, size: int = -1) -> bytes:
        """At most a few MiB."""
        if not 0 <= size <= _MOST_READ:
            raise BadArchive(f"a header of the archive is {size} bytes long")
        return self._stream.read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        """As of a file."""
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        """As of a file."""
        return self._stream.tell()


def _opened(archive: Path) -> IO[bytes]:
    with archive.open("rb") as stream:
        magic = stream.read(6)
    for begin, kind in _OTHERS.items():
        if magic.startswith(begin):
            raise BadArchive(f"the archive is packed by {kind}; expected tar, gzip, bzip2 or zip")
    if magic[:2] == b"\x1f\x8b":
        return cast(IO[bytes], gzip.open(archive, "rb"))
    return cast(IO[bytes], bz2.open(archive, "rb")) if magic[:3] == b"BZh" else archive.open("rb")


def _tar(archive: Path, writer: _Writer) -> None:
    with _opened(archive) as stream, tarfile.open(fileobj=cast(IO[bytes], _Bounded(stream)), mode="r:") as opened:
        for member in opened:
            opened.members = []  # type: ignore[attr-defined]  # else every header stays in memory
            _tar_member(opened, member, writer)


def _tar_member(opened: tarfile.TarFile, member: tarfile.TarInfo, writer: _Writer) -> None:
    if member.isdir():
        writer.folder(member.name)
    elif member.issym():
        writer.symlink(member.name, member.linkname)
    elif member.islnk():
        writer.hard_link(member.name, member.linkname)
    elif member.isreg() and not member.issparse():
        _clean(member.name)
        try:
            if hasattr(tarfile, "data_filter"):  # Python's own opinion, where this Python has one
                tarfile.data_filter(member, str(writer.root))
        except tarfile.TarError as error:  # its words say where on this machine
            raise BadArchive(f"member {_shown(member.name)}: {type(error).__name__}") from error
        content = opened.extractfile(member)
        if content is None:
            raise BadArchive(f"member {_shown(member.name)} has no content")
        writer.file(member.name, content, size=member.size, mode=member.mode)
    else:
        raise BadArchive(f"member {_shown(member.name)} is no file, folder or link")


def _zip(archive: Path, writer: _Writer) -> None:
    with zipfile.ZipFile(archive) as opened:
        for member in opened.infolist():
            mode = member.external_attr >> 16
            kind = stat.S_IFMT(mode)
            if member.is_dir():
                writer.folder(member.filename)
            elif kind == stat.S_IFLNK:
                if member.file_size > _MOST_NAME:
                    raise BadArchive(f"the link {_shown(member.filename)} is too long")
                writer.symlink(member.filename, opened.read(member).decode("utf-8"))
            elif kind in (0, stat.S_IFREG):
                with opened.open(member) as content:
                    writer.file(member.filename, content, size=member.file_size, mode=mode)
            else:
                raise BadArchive(f"member {_shown(member.filename)} is no file, folder or link")


def _clean(name: str) -> str:
    """A member's name without '.' parts; raises `BadArchive` where it leads out."""
    if not name or len(name) > _MOST_NAME or name.startswith("/") or "\\" in name or "\0" in name:
        raise BadArchive(f"member {_shown(name)}: expected a path inside the archive")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts or len(parts) > _MOST_DEPTH or (parts and ":" in parts[0] and len(parts[0]) == 2):
        raise BadArchive(f"member {_shown(name)}: expected a path inside the archive")
    return "/".join(parts) or "."


def _parents(clean: str) -> list[str]:
    parts = clean.split("/")
    return ["/".join(parts[:end]) for end in range(1, len(parts))]


def _shown(name: str) -> str:
    return ascii(name[:120])
