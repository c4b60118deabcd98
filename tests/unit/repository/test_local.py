from __future__ import annotations

import os

from naiad.repository.local import snapshot


def test_a_snapshot_changes_with_content_names_and_nothing_else(tmp_path):
    (tmp_path / "1").mkdir()
    file = tmp_path / "1/model.pt"
    file.write_bytes(b"one")
    os.utime(file, ns=(1, 1))
    first = snapshot(tmp_path)
    assert first == snapshot(tmp_path) == {"1/model.pt": (1, 3)}
    os.utime(file, ns=(1, 2))
    assert snapshot(tmp_path) != first
    os.utime(file, ns=(1, 1))
    (tmp_path / "config.pbtxt").write_text("x")
    assert snapshot(tmp_path) != first


def test_links_that_lead_nowhere_or_in_a_circle_are_left_out(tmp_path):
    (tmp_path / "gone").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "self").symlink_to(".")
    assert snapshot(tmp_path) == {}


def test_a_directory_that_is_gone_is_empty(tmp_path):
    assert snapshot(tmp_path / "none") == {}
