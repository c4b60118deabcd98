from __future__ import annotations

from pathlib import Path

import pytest

from naiad.control.diagnosis import Broken
from naiad.control.engines.layout import find


def tree(root: Path, *files: str) -> Path:
    for name in files:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    return root


@pytest.mark.parametrize(
    "named", ["repo", "repo/digits", "repo/digits/3", "repo/digits/3/model.pt", "repo/digits/config.pbtxt"]
)
def test_every_way_to_name_a_model_finds_its_newest_version(tmp_path, named):  # R8
    tree(tmp_path, "repo/digits/1/model.pt", "repo/digits/3/model.pt", "repo/digits/config.pbtxt", "repo/digits/03/x")
    layout = find(tmp_path / named)
    assert layout.version == 3
    assert layout.content == tmp_path / "repo/digits/3"
    assert layout.configuration == tmp_path / "repo/digits/config.pbtxt"


def test_what_is_no_version_is_reported(tmp_path):
    tree(tmp_path, "digits/1/model.pt", "digits/01/model.pt", "digits/old/model.pt")
    assert find(tmp_path / "digits").ignored == ("01", "old")


def test_a_lone_file_is_version_1(tmp_path):
    tree(tmp_path, "net.pt")
    layout = find(tmp_path / "net.pt")
    assert (layout.version, layout.content, layout.configuration) == (1, tmp_path / "net.pt", None)


def test_a_model_directory_without_a_version_says_what_to_name(tmp_path):
    tree(tmp_path, "digits/model.pt")
    with pytest.raises(Broken, match="without a version directory") as caught:
        find(tmp_path / "digits")
    assert caught.value.code == "LAYOUT_NO_VERSION"
    assert "digits/model.pt" in caught.value.fix


def test_several_models_are_listed(tmp_path):
    tree(tmp_path, "repo/a/1/model.pt", "repo/b/1/model.pt")
    with pytest.raises(Broken, match="'a', 'b'") as caught:
        find(tmp_path / "repo")
    assert caught.value.code == "PATH_AMBIGUOUS"


def test_an_empty_folder_holds_no_model(tmp_path):
    with pytest.raises(Broken) as caught:
        find(tmp_path)
    assert caught.value.code == "PATH_NOT_FOUND"
