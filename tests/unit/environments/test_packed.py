"""Extracted archives: made once, held by who uses them, collected when nobody does."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

import pytest

from naiad.environments import archive
from naiad.environments.errors import BadArchive, EnvironmentBusy, NoSuchEnvironment
from naiad.environments.packed import KEPT_SECONDS, Archives
from tests.support.environments import wish

WEEK = KEPT_SECONDS + 1


def packed(path: Path, note: str) -> Path:
    with tarfile.open(path, "w:gz") as opened:
        for name, text in {"bin/python": "#!/bin/sh", "note": note}.items():
            member = tarfile.TarInfo(name)
            member.size = len(text)
            opened.addfile(member, io.BytesIO(text.encode()))
    return path


def nothing(_folder: Path) -> None:
    """Nothing is to be completed."""


class Place:
    """A folder of extracted archives whose clock is turned by hand."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = folder / "archives"
        self.ahead = 0.0
        self.archives = Archives(self.root, clock=lambda: os.stat(folder).st_mtime + self.ahead)

    def extract(self, note: str):
        return self.archives.extracted(packed(self.folder / f"{note}.tar.gz", note), nothing)

    def notes(self) -> set[str]:
        return {path.read_text() for path in self.root.glob("*/note")}


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def aged(place: Place) -> None:
    """A week goes by for what is there."""
    place.ahead = WEEK + 60


def test_what_nobody_has_used_for_a_week_goes_with_the_next_archive(place):
    for note in ("one", "two"):
        _, lease = place.extract(note)
        lease.release()
    assert place.notes() == {"one", "two"}
    aged(place)
    _, held = place.extract("three")
    held.release()
    assert place.notes() == {"three"}


def test_a_build_collects_them_too(environments, wheelhouse, tmp_path):
    path = packed(tmp_path / "one.tar.gz", "one")
    for age, left in ((WEEK, 0), (60.0, 1)):
        folder, lease = environments.archives.extracted(path, nothing)
        lease.release()
        then = time.time() - age
        os.utime(f"{folder}.use", (then, then))
        environments.create("one", wish(wheelhouse))
        environments.build("one", offline=True)
        assert len(environments.archives.all()) == left


OTHER = """
import sys
from pathlib import Path
from naiad.environments.packed import Archives
folder, lease = Archives(Path(sys.argv[1])).extracted(Path(sys.argv[2]), lambda _: None)
print(folder, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def other(place):
    """Another process that uses an archive until it is told to end."""
    path = packed(place.folder / "other.tar.gz", "other")
    line = [sys.executable, "-c", OTHER, str(place.root), str(path)]
    process = subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin
    assert process.stdout
    assert process.stdout.readline().strip()
    yield process
    process.stdin.close()
    process.stdout.close()
    process.wait(30)


def test_what_another_process_uses_is_kept_however_old(place, other):
    aged(place)
    _, lease = place.extract("mine")
    assert place.notes() == {"other", "mine"}
    (used,) = [row for row in place.archives.all() if row.archive == "other.tar.gz"]
    assert used.used
    with pytest.raises(EnvironmentBusy, match="is in use by a running server"):
        place.archives.remove(used.digest[:12])
    assert place.archives.collect(older_than=0.0) == []
    other.kill()  # what a killed process held is free
    other.wait(30)
    place.archives.remove(used.digest[:12])
    assert place.notes() == {"mine"}
    lease.release()


def test_two_processes_extract_one_archive_once(place, tmp_path):
    path = packed(tmp_path / "both.tar.gz", "both")
    line = [sys.executable, "-c", OTHER, str(place.root), str(path)]
    both = [subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = {process.communicate(timeout=60)[0] for process in both}
    assert len(said) == 1
    assert place.notes() == {"both"}
    assert not list(place.root.glob("*.part"))


def test_what_a_killed_process_left_is_swept(place):
    place.root.mkdir()
    for name in ("0123.part", "0123.beef.removed"):
        (place.root / name / "lib").mkdir(parents=True)
    _, lease = place.extract("one")
    assert {path.name for path in place.root.iterdir() if path.is_dir()} == {row.digest for row in place.archives.all()}
    lease.release()


def test_a_full_disk_takes_what_nobody_uses(place, monkeypatch):
    _, lease = place.extract("old")
    lease.release()
    _, held = place.extract("held")
    real, tries = archive.extract, []

    def full_at_first(*arguments: object) -> None:
        tries.append(place.notes())
        if len(tries) == 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(*arguments)

    monkeypatch.setattr(archive, "extract", full_at_first)
    place.ahead = 60
    _, new = place.extract("new")
    assert tries == [{"old", "held"}, {"held"}]
    assert place.notes() == {"held", "new"}
    held.release()
    new.release()


def test_an_archive_that_changes_while_it_is_read_is_not_kept(place, monkeypatch):
    real = archive.extract

    def changed_meanwhile(path: Path, folder: Path) -> None:
        real(path, folder)
        with path.open("ab") as stream:
            stream.write(b"more")

    monkeypatch.setattr(archive, "extract", changed_meanwhile)
    with pytest.raises(BadArchive, match="changed while it was read"):
        place.extract("one")
    assert place.notes() == set()


def test_a_folder_that_may_only_be_read_is_enough():
    with tempfile.TemporaryDirectory() as folder:  # not pytest's, into which another user cannot look
        place = Place(Path(folder))
        extracted, lease = place.extract("one")
        lease.release()
        for path, mode in ((place.folder, 0o755), (extracted, 0o755), (place.root, 0o555)):
            path.chmod(mode)
        before = {path: path.stat().st_mtime_ns for path in place.root.iterdir()}
        nobody = "import os\nif os.getuid() == 0: os.setuid(65534)\nfolder, lease ="
        line = [sys.executable, "-c", OTHER.replace("folder, lease =", nobody), str(place.root)]
        done = subprocess.run(
            [*line, str(place.folder / "one.tar.gz")],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        place.root.chmod(0o700)
        assert done.stdout.strip() == str(extracted), done.stderr
        if os.getuid() == 0:  # else it is the owner, whose use is noted
            assert {path: path.stat().st_mtime_ns for path in place.root.iterdir()} == before


def test_one_is_found_by_the_beginning_of_its_digest(place):
    _, lease = place.extract("one")
    lease.release()
    (row,) = place.archives.all()
    assert place.archives.find(row.digest[:8]) == row
    for beginning in ("", "zz"):
        with pytest.raises(NoSuchEnvironment, match="expected the digest of one extracted archive"):
            place.archives.find(beginning)
