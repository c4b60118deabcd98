"""Copies a model's files into the state: by reflink, by hard link where the source never changes, else byte by byte."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from blake3 import blake3

from naiad.control.diagnosis import Broken

_FICLONE = 0x40049409
_MOST_FILES = 10_000
_BLOCK = 1 << 20

Copy = tuple[Path, Path]


def files_of(folder: Path, target: Path) -> list[Copy]:
    """What to copy of a folder: plain files only; a link that leaves the folder is refused (C5)."""
    copies: list[Copy] = []
    for source in _walk(folder, folder.resolve()):
        copies.append((source, target / source.relative_to(folder)))
        if len(copies) > _MOST_FILES:
            raise Broken(
                "PATH_REFUSED", f"'{folder.name}' holds more than {_MOST_FILES} files; name the model's folder"
            )
    return copies


def _walk(folder: Path, root: Path) -> Iterator[Path]:
    for child in sorted(folder.iterdir()):
        if not child.resolve().is_relative_to(root):
            raise Broken(
                "PATH_REFUSED", f"'{child.name}' is a link that leaves '{root.name}'; put the file itself there"
            )
        if child.is_symlink() and child.is_dir():
            raise Broken("PATH_REFUSED", f"'{child.name}' is a link to a folder; put the folder itself there")
        if child.is_dir():
            yield from _walk(child, root)
        elif child.is_file():
            yield child


def all_of(copies: Sequence[Copy], *, hard_link: bool) -> str:
    """Copies every file and answers the BLAKE3 digest over names and contents."""
    total = blake3()
    for source, target in copies:
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        _one(source, target, hard_link=hard_link)
        content = blake3(max_threads=1)
        with target.open("rb") as stream:
            while block := stream.read(_BLOCK):
                content.update(block)
        total.update(f"{target.name}\0{content.hexdigest()}\n".encode())
    return total.hexdigest()


def _one(source: Path, target: Path, *, hard_link: bool) -> None:
    if hard_link:
        try:
            os.link(source, target)
            return
        except OSError:
            pass  # another file system, or links are not allowed: copy
    with source.open("rb") as reader, target.open("xb") as writer:
        os.fchmod(writer.fileno(), 0o600)
        if not _reflink(reader.fileno(), writer.fileno()):
            while block := reader.read(_BLOCK):
                writer.write(block)
        writer.flush()
        os.fsync(writer.fileno())


def _reflink(source: int, target: int) -> bool:
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError:
        return False
    return True


def sync_tree(folder: Path) -> None:
    """Brings a small tree's folders and files to the disk."""
    for where, _, names in os.walk(folder):
        for name in names:
            with (Path(where) / name).open("rb") as stream:
                os.fsync(stream.fileno())
        sync_folder(Path(where))


def sync_folder(folder: Path) -> None:
    """Brings a folder's names to the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
