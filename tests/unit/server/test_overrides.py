"""Directories made from `file:` content: whole, private, bounded, and nothing outside them (W68, C1)."""

from __future__ import annotations

import base64
import stat
import tempfile
from pathlib import Path

import pytest

from naiad.errors import ConfigError
from naiad.server import overrides
from naiad.server.overrides import Overrides

HI = base64.b64encode(b"hi").decode()


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def everything(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_w68_files_become_a_model_directory(here):
    root = Overrides().write("m", {"1/model.pt": HI, "labels.txt": ""})
    assert (root / "1" / "model.pt").read_bytes() == b"hi"
    assert everything(root) == ["1", "1/model.pt", "labels.txt"]
    assert (root.name, stat.S_IMODE(root.parent.stat().st_mode)) == ("m", 0o700)


@pytest.mark.parametrize(
    "path",
    [
        "", "..", "../x", "1/../../x", "/etc/passwd", "1/./x", "..\\x", "1\\x", "C:/x", "1/\0", "x" * 300,
        "/".join("a" * 17), "./x",
    ],
)  # fmt: skip
def test_c1_no_path_leaves_the_directory_and_nothing_is_written(here, path):
    with pytest.raises((ConfigError, OSError)):
        Overrides().write("m", {"1/fine": HI, path: HI})
    assert not [name for name in everything(here) if Path(name).name in ("x", "passwd")]


@pytest.mark.parametrize(
    ("files", "text"),
    [
        ({"1/a": "not base64!"}, "expected base64"),
        ({"1/a": HI, "1/a/b": HI}, "names it as a folder"),
        ({"1/a/b": HI, "1/a": HI}, "names it as a folder"),
        ({"1/a": HI, "1//a": HI}, "the same file"),
    ],
)
def test_w68_files_that_make_no_directory_are_refused(here, files, text):
    with pytest.raises(ConfigError, match=text):
        Overrides().write("m", files)


def test_w68_count_and_bytes_are_bounded(here, monkeypatch):
    monkeypatch.setattr(overrides, "MAX_FILES", 2)
    with pytest.raises(ConfigError, match="at most 2 files, got 3"):
        Overrides().write("m", {"1/a": HI, "1/b": HI, "1/c": HI})
    with pytest.raises(ConfigError, match="at most 8 bytes"):
        Overrides(max_bytes=8).write("m", {"1/a": base64.b64encode(b"x" * 9).decode()})
    assert everything(here) == []


def test_what_nobody_uses_is_removed(here):
    kept = Overrides()
    first, second = kept.write("m", {"1/a": HI}), kept.write("m", {"1/a": HI})
    other = kept.write("n", {"1/a": HI})
    kept.sweep("m", used=[second])
    assert [path.exists() for path in (first, second, other)] == [False, True, True]
    with pytest.raises(ConfigError):
        kept.write("m", {"1/a": "?"})
    kept.sweep("m", used=[])
    assert [path.exists() for path in (second, other)] == [False, True]
    kept.clean()
    assert everything(here) == []
