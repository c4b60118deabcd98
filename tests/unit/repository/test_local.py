"""What polling compares: everything that a load would read, followed through links."""

from __future__ import annotations

import os

from naiad.repository.local import snapshot


def test_a_snapshot_changes_with_content_names_and_nothing_else(tmp_path):
    (tmp_path / "1").mkdir()
    file = tmp_path / "1/model.pt"
    file.write_bytes(b"one")
    os.utime(file, ns=(1, 1))
    first = snapshot(tmp_path)
    assert first == snapshot(tmp_path)
    assert first["1/model.pt"] == (1, 3, file.stat().st_ino)
    os.utime(file, ns=(1, 2))
    assert snapshot(tmp_path) != first
    os.utime(file, ns=(1, 1))
    assert snapshot(tmp_path) == first
    (tmp_path / "config.pbtxt").write_text("x")
    assert snapshot(tmp_path) != first


def test_a_file_that_is_swapped_for_one_of_the_same_age_and_size_is_a_change(tmp_path):
    for name in ("model.pt", "other.pt"):
        (tmp_path / name).write_bytes(b"one")
        os.utime(tmp_path / name, ns=(1, 1))
    os.link(tmp_path / "other.pt", tmp_path / "spare.pt")
    first = snapshot(tmp_path)
    os.replace(tmp_path / "spare.pt", tmp_path / "model.pt")
    assert snapshot(tmp_path)["model.pt"] != first["model.pt"]


def test_an_empty_version_folder_is_a_change_and_what_python_caches_is_none(tmp_path):
    (tmp_path / "1").mkdir()
    first = snapshot(tmp_path)
    (tmp_path / "1/__pycache__").mkdir()
    (tmp_path / "1/__pycache__/model.pyc").write_bytes(b"x")
    assert snapshot(tmp_path) == first
    (tmp_path / "2").mkdir()
    assert snapshot(tmp_path) != first


def test_links_are_followed_but_not_in_a_circle(tmp_path):
    (tmp_path / "store").mkdir()
    (tmp_path / "store/model.pt").write_bytes(b"one")
    model = tmp_path / "m"
    model.mkdir()
    (model / "1").symlink_to(tmp_path / "store")
    (model / "gone").symlink_to("nowhere")
    (model / "loop").symlink_to("loop")
    (model / "self").symlink_to(".")
    first = snapshot(model)
    assert set(first) == {".", "1", "1/model.pt"}
    (tmp_path / "store/model.pt").write_bytes(b"longer")
    assert snapshot(model) != first


def test_a_directory_that_is_gone_is_empty(tmp_path):
    assert snapshot(tmp_path / "none") == {}
