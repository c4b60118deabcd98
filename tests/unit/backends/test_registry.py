"""Which backend runs a model, and that both halves of each backend exist."""

from __future__ import annotations

from pathlib import Path

import pytest

import naiad
from naiad.backends.registry import BACKENDS, LATER, alone, choose
from naiad.config import pbtxt
from naiad.errors import ConfigError

*_FIRST, _LAST = (f"'{name}'" for name in sorted(BACKENDS))
WORK = f"{', '.join(_FIRST)} and {_LAST} work today"


def chosen(folder: Path, text: str = "", name: str = "m") -> str:
    return choose(pbtxt.parse(text, "config.pbtxt").message, folder, name=name).name


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "1"
    path.mkdir()
    return path


@pytest.mark.parametrize(
    ("text", "backend"),
    [
        ('backend: "pytorch"', "pytorch"),
        ('platform: "pytorch_libtorch"', "pytorch"),
        ('platform: "libtorch"', "pytorch"),
        ('backend: "onnxruntime"', "onnxruntime"),
        ('platform: "onnxruntime_onnx"', "onnxruntime"),
        ('platform: "torch_aoti"', "pytorch"),
        ('backend: "pytorch" platform: "torch_aoti"', "pytorch"),
        ('backend: "identity"', "identity"),
        ('backend: "tensorflow"', "tensorflow"),
        ('platform: "tensorflow_savedmodel"', "tensorflow"),
        ('backend: "python"', "python"),
        ('backend: "pytorch" platform: "pytorch_libtorch"', "pytorch"),
    ],
)
def test_what_is_written_decides(folder, text, backend):
    (folder / "model.onnx").write_text("x")
    assert chosen(folder, text) == backend


def test_the_file_decides_else(folder):
    (folder / "model.pt").write_text("x")
    assert chosen(folder) == "pytorch"
    (folder / "model.pt2").write_text("x")
    assert chosen(folder) == "pytorch"


def test_a_class_is_chosen_where_the_backend_is_written(folder):
    for file in ("model.pt", "model.py"):
        (folder / file).write_text("x")
    written = choose(pbtxt.parse('backend: "pytorch"', "config.pbtxt").message, folder, name="m")
    assert written.default_filename == "model.py"
    assert choose(pbtxt.parse("", "config.pbtxt").message, folder, name="m").default_filename == "model.pt"


def test_exported_programs_have_a_worker_half_with_their_imports(folder):
    (folder / "model.pt2").write_text("x")
    backend = choose(pbtxt.parse("", "config.pbtxt").message, folder, name="m")
    assert [backend.half(file) for file in ("model.pt2", "model.pt", "model.py")] == [
        "pytorch_export",
        "pytorch",
        "pytorch",
    ]


def test_a_name_may_end_with_the_backend(folder):
    assert chosen(folder, name="echo.identity") == "identity"


@pytest.mark.parametrize("file", ["model.skops", "model.joblib", "model.pkl", "iris.SKOPS"])
def test_a_file_of_scikit_learn_decides(folder, file):
    (folder / file).write_text("x")
    assert choose(pbtxt.empty().message, folder, name="m").default_filename == file
    assert chosen(folder) == "sklearn"


def test_the_vllm_backend_is_told_where_its_models_go(folder):
    with pytest.raises(ConfigError) as caught:
        chosen(folder, 'backend: "vllm"')
    assert (caught.value.code, "engine: vllm" in caught.value.fix) == ("VLLM_BACKEND_DEPRECATED", True)


def test_the_order_of_files_is_tritons(folder):
    (folder / "model.py").write_text("x")
    assert chosen(folder) == "python"
    order = ["model.xml", "model.onnx", "model.plan"]
    for file in order:
        (folder / file).write_text("x")
        if file == "model.onnx":
            assert chosen(folder) == "onnxruntime"
            continue
        with pytest.raises(ConfigError, match=f"^'{file}': .*FORMAT_NOT_SERVED"):
            chosen(folder)
    (folder / "model.savedmodel").mkdir()
    assert chosen(folder) == "tensorflow"


@pytest.mark.parametrize("file", ["model.keras", "net.keras", "net.savedmodel", "saved_model.pb"])
def test_a_tensorflow_model_is_known_by_its_name(folder, file):
    (folder / file).write_text("x")
    backend = choose(pbtxt.empty().message, folder, name="m")
    assert (backend.name, backend.default_filename) == ("tensorflow", file)
    written = choose(pbtxt.parse('backend: "tensorflow"', "config.pbtxt").message, folder, name="m")
    assert written.default_filename == file


@pytest.mark.parametrize(
    ("file", "called"),
    [("net.keras", "model.keras"), ("pitch", "model.savedmodel"), ("x.SAVEDMODEL", "model.savedmodel")],
)
def test_a_model_outside_a_repository_is_called_after_its_suffix(file, called):
    assert alone("tensorflow", Path(file)).default_filename == called


REFUSED = {
    "later": (
        'backend: "openvino"',
        "backend 'openvino': OpenVINO models come with a later version of Naiad (FORMAT_NOT_SERVED); "
        "serve the ONNX file or the SavedModel",
    ),
    "later platform": (
        'platform: "tensorrt_plan"',
        "platform 'tensorrt_plan': TensorRT plans are not served (FORMAT_NOT_SERVED); "
        "a plan belongs to one GPU, serve the ONNX file that it was made from",
    ),
    "graphdef": (
        'platform: "tensorflow_graphdef"',
        "platform 'tensorflow_graphdef': frozen graphs are not served (FORMAT_NOT_SERVED); "
        "save the model as a SavedModel",
    ),
    "unknown": ('backend: "pytroch"', f"backend 'pytroch': unknown; {WORK}"),
    "contradiction": (
        'backend: "identity" platform: "pytorch_libtorch"',
        "platform 'pytorch_libtorch' belongs to backend 'pytorch', but backend says 'identity'",
    ),
    "a path": ('backend: "../../evil"', f"backend '../../evil': unknown; {WORK}"),
    "nothing": (
        "",
        "version folder '1' is empty (PATH_NOT_FOUND); expected a model file such as 'model.pt', "
        "or 'backend' in config.pbtxt",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("text", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_run_is_refused_by_name(folder, text, message):
    with pytest.raises(ConfigError) as caught:
        chosen(folder, text)
    assert str(caught.value) == message


def test_a_folder_without_a_model_file_tells_what_it_holds(folder):
    (folder / "Model.pt").write_text("x")
    (folder / "notes.txt").write_text("x")
    with pytest.raises(ConfigError) as caught:
        chosen(folder)
    assert str(caught.value) == (
        "version folder '1' holds Model.pt, notes.txt (PATH_NOT_FOUND); expected a model file such as 'model.pt', "
        "or 'backend' in config.pbtxt"
    )


def test_each_backend_has_its_worker_half_under_the_same_name():
    room = Path(naiad.__file__).parent / "_worker/naiad_worker/backends"
    halves = {half for backend in BACKENDS.values() for half in (backend.name, *backend.halves.values())}
    assert {path.stem for path in room.glob("*.py") if not path.stem.startswith("_")} == halves
    assert not LATER.keys() & BACKENDS.keys()
