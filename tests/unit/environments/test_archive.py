"""C4: whatever is wrong with an archive, it is refused as a whole and nothing of it stays."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from naiad.environments.archive import Limits, extract
from naiad.environments.errors import BadArchive


class Made:
    """An archive in the making."""

    def __init__(self) -> None:
        self._buffer = io.BytesIO()
        self.tar = tarfile.open(fileobj=self._buffer, mode="w", format=tarfile.PAX_FORMAT)

    def file(self, name: str, content: bytes = b"x", **fields: object) -> Made:
        info = tarfile.TarInfo(name)
        info.size = len(content)
        for field, value in fields.items():
            setattr(info, field, value)
        self.tar.addfile(info, io.BytesIO(content))
        return self

    def other(self, name: str, kind: bytes, target: str = "") -> Made:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, target
        self.tar.addfile(info)
        return self

    def link(self, name: str, target: str) -> Made:
        return self.other(name, tarfile.SYMTYPE, target)

    def bytes(self) -> bytes:
        self.tar.close()
        return self._buffer.getvalue()


def folder_of(tmp_path: Path, content: bytes, limits: Limits | None = None) -> Path:
    archive, destination = tmp_path / "archive", tmp_path / "inside" / "out"
    archive.write_bytes(content)
    destination.parent.mkdir()
    extract(archive, destination, limits)
    return destination


def refused(tmp_path: Path, content: bytes, limits: Limits | None = None) -> str:
    canary = tmp_path / "canary"
    canary.write_text("untouched")
    with pytest.raises(BadArchive) as caught:
        folder_of(tmp_path, content, limits)
    assert canary.read_text() == "untouched"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["archive", "canary", "inside"]
    assert list((tmp_path / "inside").iterdir()) == []
    return str(caught.value)


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress])
def test_files_folders_and_links_come_out(tmp_path, pack):
    made = Made().other("./", tarfile.DIRTYPE).other("bin", tarfile.DIRTYPE)
    made.file("bin/python3.9", b"#!", mode=0o4777).link("bin/python", "python3.9").file("deep/er/x", mode=0o600)
    made.link("lib64", "deep").other("bin/same", tarfile.LNKTYPE, "bin/python3.9")
    out = folder_of(tmp_path, pack(made.bytes()))
    assert (out / "bin" / "python").read_bytes() == b"#!"
    assert stat.S_IMODE((out / "bin" / "python3.9").stat().st_mode) == 0o755
    assert stat.S_IMODE((out / "deep" / "er" / "x").stat().st_mode) == 0o644
    assert os.path.samefile(out / "bin" / "same", out / "bin" / "python3.9")
    assert os.readlink(out / "lib64") == "deep"


MEMBERS: list[tuple[str, Callable[[], Made], str]] = [
    ("up", lambda: Made().file("../canary"), "inside the archive"),
    ("up later", lambda: Made().file("a/../../canary"), "inside the archive"),
    ("absolute", lambda: Made().file("/tmp/canary"), "inside the archive"),
    ("backslash", lambda: Made().file("..\\canary"), "inside the archive"),
    ("drive", lambda: Made().file("C:/canary"), "inside the archive"),
    ("long name", lambda: Made().file("a" * 300), "cannot be read"),
    ("very long name", lambda: Made().file("a/" * 600 + "b"), "inside the archive"),
    ("deep", lambda: Made().file("a/" * 70 + "b"), "inside the archive"),
    ("link up", lambda: Made().link("a", "../canary"), "leads out"),
    ("link far up", lambda: Made().link("a/b/c", "../../../canary"), "leads out"),
    ("absolute link", lambda: Made().link("a", "/etc/passwd"), "expected a path inside"),
    ("empty link", lambda: Made().link("a", ""), "expected a path inside"),
    ("link then write", lambda: Made().link("a", ".").file("a/canary"), "through the link"),
    ("link turns later", lambda: Made().link("p/q/a", "b/../../../x").link("p/q/b", "../../r"), "leads out"),
    ("links in a circle", lambda: Made().link("a", "b").link("b", "a"), "cannot be read"),
    ("hard link out", lambda: Made().other("a", tarfile.LNKTYPE, "../canary"), "inside the archive"),
    ("hard link to nothing", lambda: Made().other("a", tarfile.LNKTYPE, "b"), "no file of the archive"),
    ("hard link to a link", lambda: Made().link("b", "c").other("a", tarfile.LNKTYPE, "b"), "no file of the archive"),
    ("device", lambda: Made().other("a", tarfile.CHRTYPE), "no file, folder or link"),
    ("block device", lambda: Made().other("a", tarfile.BLKTYPE), "no file, folder or link"),
    ("pipe", lambda: Made().other("a", tarfile.FIFOTYPE), "no file, folder or link"),
    ("twice", lambda: Made().file("a").file("./a"), "there twice"),
    ("file over a link", lambda: Made().link("a", "b").file("a"), "there twice"),
    ("below a file", lambda: Made().file("a").file("a/b"), "below a file"),
    ("file over a folder", lambda: Made().file("a/b").file("a"), "cannot be read"),
]


@pytest.mark.parametrize(("make", "says"), [row[1:] for row in MEMBERS], ids=[row[0] for row in MEMBERS])
def test_a_member_that_leads_out_or_is_no_file(tmp_path, make, says):
    assert says in refused(tmp_path, make().bytes())


def test_a_good_member_before_a_bad_one_is_not_kept(tmp_path):
    refused(tmp_path, Made().file("good").file("../canary").bytes())


def test_a_nul_in_a_name(tmp_path):
    content = Made().file("a").bytes()
    header = Made().file("a\0b").bytes()
    out = folder_of(tmp_path, header)
    assert [path.name for path in out.iterdir()] == ["a"]  # tar ends a name at the first zero
    assert content


def test_a_sparse_file_of_ten_gigabytes(tmp_path):
    made = Made()
    info = tarfile.TarInfo("huge")
    info.pax_headers = {
        "GNU.sparse.major": "1",
        "GNU.sparse.minor": "0",
        "GNU.sparse.name": "huge",
        "GNU.sparse.realsize": str(10 << 30),
    }
    table = b"1\n0\n0\n".ljust(512, b"\0")
    info.size = len(table)
    made.tar.addfile(info, io.BytesIO(table))
    assert "no file, folder or link" in refused(tmp_path, made.bytes())


def claimed(kind: bytes, size: int) -> bytes:
    """A header that claims content which is not there."""
    info = tarfile.TarInfo("huge")
    info.type, info.size = kind, size
    return info.tobuf(tarfile.GNU_FORMAT) + b"\0" * 4096


def test_a_file_that_claims_ten_gigabytes(tmp_path):
    assert "opens to more than it may" in refused(tmp_path, claimed(tarfile.REGTYPE, 100 << 30))


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK])
def test_a_header_that_claims_gigabytes_is_not_read(tmp_path, kind):
    assert "a header of the archive is" in refused(tmp_path, claimed(kind, 7 << 30))


def test_a_bomb_stops_at_its_ratio(tmp_path):
    limits = Limits(free=1 << 20, ratio=10)
    bomb = gzip.compress(Made().file("zeros", bytes(8 << 20)).bytes())
    assert len(bomb) < 20_000
    assert "opens to more than it may" in refused(tmp_path, bomb, limits)


def test_too_many_members(tmp_path):
    made = Made()
    for number in range(5):
        made.file(str(number))
    assert "at most 4 members" in refused(tmp_path, made.bytes(), Limits(files=4))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not an archive",
        b"\x1f\x8b" + b"\0" * 50,
        gzip.compress(b"x" * 2000, mtime=0),
        b"BZh9" + b"\0" * 40,
        b"PK\x03\x04",
    ],
)
def test_no_archive_at_all(tmp_path, content):
    refused(tmp_path, content)


@pytest.mark.parametrize(("pack", "kind"), [(lzma.compress, "xz"), (lambda data: b"\x28\xb5\x2f\xfd" + data, "zstd")])
def test_a_kind_that_is_not_read_is_named(tmp_path, pack, kind):
    assert f"packed by {kind}; expected tar, gzip, bzip2 or zip" in refused(tmp_path, pack(b"x" * 2000))


def test_a_truncated_archive(tmp_path):
    whole = gzip.compress(Made().file("a", os.urandom(50_000)).bytes())
    refused(tmp_path, whole[: len(whole) // 2])


def zipped(*members: tuple[str, bytes, int]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, content, mode in members:
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            opened.writestr(info, content)
    return buffer.getvalue()


FILE, LINK = stat.S_IFREG | 0o755, stat.S_IFLNK | 0o777


def test_a_zip_comes_out(tmp_path):
    out = folder_of(tmp_path, zipped(("bin/x", b"1", FILE), ("bin/", b"", 0), ("y", b"bin/x", LINK), ("z", b"", 0)))
    assert (out / "y").read_bytes() == b"1"
    assert os.access(out / "bin" / "x", os.X_OK)
    assert not os.access(out / "z", os.X_OK)


@pytest.mark.parametrize(
    "members",
    [
        [("../canary", b"", FILE)],
        [("/canary", b"", FILE)],
        [("a", b"../canary", LINK)],
        [("a", b"/etc/passwd", LINK)],
        [("a", b"x" * 5000, LINK)],
        [("a", b".", LINK), ("a/canary", b"", FILE)],
        [("a", b"", stat.S_IFIFO)],
    ],
)
def test_a_hostile_zip(tmp_path, members):
    refused(tmp_path, zipped(*members))


def test_a_zip_whose_directory_lies(tmp_path):
    content = bytearray(zipped(("a", bytes(1 << 20), FILE)))
    at = content.rindex(b"PK\x01\x02") + 24  # the uncompressed size in the central directory
    content[at : at + 4] = (100).to_bytes(4, "little")
    refused(tmp_path, bytes(content))
