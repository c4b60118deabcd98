"""A change counts once two looks in a row saw the same; nothing that polling meets ends it."""

from __future__ import annotations

import threading
from pathlib import Path

from naiad.server.control_mode import Changes, IndexWatch, Step, names_at_start
from naiad.server.states import States

OLD, HALF, NEW = ({"a": (1, 1)},), ({"a": (2, 1)},), ({"a": (2, 2)},)


def test_what_is_there_at_the_start_is_no_change():
    assert Changes({"m": OLD}).look({"m": OLD}) == Step([], [], [])


def test_a_directory_that_is_still_written_waits():
    changes = Changes({"m": OLD})
    assert changes.look({"m": HALF}) == Step([], [], ["m"])
    assert changes.look({"m": NEW}) == Step([], [], ["m"])
    assert changes.look({"m": NEW}) == Step(["m"], [], [])
    assert changes.look({"m": NEW}) == Step([], [], [])


def test_a_new_model_and_one_that_is_gone_are_changes_too():
    changes = Changes({"old": OLD})
    assert changes.look({"new": NEW}) == Step([], [], ["new", "old"])
    assert changes.look({"new": NEW}) == Step(["new"], ["old"], [])
    assert changes.look({"new": NEW}) == Step([], [], [])


def test_a_change_that_is_taken_back_is_none():
    changes = Changes({"m": OLD})
    changes.look({"m": NEW})
    assert changes.look({"m": OLD}) == Step([], [], [])
    changes.look({})
    assert changes.look({"m": OLD}) == Step([], [], [])


def _states(rows: list[bytes]) -> States:
    return States(rows.append, lambda ready: None, strict=True)


def test_w66_the_watch_survives_what_it_cannot_read(tmp_path, monkeypatch):
    rows: list[bytes] = []
    watch = IndexWatch(_states(rows), [tmp_path / "absent"])
    looked = threading.Semaphore(0)
    once = watch._once
    monkeypatch.setattr(watch, "_interval", lambda: 0.001)
    monkeypatch.setattr(watch, "_once", lambda: (looked.release(), once()))
    watch.start()
    assert all(looked.acquire(timeout=20) for _ in range(3))
    watch.stop()
    assert rows == []


def test_names_at_start(tmp_path: Path):
    for name in ("a", "b"):
        (tmp_path / name / "1").mkdir(parents=True)

    def names(mode: str, *asked: str) -> list[str]:
        return names_at_start(mode, asked, [tmp_path], _states([]))

    assert names("none") == names("poll") == names("explicit", "*") == ["a", "b"]
    assert names("explicit") == []
    assert names("explicit", "b", "typo", "b") == ["b", "typo"]
