"""TensorFlow and Keras models behind a real server, asked by stock clients; answers are those of TensorFlow itself."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from tritonclient import grpc, http
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from tests.support import real_models
from tests.support.repository import Repository
from tests.support.server import Serve, serve
from tests.support.tensorflow_models import ADD_SUB, FEATURES, PAIR, TEXTS, TYPES, Models, direct

OLD = """parameters { key: "TF_GRAPH_TAG" value { string_value: "serve,cpu" } }
parameters { key: "TF_INIT_OPS_FILE" value { string_value: "init_ops.json" } }
parameters { key: "TF_NUM_INTER_THREADS" value { string_value: "2" } }
parameters { key: "TF_USE_PER_SESSION_THREADS" value { string_value: "yes" } }
"""
RENAMED = """platform: "tensorflow_savedmodel" max_batch_size: 8
input { name: "LEFT" data_type: TYPE_FP32 dims: [ 4 ] }
input { name: "RIGHT" data_type: TYPE_FP32 dims: [ 4 ] }
output { name: "difference" data_type: TYPE_FP32 dims: [ 4 ] }
parameters { key: "naiad.argument.LEFT" value { string_value: "a" } }
parameters { key: "naiad.argument.RIGHT" value { string_value: "b" } }
dynamic_batching { max_queue_delay_microseconds: 100000 preferred_batch_size: [ 6 ] }
"""
TWICE = 'parameters { key: "TF_SIGNATURE_DEF" value { string_value: "twice" } }'
PLAIN = {"add-sub": ADD_SUB, "texts": TEXTS, "exported": FEATURES, "functional.keras": FEATURES, "pair.keras": PAIR,
         "sequential.keras": {"input_layer": FEATURES["features"]}}  # fmt: skip


@pytest.fixture(scope="module")
def server(
    tensorflow_models: Models, module_repository: Repository, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Serve]:
    root = module_repository.root
    for name in (*PLAIN, "types", "keeping", "shapes"):
        tensorflow_models.install(name, root, model=name.replace(".", "-"))
    tensorflow_models.install("old", root, model="old", config=OLD)
    (root / "old" / "init_ops.json").write_text('{"init_ops": ["fill"]}')
    tensorflow_models.install("add-sub", root, model="renamed", file="net.savedmodel", config=RENAMED)
    tensorflow_models.install("several", root, model="chosen", config=TWICE)
    with serve(root, tmp_path_factory.mktemp("log") / "serve.log") as running:
        yield running.wait_settled(*os.listdir(root), seconds=110)


@pytest.fixture(params=[http, grpc], ids=["http", "grpc"])
def client(request, server):  # type: ignore[no-untyped-def]
    address = server.address if request.param is http else server.grpc
    with request.param.InferenceServerClient(address) as stock:
        stock.module = request.param
        yield stock


def infer(client, model: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:  # type: ignore[no-untyped-def]
    tensors = []
    for name, array in inputs.items():
        datatype = "BYTES" if array.dtype == object else np_to_triton_dtype(array.dtype)
        tensor = client.module.InferInput(name, list(array.shape), datatype)
        tensor.set_data_from_numpy(array)
        tensors.append(tensor)
    answer = client.infer(model, tensors)
    outputs = answer.get_response()["outputs"] if client.module is http else answer.get_response().outputs
    names = [output["name"] if client.module is http else output.name for output in outputs]
    return {name: answer.as_numpy(name) for name in names}


def equal(got: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert set(got) == set(expected)
    for name, array in expected.items():
        assert got[name].shape == array.shape
        if array.dtype == object:
            assert got[name].tolist() == array.tolist()
        else:
            assert got[name].dtype == array.dtype
            np.testing.assert_allclose(got[name], array, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", PLAIN)
def test_answers_are_tensorflows(client, tensorflow_models, name):
    equal(infer(client, name.replace(".", "-"), PLAIN[name]), tensorflow_models.answer(name))


def test_every_datatype_arrives_and_comes_back(client):
    bfloat16 = pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed: pip install ml_dtypes").bfloat16
    row = [[1, 0, 2]]
    inputs = {name: np.array(row, dtype=bfloat16 if name == "BF16" else dtype) for name, dtype in TYPES.items()}
    tensors = []
    for name, array in inputs.items():
        tensor = client.module.InferInput(name, [1, 3], name)
        tensor.set_data_from_numpy(array)
        tensors.append(tensor)
    answer = client.infer("types", tensors)
    for name, array in inputs.items():
        np.testing.assert_array_equal(answer.as_numpy(f"{name}_OUT"), array[:, ::-1])


def test_scalars_and_open_dims_are_served(client):
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    got = infer(client, "shapes", {"scale": np.array([2.0], np.float32), "x": x})
    assert set(got) == {"scaled", "total"}
    assert got["total"].tolist() == [30.0]
    np.testing.assert_array_equal(got["scaled"], 2 * x)


def test_what_fails_in_the_model_is_told_without_its_stack(client):
    x = np.array([[np.nan]], np.float32)
    with pytest.raises(InferenceServerException) as caught:
        infer(client, "shapes", {"scale": np.array([1.0], np.float32), "x": x})
    assert caught.value.message().endswith("ValueError: scaled : Tensor had NaN values")


def test_a_model_of_tensorflow_1_serves(client):
    x = np.array([[1.0, 1.0], [0.0, -1.0]], np.float32)
    got = infer(client, "old", {"x": x})
    np.testing.assert_array_equal(got["same"], x)  # an input that is an output
    np.testing.assert_array_equal(got["y"], x * [2, 3] + [10, 20])  # which the listed operator filled


def test_a_signature_is_chosen_by_a_parameter(client):
    x = np.ones((2, 2), np.float32)
    equal(infer(client, "chosen", {"x": x}), {"y": 2 * x})


def test_inputs_are_mapped_by_argument_and_outputs_by_name(client):
    equal(
        infer(client, "renamed", {"LEFT": ADD_SUB["a"], "RIGHT": ADD_SUB["b"]}),
        {"difference": ADD_SUB["a"] - ADD_SUB["b"]},
    )


def test_what_a_model_keeps_is_its_own(client):
    """The arena gives an input's memory to the next request: a model that keeps its input gets a copy."""
    infer(client, "keeping", {"x": np.full(64, 7, np.float32)})
    for round_ in range(8):
        kept = infer(client, "keeping", {"x": np.full(64, round_, np.float32)})["before"]
        assert kept.tolist() == [7.0 if round_ == 0 else round_ - 1.0] * 64


def test_the_configuration_says_what_the_file_says(server):
    config = server.get("/v2/models/texts/config").json
    assert (config["backend"], config["default_model_filename"]) == ("tensorflow", "model.savedmodel")
    assert config["max_batch_size"] == 32
    assert [(t["name"], t["data_type"], t["dims"]) for t in config["input"] + config["output"]] == [
        ("left", "TYPE_STRING", [2]),
        ("right", "TYPE_STRING", [2]),
        ("joined", "TYPE_STRING", [2]),
        ("length", "TYPE_INT32", [2]),
    ]


def test_requests_are_executed_as_one_batch(server):
    before = server.get("/v2/models/renamed/stats").json["model_stats"][0]
    rows = [np.full((1, 4), row, np.float32) for row in range(6)]

    def ask(row: np.ndarray) -> np.ndarray:
        with grpc.InferenceServerClient(server.grpc) as stock:
            stock.module = grpc
            return infer(stock, "renamed", {"LEFT": row, "RIGHT": np.ones((1, 4), np.float32)})["difference"]

    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(ask, rows))
    for row, answer in zip(rows, answers, strict=True):
        np.testing.assert_array_equal(answer, row - 1)
    after = server.get("/v2/models/renamed/stats").json["model_stats"][0]
    assert after["inference_count"] - before["inference_count"] == 6
    assert after["execution_count"] - before["execution_count"] < 6


@pytest.mark.parametrize("shape", [(3, 5), (3, 4, 1), (12,)])
def test_a_wrong_shape_is_refused(client, shape):
    with pytest.raises(InferenceServerException, match=r"for (input 'a'|'add-sub')"):
        infer(client, "add-sub", {**ADD_SUB, "a": np.zeros(shape, np.float32)})


def workers(server: Serve, model: str) -> list[int]:
    """The pids of a model's workers in the order in which they came up."""
    ready = [r for r in server.records() if r["message"] == "worker ready" and r["model"] == model]
    return [record["pid"] for record in ready]


def test_workers_are_forks_of_one_process(server):
    commands = {
        (Path("/proc") / str(workers(server, model)[-1]) / "cmdline").read_text() for model in ("texts", "pair-keras")
    }
    assert len(commands) == 1
    assert "naiad_worker_start.py\0zygote" in commands.pop()


def test_models_are_loaded_and_unloaded_again_and_again(repository, start, tensorflow_models):
    """Each load forks a worker from a process that has imported TensorFlow; no fork may differ from the first."""
    tensorflow_models.install("texts", repository.root, model="texts")
    tensorflow_models.install("functional.keras", repository.root, model="keras")
    running = start("--model-control-mode=explicit").wait_ready()
    with http.InferenceServerClient(running.address) as stock:
        stock.module = http
        for _ in range(20):
            stock.load_model("texts")
            equal(infer(stock, "texts", TEXTS), tensorflow_models.answer("texts"))
            stock.unload_model("texts")
        for _ in range(3):
            stock.load_model("keras")
            equal(infer(stock, "keras", FEATURES), tensorflow_models.answer("functional.keras"))
            stock.unload_model("keras")
    assert len(set(workers(running, "texts"))) == 20


def test_a_real_model_of_keras_2(repository, start, tmp_path):
    """`tf.saved_model.load` refuses it for its optimizer's slots; the answer is that of a session of TensorFlow."""
    path = real_models.path("basic-pitch.savedmodel")
    shutil.copytree(path, repository.root / "pitch" / "1" / "model.savedmodel")
    sound = np.sin(np.arange(2 * 43844, dtype=np.float32) / 20).reshape(2, 43844, 1)
    expected = direct(path, {"input_2": sound}, tmp_path)
    running = start().wait_settled("pitch")
    with http.InferenceServerClient(running.address) as stock:
        stock.module = http
        equal(infer(stock, "pitch", {"input_2": sound}), expected)
