"""Kinds of PyTorch models through real servers and a stock client, against torch called directly."""

from __future__ import annotations

import io
import json
import os
import signal
import warnings
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton

from tests.support import real_models
from tests.support.repository import Repository
from tests.support.server import Serve, serve

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'naiad[torch]'")
from tests.support import torch_models  # noqa: E402 (it needs torch, too)

EXPLICIT = "--model-control-mode=explicit"
CLASS = """
import torch
from parts import Scale

class Net(torch.nn.Module):
    def __init__(self, width=4):
        super().__init__()
        self.linear = torch.nn.Linear(width, 2)
        self.scale = Scale()

    def forward(self, x, *, offset):
        return {"y": self.scale(self.linear(x)) + offset, "threads": torch.full((x.shape[0],), torch.get_num_threads())}
"""
PARTS = "import torch\n\nclass Scale(torch.nn.Module):\n    def forward(self, x):\n        return x * 3\n"
CLASS_CONFIG = """backend: "pytorch" max_batch_size: 8
input { name: "x" data_type: TYPE_FP32 dims: [ 4 ] }
input { name: "offset" data_type: TYPE_FP32 dims: [ 2 ] }
parameters { key: "NUM_THREADS" value { string_value: "2" } }
parameters { key: "INFERENCE_MODE" value { string_value: "false" } }
parameters { key: "ENABLE_WEIGHT_SHARING" value { string_value: "true" } }
parameters { key: "COLOUR" value { string_value: "blue" } }
"""
VOICE_CONFIG = """backend: "pytorch" max_batch_size: 0
input { name: "x" data_type: TYPE_FP32 dims: [ 1, 512 ] }
input { name: "sr" data_type: TYPE_INT64 dims: [ 1 ] }
output { name: "OUTPUT__0" data_type: TYPE_FP32 dims: [ 1, 1 ] }
"""


def infer(server: Serve, model: str, **arrays: np.ndarray) -> dict[str, np.ndarray]:
    """Outputs by name, asked for by the stock client with `__` for what a Python name cannot hold."""
    names = {np.dtype("float32"): "FP32", np.dtype("int64"): "INT64", np.dtype("bool"): "BOOL"}
    inputs = []
    for name, array in arrays.items():
        tensor = triton.InferInput(name, list(array.shape), names[array.dtype])
        tensor.set_data_from_numpy(array)
        inputs.append(tensor)
    with triton.InferenceServerClient(server.address) as client:
        result = client.infer(model, inputs)
        return {entry["name"]: result.as_numpy(entry["name"]) for entry in result.get_response()["outputs"]}


def images(count: int) -> np.ndarray:
    return np.random.default_rng(count).random((count, 1, 28, 28), dtype=np.float32)


def direct(model: Any, *arrays: np.ndarray, **keywords: np.ndarray) -> Any:
    with torch.inference_mode():
        given = {name: torch.from_numpy(array) for name, array in keywords.items()}
        return model(*(torch.from_numpy(array) for array in arrays), **given)


def trace(model: Any, example: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(model.eval(), example).save(str(path))


@pytest.fixture(scope="module")
def models(module_repository: Repository) -> dict[str, Any]:
    """The models in the repository, as torch calls them."""
    root = module_repository.root
    made = {
        "digits": torch_models.export_digits(root / "digits" / "1" / "model.pt2"),
        "tagger": torch_models.export_tagger(root / "tagger" / "1" / "model.pt2"),
    }
    folder = root / "class" / "1"
    folder.mkdir(parents=True)
    (folder / "model.py").write_text(CLASS)
    (folder / "parts.py").write_text(PARTS)
    (root / "class" / "config.pbtxt").write_text(CLASS_CONFIG)
    torch.manual_seed(7)
    made["class"] = torch.nn.Linear(4, 2)
    torch.save({f"linear.{name}": value for name, value in made["class"].state_dict().items()}, folder / "model.pt")
    trace(torch_models.Frozen(), torch.zeros(1, 1, 28, 28), root / "frozen" / "1" / "model.pt")
    made["frozen"] = torch_models.Frozen().eval()
    return made


@pytest.fixture(scope="module")
def server(models, module_repository, tmp_path_factory) -> Iterator[Serve]:
    log = tmp_path_factory.mktemp("log") / "serve.log"
    with serve(module_repository.root, log) as running:
        yield running.wait_ready(100)


def messages(server: Serve, model: str) -> list[str]:
    return [record["message"] for record in server.records() if record.get("model") == model]


# -- torch.export -----------------------------------------------------------------------------------------------------


def test_an_exported_program_serves_without_a_configuration(server, models):
    config = server.get("/v2/models/digits/config").json
    assert (config["backend"], config["default_model_filename"], config["max_batch_size"]) == (
        "pytorch",
        "model.pt2",
        32,
    )
    assert [(t["name"], t["data_type"], t["dims"]) for t in config["input"]] == [("image", "TYPE_FP32", [1, 28, 28])]
    for count in (1, 5, 32):
        (given,) = infer(server, "digits", image=images(count)).values()
        np.testing.assert_allclose(given, direct(models["digits"], images(count)).numpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["INPUT__0", "ARGS[0]"])
def test_inputs_have_the_names_that_triton_gives_them(repository, start, models, module_repository, name):
    repository.file("m", (module_repository.root / "digits" / "1" / "model.pt2").read_bytes(), file="model.pt2")
    text = f'platform: "torch_aoti" max_batch_size: 4 input {{ name: "{name}" data_type: TYPE_FP32 dims: [1, 28, 28] }}'
    (repository.root / "m" / "config.pbtxt").write_text(
        text + 'output { name: "RESULT" data_type: TYPE_FP32 dims: [ 10 ] }'
    )
    server = start().wait_ready()
    given = infer(server, "m", **{name: images(3)})["RESULT"]
    np.testing.assert_allclose(given, direct(models["digits"], images(3)).numpy(), rtol=1e-5, atol=1e-5)


def test_keywords_dictionaries_and_open_dims(server, models):
    meta = server.get("/v2/models/tagger").json
    assert [(t["name"], t["shape"]) for t in meta["inputs"]] == [("ids", [-1, -1]), ("mask", [-1, -1])]
    assert [(t["name"], t["shape"]) for t in meta["outputs"]] == [("hidden", [-1, -1, 4]), ("pooled", [-1, 4])]
    ids = np.random.default_rng(0).integers(0, 50, (3, 9))
    mask = np.arange(9) < np.array([[9], [4], [1]])
    given = infer(server, "tagger", mask=mask, ids=ids)
    for name, expected in direct(models["tagger"], ids, mask=mask).items():
        np.testing.assert_allclose(given[name], expected.numpy(), rtol=1e-5, atol=1e-5)


def test_a_wrong_shape_is_refused_before_the_program_runs(server):
    tensor = {"name": "image", "shape": [1, 1, 27, 28], "datatype": "FP32", "data": [0.0] * 27 * 28}
    answer = server.post("/v2/models/digits/infer", {"inputs": [tensor]})
    assert (answer.status, "[-1,1,28,28]" in answer.error) == (400, True)


def test_the_program_itself_refuses_what_its_range_does_not_hold(server):
    long = np.zeros((1, 129), dtype=np.int64)
    with pytest.raises(triton.InferenceServerException, match=r"Guard failed: ids\.size\(\)\[1\] <= 128"):
        infer(server, "tagger", ids=long, mask=long == 0)
    assert infer(server, "tagger", ids=long[:, :128], mask=long[:, :128] == 0)["pooled"].shape == (1, 4)


def test_a_batch_beyond_the_files_range_is_refused(repository, start, models, module_repository):
    repository.file("m", (module_repository.root / "digits" / "1" / "model.pt2").read_bytes(), file="model.pt2")
    (repository.root / "m" / "config.pbtxt").write_text("max_batch_size: 300")
    answer = start(EXPLICIT).wait_ready().post("/v2/repository/models/m/load")
    assert "max_batch_size: expected at most 256 as in the file, got 300" in answer.error


def test_requests_are_merged_and_each_gets_its_own_rows(server, models):
    before = server.get("/v2/models/digits/stats").json["model_stats"][0]
    with ThreadPoolExecutor(12) as pool:
        given = list(pool.map(lambda n: infer(server, "digits", image=images(n % 3 + 1))["OUTPUT__0"], range(60)))
    for n, rows in enumerate(given):
        np.testing.assert_allclose(rows, direct(models["digits"], images(n % 3 + 1)).numpy(), rtol=1e-4, atol=1e-5)
    after = server.get("/v2/models/digits/stats").json["model_stats"][0]
    assert after["execution_count"] - before["execution_count"] < 60


def test_a_killed_worker_comes_back_with_its_program(server, models):
    before = server.pid
    killed = next(r["pid"] for r in server.records() if r["message"] == "worker ready" and r["model"] == "digits")
    os.kill(killed, signal.SIGKILL)

    def answers() -> Any:
        answer = server.infer("digits", [0.0])  # of a wrong shape: only asks whether the model is there
        return answer.status == 400 and server.index()["digits"].get("reason") is None

    server.until(answers, 30, "the worker did not come back")
    (given,) = infer(server, "digits", image=images(2)).values()
    np.testing.assert_allclose(given, direct(models["digits"], images(2)).numpy(), rtol=1e-5, atol=1e-5)
    assert server.pid == before


# -- a class with weights ---------------------------------------------------------------------------------------------


def test_a_class_serves_with_its_weights_and_parameters(server, models):
    x, offset = np.arange(8, dtype=np.float32).reshape(2, 4), np.ones((2, 2), dtype=np.float32)
    given = infer(server, "class", offset=offset, x=x)
    expected = direct(models["class"], x).numpy() * 3 + 1
    np.testing.assert_allclose(given["y"], expected, rtol=1e-5, atol=1e-5)
    assert given["threads"].tolist() == [2, 2]
    said = messages(server, "class")
    assert "parameter COLOUR: the pytorch backend does not use it" in said
    assert any(message.startswith("parameter ENABLE_WEIGHT_SHARING: each instance") for message in said)


BROKEN = {
    "two modules": (CLASS + "class Other(Net): ...\n", "", "expected exactly one subclass of torch.nn.Module, got Net"),
    "an argument": (CLASS.replace("width=4", "width"), "", "Net() fails: TypeError"),
    "other weights": (CLASS.replace("Linear(width, 2)", "Linear(width, 3)"), "", "does not fit the class Net"),
    "a module that is missing": ("import nowhere_at_all\n" + CLASS, "", "No module named 'nowhere_at_all'"),
    "threads": (
        CLASS,
        'parameters { key: "NUM_INTEROP_THREADS" value { string_value: "many" } }',
        "expected a number of threads",
    ),
    "a flag": (CLASS, 'parameters { key: "INFERENCE_MODE" value { string_value: "on" } }', "expected true or false"),
    "compile": (
        CLASS,
        'parameters { key: "TORCH_COMPILE_OPTIONAL_PARAMETERS" value { string_value: "{" } }',
        "expected JSON",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def broken(models, module_repository, tmp_path_factory) -> Iterator[Serve]:
    repository = Repository(tmp_path_factory.mktemp("broken"))
    weights = (module_repository.root / "class" / "1" / "model.pt").read_bytes()
    for name, (source, parameters, _) in BROKEN.items():
        key = name.replace(" ", "-")
        repository.file(key, weights)
        repository.file(key, source.encode(), file="model.py")
        repository.file(key, PARTS.encode(), file="parts.py")
        text = "\n".join(line for line in CLASS_CONFIG.splitlines() if not parameters or "parameters" not in line)
        (repository.root / key / "config.pbtxt").write_text(text + parameters)
    with serve(repository.root, tmp_path_factory.mktemp("log") / "serve.log", EXPLICIT) as running:
        yield running.wait_ready()


@pytest.mark.parametrize("name", BROKEN)
def test_a_class_that_cannot_be_made_says_why(broken, name):
    answer = broken.post(f"/v2/repository/models/{name.replace(' ', '-')}/load")
    assert BROKEN[name][2] in answer.error
    assert "/" not in answer.error.replace(" / ", "")


# -- TorchScript ------------------------------------------------------------------------------------------------------


def test_a_frozen_batch_is_not_batched_and_names_the_operation(server, models):
    assert server.get("/v2/models/frozen/config").json["max_batch_size"] == 0
    (note,) = [message for message in messages(server, "frozen") if message.startswith("no batching: ")]
    assert "a run at batch 2 fails" in note
    assert "torch.view(" in note
    (given,) = infer(server, "frozen", image=images(1)).values()
    np.testing.assert_allclose(given, direct(models["frozen"], images(1)).numpy(), rtol=1e-5, atol=1e-5)


def test_a_batch_size_for_a_frozen_batch_is_refused(repository, start, models, module_repository):
    repository.file("m", (module_repository.root / "frozen" / "1" / "model.pt").read_bytes())
    (repository.root / "m" / "config.pbtxt").write_text("max_batch_size: 8")
    answer = start(EXPLICIT).wait_ready().post("/v2/repository/models/m/load")
    assert "(BATCH_FROZEN)" in answer.error
    assert "torch.view(" in answer.error


def test_a_real_model_with_a_number_and_a_state_of_its_own(repository, start):
    """silero-vad: its rate is a whole number, and what it says of a chunk depends on the chunks before it."""
    path = real_models.path("silero-vad.jit")
    repository.file("voice", path.read_bytes())
    (repository.root / "voice" / "config.pbtxt").write_text(VOICE_CONFIG)
    server = start().wait_ready()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = torch.jit.load(path)
    model.eval()
    sound = np.sin(np.arange(5 * 512) / np.linspace(3, 40, 5 * 512)).astype(np.float32).reshape(5, 1, 512)
    for chunk in sound:
        given = infer(server, "voice", x=chunk, sr=np.array([16000]))["OUTPUT__0"]
        expected = model(torch.from_numpy(chunk), 16000).detach().numpy()
        np.testing.assert_allclose(given, expected, rtol=1e-4, atol=1e-5)


class Keyed(torch.nn.Module):
    def forward(self, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {"sum": tensors["a"] + tensors["b"]}


def test_a_single_dictionary_takes_its_inputs_by_name(repository, start):
    folder = repository.root / "m" / "1"
    folder.mkdir(parents=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(Keyed()).save(str(folder / "model.pt"))
    tensors = [f'input {{ name: "{name}" data_type: TYPE_FP32 dims: [ 2 ] }}' for name in "ba"]
    (repository.root / "m" / "config.pbtxt").write_text("max_batch_size: 4 " + " ".join(tensors))
    server = start().wait_ready()
    one = np.ones((1, 2), dtype=np.float32)
    assert infer(server, "m", a=one, b=one * 2)["sum"].tolist() == [[3.0, 3.0]]


# -- what cannot be served --------------------------------------------------------------------------------------------


class OnGpu(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.zeros(1, device="cuda:0")


def test_refusals_carry_their_code_and_what_to_do(repository, start):
    trace(torch_models.Digits(), torch.zeros(1, 1, 28, 28), repository.root / "sizes" / "1" / "model.pt")
    text = 'max_batch_size: 4 input { name: "image" data_type: TYPE_FP32 dims: [ 1, 20, 20 ] }'
    (repository.root / "sizes" / "config.pbtxt").write_text(text)
    (repository.root / "gpu" / "1").mkdir(parents=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(OnGpu()).save(str(repository.root / "gpu" / "1" / "model.pt"))
    (repository.root / "gpu" / "config.pbtxt").write_text('input { name: "x" data_type: TYPE_FP32 dims: [ 2 ] }')
    (repository.root / "weights" / "1").mkdir(parents=True)
    torch.save(torch_models.Digits().state_dict(), repository.root / "weights" / "1" / "model.pt")
    server = start("--strict-readiness=false").wait_settled("sizes", "gpu", "weights")
    records = {r["model"]: r for r in server.records() if r["message"].startswith("failed to load")}
    assert {name: record["code"] for name, record in records.items()} == {
        "sizes": "IO_MISMATCH",
        "gpu": "CUDA_ONLY_TRACE",
        "weights": "WEIGHTS_ONLY",
    }
    assert records["sizes"]["fix"] == (
        'write input { name: "image" data_type: TYPE_FP32 dims: [ 1, 28, 28 ] } into config.pbtxt'
    )
    assert 'device=torch.device("cuda:0")' in records["gpu"]["cause"]
    assert records["gpu"]["fix"].startswith("save the model again from the CPU")
    assert "example = torch.zeros(2, 1, size, size)" in records["weights"]["fix"]


def hostile(command: str) -> bytes:
    """A pickle that runs a command when it is read."""
    text = command.encode()
    return b"\x80\x02cposix\nsystem\nX" + len(text).to_bytes(4, "little") + text + b"\x85R."


def test_pickles_in_an_exported_program_run_nothing(repository, start, models, module_repository, tmp_path):
    """torch itself would run them: it unpickles sample inputs and constants of any class."""
    canary = tmp_path / "canary"
    pickle = hostile(f"touch {canary}")
    saved = io.BytesIO()
    with zipfile.ZipFile(saved, "w") as archive:  # as torch.save writes a file
        for name, content in {"data.pkl": pickle, "version": b"3\n", "byteorder": b"little"}.items():
            archive.writestr(f"archive/{name}", content)
    constants = {
        "config": {"c": {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": True, "tensor_meta": None}}
    }
    changes = {
        "samples": {"model/data/sample_inputs/model.pt": saved.getvalue()},
        "constants": {
            "model/data/constants/model_constants_config.json": json.dumps(constants).encode(),
            "model/data/constants/opaque_obj_0": pickle,
        },
    }
    for name, changed in changes.items():
        (repository.root / name / "1").mkdir(parents=True)
        with (
            zipfile.ZipFile(module_repository.root / "digits" / "1" / "model.pt2") as source,
            zipfile.ZipFile(repository.root / name / "1" / "model.pt2", "w") as target,
        ):
            assert not changed.keys() - {*source.namelist(), "model/data/constants/opaque_obj_0"}
            for member, content in ({member: source.read(member) for member in source.namelist()} | changed).items():
                target.writestr(member, content)
    server = start(EXPLICIT).wait_ready()
    for name in changes:
        answer = server.post(f"/v2/repository/models/{name}/load")
        assert "'model.pt2' holds a pickle that could run code (UNSAFE_PICKLE)" in answer.error
    assert not canary.exists()
