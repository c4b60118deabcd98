from __future__ import annotations

import zipfile
from pathlib import Path

import numpy
import pytest

from naiad.cli.deploy import _files
from naiad.control.diagnosis import Broken
from naiad.control.engines.configuration import Declared
from naiad.control.engines.tensor import ModelFolder
from naiad.control.schema import TensorField


def tensor(name: str, *dims: int, argument: str | None = None) -> TensorField:
    return TensorField(name=name, dtype="FP32", dims=list(dims), argument=argument)


@pytest.fixture
def folder(tmp_path: Path) -> ModelFolder:
    return ModelFolder(tmp_path / "models", tmp_path / "scratch")


def test_a_model_directory_appears_whole(folder, tmp_path):
    source = tmp_path / "net.pth"
    source.write_bytes(b"weights")
    prepared = folder.prepare("net.v1", Declared(), source, immutable=False)
    assert (tmp_path / "models/net.v1/1/model.pt").read_bytes() == b"weights"
    assert prepared.config_pbtxt is None
    assert list((tmp_path / "scratch").iterdir()) == []
    source.write_bytes(b"changed")
    assert (tmp_path / "models/net.v1/1/model.pt").read_bytes() == b"weights"


def test_the_same_files_have_the_same_digest(folder, tmp_path):
    for name, content in (("a", b"1"), ("b", b"1"), ("c", b"2")):
        (tmp_path / f"{name}.pt").write_bytes(content)
    digests = [folder.prepare(f"{n}.v1", Declared(), tmp_path / f"{n}.pt", immutable=False).digest for n in "abc"]
    assert digests[0] == digests[1] != digests[2]


def test_an_upload_is_linked_not_copied(folder, tmp_path):
    source = tmp_path / "net.pt"
    source.write_bytes(b"weights")
    folder.prepare("net.v1", Declared(), source, immutable=True)
    assert source.stat().st_nlink == 2


def test_half_a_directory_of_a_crash_is_replaced(folder, tmp_path):
    half = tmp_path / "scratch/net.v1/1"
    half.mkdir(parents=True)
    (half / "model.pt").write_bytes(b"hal")
    (tmp_path / "net.pt").write_bytes(b"weights")
    assert not folder.has("net.v1")
    folder.prepare("net.v1", Declared(), tmp_path / "net.pt", immutable=False)
    assert (tmp_path / "models/net.v1/1/model.pt").read_bytes() == b"weights"


def test_a_link_that_leaves_the_model_is_refused(folder, tmp_path):  # C5
    version = tmp_path / "net/1"
    version.mkdir(parents=True)
    (version / "model.pt").symlink_to("/etc/passwd")
    with pytest.raises(Broken, match="leaves"):
        folder.prepare("net.v1", Declared(), tmp_path / "net", immutable=False)
    assert folder.names() == set()


def test_removing_leaves_nothing(folder, tmp_path):
    (tmp_path / "net.pt").write_bytes(b"weights")
    folder.prepare("net.v1", Declared(), tmp_path / "net.pt", immutable=False)
    folder.remove("net.v1")
    folder.remove("net.v1")
    assert folder.names() == set()
    assert list((tmp_path / "scratch").iterdir()) == []


def test_a_bare_saved_model_lies_in_a_version_directory(folder, tmp_path):
    source = tmp_path / "net"
    (source / "variables").mkdir(parents=True)
    (source / "saved_model.pb").write_bytes(b"graph")
    (source / "variables/variables.index").write_bytes(b"index")
    folder.prepare("net.v1", Declared(), source, immutable=False)
    target = tmp_path / "models/net.v1/1/model.savedmodel"
    assert (target / "saved_model.pb").read_bytes() == b"graph"
    assert (target / "variables/variables.index").read_bytes() == b"index"


@pytest.mark.parametrize(
    ("file", "what"),
    [
        ("model.py", "Python code"),
        ("MODEL.PY", "Python code"),
        ("lib/helper.pyc", "Python code"),
        ("model.joblib", "a pickle"),
        ("model.pkl", "a pickle"),
        ("model.pt2", "native code"),
    ],
)
def test_d3_d4_code_is_refused_unless_it_is_trusted(folder, tmp_path, file, what):
    code = tmp_path / "net/1" / file
    code.parent.mkdir(parents=True)
    with zipfile.ZipFile(code, "w") as archive:
        archive.writestr("model/data/aotinductor/model/code.so", b"")
    with pytest.raises(Broken, match=f"'{code.name}' is {what}, which .* when the model is loaded") as caught:
        folder.prepare("net.v1", Declared(), tmp_path / "net", immutable=False)
    assert (caught.value.code, folder.names()) == ("CODE_NOT_TRUSTED", set())
    assert "naiad deploy --trust" in caught.value.fix
    folder.prepare("net.v1", Declared(), tmp_path / "net", immutable=False, trusted=True)
    assert (tmp_path / "models/net.v1/1" / file).is_file()


def _newer(raw: bytearray) -> None:
    """Asks for a reader of version 9.9 in the entry of the central directory."""
    raw[raw.index(b"PK\1\2") + 6] = 99


def _misspelt(raw: bytearray) -> None:
    """Calls the entry's name UTF-8, which it is not."""
    at = raw.index(b"PK\1\2")
    raw[at + 9] |= 0x08
    raw[raw.index(b"model/", at)] = 0xFF


def _out_of_place(raw: bytearray) -> None:
    """Spoils the signature of the central directory's entry."""
    raw[raw.index(b"PK\1\2") + 3] = 3


STRANGE = {
    "newer": (_newer, NotImplementedError),
    "name": (_misspelt, ValueError),
    "entry": (_out_of_place, zipfile.BadZipFile),
}


@pytest.mark.parametrize(("spoil", "raised"), STRANGE.values(), ids=STRANGE.keys())
def test_d3_an_archive_that_python_cannot_list_is_not_trusted(folder, tmp_path, spoil, raised):
    """Python cannot list it; PyTorch's own reader and ours do not look at most of these fields and open it."""
    path = tmp_path / "net.pt2"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/data/aotinductor/model/code.so", b"")
    raw = bytearray(path.read_bytes())
    spoil(raw)
    path.write_bytes(raw)
    with pytest.raises(raised):
        zipfile.ZipFile(path)
    with pytest.raises(Broken, match=r"'net\.pt2' is (native code|an archive whose content cannot)") as caught:
        folder.prepare("net.v1", Declared(), path, immutable=False)
    assert (caught.value.code, folder.names()) == ("CODE_NOT_TRUSTED", set())
    folder.prepare("net.v1", Declared(), path, immutable=False, trusted=True)


def test_d3_source_that_torch_compiles_at_load_is_code(folder, tmp_path):
    """`torch.export.load` runs the commands that lie beside it, though no library is there yet."""
    path = tmp_path / "net.pt2"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("net/models/model.json", b"{}")
        archive.writestr("net/data/aotinductor/other/model.wrapper.cpp", b"")
    with pytest.raises(Broken, match=r"'net\.pt2' is native code") as caught:
        folder.prepare("net.v1", Declared(), path, immutable=False)
    assert (caught.value.code, folder.names()) == ("CODE_NOT_TRUSTED", set())


def test_d3_an_archive_with_two_directories_is_not_trusted(folder, tmp_path):
    """Some readers take the one before the end, others the one at the offset that the end names."""
    for name, member in (("hidden.zip", "net/data/aotinductor/m/code.so"), ("shown.zip", "net/model.json")):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr(member, b"")
    path = tmp_path / "net.pt2"
    path.write_bytes((tmp_path / "hidden.zip").read_bytes() + (tmp_path / "shown.zip").read_bytes())
    with pytest.raises(Broken, match=r"'net\.pt2' is an archive whose content cannot be listed") as caught:
        folder.prepare("net.v1", Declared(), path, immutable=False)
    assert (caught.value.code, folder.names()) == ("CODE_NOT_TRUSTED", set())


def test_a_file_that_breaks_off_is_no_archive(folder, tmp_path):
    """No reader opens it: the load says what is wrong."""
    path = tmp_path / "net.pt2"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/data/aotinductor/model/code.so", b"")
    path.write_bytes(path.read_bytes()[:-22])
    folder.prepare("net.v1", Declared(), path, immutable=False)
    assert folder.has("net.v1")


@pytest.mark.parametrize("name", ["EXECUTION_ENV_PATH", r"EXECUTION\137ENV_PATH"])
def test_d4_an_interpreter_of_its_own_is_code(folder, tmp_path, name):
    version = tmp_path / "net/1"
    version.mkdir(parents=True)
    (version / "model.pt").write_bytes(b"weights")
    value = 'value { string_value: "$$TRITON_MODEL_DIRECTORY/1/env.tar.gz" }'
    (tmp_path / "net/config.pbtxt").write_text(f'parameters {{ key: "{name}" {value} }}')
    with pytest.raises(Broken, match="names EXECUTION_ENV_PATH, an interpreter that runs") as caught:
        folder.prepare("net.v1", Declared(), tmp_path / "net", immutable=False)
    assert caught.value.code == "CODE_NOT_TRUSTED"
    folder.prepare("net.v1", Declared(), tmp_path / "net", immutable=False, trusted=True)


@pytest.mark.parametrize(
    ("files", "configuration", "trusted"),
    [
        (["model.pkl"], None, True),
        (["model.joblib"], "max_batch_size: 4\n", True),
        (["model.pkl"], 'parameters { key: "naiad.trust_pickle" value { string_value: "false" } }\n', False),
        (["model.py", "weights.pkl"], None, False),
        (["model.pt"], None, False),
    ],
)
def test_a_trusted_pickle_may_be_opened(folder, tmp_path, files, configuration, trusted):
    """A lone file has no configuration in which one could say so."""
    version = tmp_path / "net/1"
    version.mkdir(parents=True)
    for name in files:
        (version / name).write_bytes(b"\x80\x04.")
    if configuration is not None:
        (tmp_path / "net/config.pbtxt").write_text(configuration)
    prepared = folder.prepare("net.v1", Declared(), tmp_path / "net", immutable=False, trusted=True)
    said = 'key: "naiad.trust_pickle" value { string_value: "true" }'
    assert (said in (prepared.config_pbtxt or "")) is trusted


def test_the_weights_beside_an_onnx_file_come_with_it(folder, tmp_path):
    onnx = pytest.importorskip("onnx", reason="onnx is not installed: pip install 'naiad[dev]'")
    weights = onnx.numpy_helper.from_array(numpy.ones((4, 400), numpy.float32), "w")
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMul", ["x", "w"], ["y"])], "g",
        [value("x", 1, ["n", 4])], [value("y", 1, ["n", 400])], [weights],
    )  # fmt: skip
    (tmp_path / "net/w").mkdir(parents=True)
    onnx.save(
        onnx.helper.make_model(graph), str(tmp_path / "net/resnet.onnx"), save_as_external_data=True, location="w/a.bin"
    )
    (tmp_path / "net/other.bin").write_bytes(b"x")
    folder.prepare("net.v1", Declared(), tmp_path / "net/resnet.onnx", immutable=False)
    made = tmp_path / "models/net.v1/1"
    assert sorted(str(file.relative_to(made)) for file in made.rglob("*") if file.is_file()) == [
        "model.onnx",
        "w/a.bin",
    ]
    assert [name for _, name in _files(tmp_path / "net/resnet.onnx")] == ["resnet.onnx", "w/a.bin"]
