from __future__ import annotations

from pathlib import Path

import pytest

from naiad.control.paths import under_folder, under_roots
from naiad.control.problems import Rejected


@pytest.fixture
def roots(tmp_path: Path) -> list[Path]:
    for name in ("one", "two"):
        (tmp_path / name / "repo").mkdir(parents=True)
    (tmp_path / "two" / "repo" / "model.pt").write_text("x")
    (tmp_path / "one" / "out").symlink_to("/etc")
    return [tmp_path / "one", tmp_path / "two"]


def test_relative_and_absolute_paths_under_a_root(roots):
    expected = roots[1] / "repo" / "model.pt"
    assert under_roots("repo/model.pt", roots, field="f") == expected
    assert under_roots(str(expected), roots, field="f") == expected


@pytest.mark.parametrize(
    "text", ["/etc/passwd", "../x", "repo/../../x", "out/passwd", "a\x00b", "a\nb", "..", "repo\\x", "\x7f"]
)
def test_what_leaves_the_roots_is_refused(roots, text):  # C1
    with pytest.raises(Rejected) as caught:
        under_roots(text, roots, field="model.path")
    assert caught.value.code in ("PATH_OUTSIDE_ROOTS", "PATH_REFUSED", "PATH_NOT_FOUND")
    assert caught.value.fields[0].path == "model.path"


def test_wrong_case_names_the_sibling(roots):
    with pytest.raises(Rejected, match=r"'model\.pt' does"):
        under_roots("repo/MODEL.pt", [roots[1]], field="f")


@pytest.mark.parametrize("text", ["", "..", "a/..", "/x", "a//b", ".x", "a b", "ü", "x" * 129, "/".join("a" * 17)])
def test_a_file_name_inside_a_folder_is_plain(tmp_path, text):
    with pytest.raises(Rejected):
        under_folder(text, tmp_path, field="f")


def test_a_link_inside_a_folder_does_not_lead_out(tmp_path):
    (tmp_path / "link").symlink_to("/etc")
    with pytest.raises(Rejected, match="leaves its folder"):
        under_folder("link/passwd", tmp_path, field="f")
