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


@pytest.mark.parametrize("named", ["nmp", "nmp/saved_model.pb"])
def test_a_bare_saved_model_is_one_model(tmp_path, named):
    tree(tmp_path, "nmp/saved_model.pb", "nmp/variables/variables.index")
    layout = find(tmp_path / named)
    assert (layout.version, layout.content, layout.name) == (1, tmp_path / "nmp", "model.savedmodel")


@pytest.mark.parametrize(
    "named",
    ["repo", "repo/net", "repo/net/2", "repo/net/2/model.savedmodel", "repo/net/2/model.savedmodel/saved_model.pb"],
)
def test_a_saved_model_in_a_version_directory_is_found(tmp_path, named):
    tree(tmp_path, "repo/net/2/model.savedmodel/saved_model.pb", "repo/net/config.pbtxt")
    layout = find(tmp_path / named)
    assert (layout.version, layout.content, layout.name) == (2, tmp_path / "repo/net/2", "")
    assert layout.configuration == tmp_path / "repo/net/config.pbtxt"


def test_a_version_directory_may_be_the_saved_model(tmp_path):  # as TensorFlow Serving has it
    tree(tmp_path, "net/17/saved_model.pb", "net/17/variables/variables.index")
    for named in ("net", "net/17", "net/17/saved_model.pb"):
        layout = find(tmp_path / named)
        assert (layout.version, layout.content, layout.name) == (17, tmp_path / "net/17", "")


@pytest.mark.parametrize("named", ["big.onnx", "big.onnx/model.onnx"])
def test_a_bare_folder_with_a_model_and_its_weights_is_one_model(tmp_path, named):
    tree(tmp_path, "big.onnx/model.onnx", "big.onnx/w.data")
    layout = find(tmp_path / named)
    assert (layout.version, layout.content, layout.name) == (1, tmp_path / "big.onnx", "model.onnx")


@pytest.mark.parametrize("named", ["net", "net/2", "net/2/model.onnx", "net/2/model.onnx/model.onnx"])
def test_a_folder_with_a_model_and_its_weights_in_a_version_directory_is_found(tmp_path, named):
    tree(tmp_path, "net/2/model.onnx/model.onnx", "net/2/model.onnx/w.data")
    layout = find(tmp_path / named)
    assert (layout.version, layout.content, layout.name) == (2, tmp_path / "net/2", "")


def test_a_saved_model_without_a_version_says_what_to_name(tmp_path):
    tree(tmp_path, "net/model.savedmodel/saved_model.pb")
    with pytest.raises(Broken, match="without a version directory") as caught:
        find(tmp_path / "net")
    assert "net/model.savedmodel" in caught.value.fix
