"""The one path resolver (C1-C3)."""

from __future__ import annotations

import os

import pytest

from naiad.errors import ConfigError
from naiad.repository.files import model_file
from naiad.repository.paths import below, is_model_name, shown

OUTSIDE = [
    "", "/etc/passwd", "//etc/passwd", "..", ".", "../x", "1/../../x", "1/./x", "./x", "x/..", "..\\x", "1\\..\\x",
    "\\x",
    "C:\\x", "C:/x", "c:x", "file:///etc/passwd", "x\0y", "\0", "x\x1b[2J/..",
    "../", "1/..", "link/x", "link", "deep/link/x",
]  # fmt: skip


@pytest.mark.parametrize("relative", OUTSIDE)
def test_a_path_that_leaves_the_folder_is_refused(tmp_path, relative):
    root = tmp_path / "model"
    (root / "deep").mkdir(parents=True)
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret/x").write_text("canary")
    for link in ("link", "deep/link"):
        (root / link).symlink_to(tmp_path / "secret")
    with pytest.raises(ConfigError) as caught:
        below(root, relative)
    assert "canary" not in str(caught.value)
    assert str(caught.value).startswith(f"path '{shown(relative)}'")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "relative", ["model.pt", "1/model.pt", "labels.txt", "a b/c", "..x/y", "x..", "…/x", "%2e%2e/x", "a:b"[:1]]
)
def test_a_path_inside_is_itself(tmp_path, relative):
    assert below(tmp_path, relative) == tmp_path.resolve() / relative


def test_a_link_that_stays_inside_is_followed(tmp_path):
    (tmp_path / "1").mkdir()
    (tmp_path / "latest").symlink_to("1")
    assert below(tmp_path, "latest/model.pt") == tmp_path.resolve() / "1/model.pt"


def test_a_link_in_a_circle_is_refused(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(ConfigError, match="'loop/x'"):
        below(tmp_path, "loop/x")


def test_a_name_that_is_too_long_is_refused(tmp_path):
    with pytest.raises(ConfigError):
        model_file(tmp_path, "x" * 5000)


@pytest.mark.parametrize("name", ["m", "m-1", "m.v1", "_m", "a b", "m+x", "user@host", "a=b", "M" * 255])
def test_model_names(name):
    assert is_model_name(name)


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "a..b", ".m", "-m", " m", "m ", "a/b", "a\\b", "../m", "m\n", "m\0", ";id", "$(id)", "`id`", "a|b",
     "m\t",
     "‥", "\uff0e\uff0e", "M" * 256, "<img>", "a:b", "%2e%2e", "x\u202e"],
)  # fmt: skip
def test_names_that_are_no_model_names(name):  # C1, W72
    assert not is_model_name(name)


def test_a_pipe_is_no_model_file(tmp_path):
    """Whoever opened it would wait for ever."""
    os.mkfifo(tmp_path / "model.onnx")
    with pytest.raises(ConfigError, match=r"model\.onnx' is a pipe or a device, expected a file \(FILE_UNREADABLE\)"):
        model_file(tmp_path, "model.onnx")


def test_a_missing_model_file_names_what_is_there(tmp_path):
    folder = tmp_path / "1"
    folder.mkdir()
    with pytest.raises(ConfigError) as caught:
        model_file(folder, "model.pt")
    assert str(caught.value) == "'1/model.pt' does not exist; the folder holds nothing (PATH_NOT_FOUND)"
    (folder / "Model.pt").write_text("x")
    with pytest.raises(ConfigError) as caught:
        model_file(folder, "model.pt")
    assert str(caught.value) == (
        "'1/model.pt' does not exist; the folder holds Model.pt (PATH_NOT_FOUND); "
        "rename it to 'model.pt', or write default_model_filename: \"Model.pt\""
    )
    assert model_file(folder, "Model.pt") == folder / "Model.pt"
