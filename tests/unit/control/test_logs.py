"""Log files as they grow: no line is lost between the last ones and those to come."""

from __future__ import annotations

from pathlib import Path

import pytest

from naiad.control import logs


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x.log"


@pytest.mark.parametrize(
    ("content", "lines", "shown"),
    [(b"", 5, b""), (b"a\nb\nc\n", 2, b"b\nc\n"), (b"a\nb", 5, b"a\n"), (b"a\n", 0, b""), (b"half", 5, b"")],
)
def test_the_last_whole_lines(path, content, lines, shown):
    path.write_bytes(content)
    assert logs.tail(path, lines) == shown


def test_many_blocks(path):
    rows = [b"%07d %s\n" % (number, b"x" * 90) for number in range(3000)]
    path.write_bytes(b"".join(rows))
    assert logs.tail(path, 2000) == b"".join(rows[-2000:])


def following(path: Path, writes: list[bytes]) -> bytes:
    """All that a reader sees while these are written, one before each of its looks."""

    def stopped():
        for content in writes:
            with path.open("ab") as stream:
                stream.write(content)
            yield False
        yield True

    return b"".join(logs.follow(path, 100, stopped=stopped()))


def test_what_is_written_before_the_second_look_is_not_lost(path, monkeypatch):
    monkeypatch.setattr(logs, "_LOOK_SECONDS", 0)
    reader = logs.follow(path, 100, stopped=iter([False, True]))
    assert next(reader) == b""
    path.write_bytes(b"first\n")
    assert b"".join(reader) == b"first\n"
    reader = logs.follow(path, 100, stopped=iter([False, True]))
    path.write_bytes(b"first\nsec")
    assert next(reader) == b"first\n"
    path.write_bytes(b"first\nsecond\n")
    assert b"".join(reader) == b"second\n"


def test_lines_come_whole_and_in_order(path, monkeypatch):
    monkeypatch.setattr(logs, "_LOOK_SECONDS", 0)
    path.write_bytes(b"old\n")
    assert following(path, [b"a", b"b\nc", b"\n", b"d\n"]) == b"old\nab\nc\nd\n"


def test_a_rotated_file_begins_anew(path, monkeypatch):
    monkeypatch.setattr(logs, "_LOOK_SECONDS", 0)
    path.write_bytes(b"long before\n")
    reader = logs.follow(path, 100, stopped=iter([False, True]))
    assert next(reader) == b"long before\n"
    path.rename(path.with_suffix(".1"))
    path.write_bytes(b"new, and longer than before\n")
    assert b"".join(reader) == b"new, and longer than before\n"
