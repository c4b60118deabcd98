"""Stock tritonclient.http, unmodified, against a real server."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

DATATYPES = {
    "BOOL": np.array([[True, False, True]]),
    "UINT8": np.array([[0, 1, 255]], np.uint8),
    "UINT16": np.array([[0, 1, 65535]], np.uint16),
    "UINT32": np.array([[0, 1, 2**32 - 1]], np.uint32),
    "UINT64": np.array([[0, 1, 2**64 - 1]], np.uint64),
    "INT8": np.array([[-128, 0, 127]], np.int8),
    "INT16": np.array([[-32768, 0, 32767]], np.int16),
    "INT32": np.array([[-(2**31), 0, 2**31 - 1]], np.int32),
    "INT64": np.array([[-(2**63), 0, 2**63 - 1]], np.int64),
    "FP16": np.array([[0.5, -1.5, 65504]], np.float16),
    "FP32": np.array([[0.1, -1e-30, 3.4e38]], np.float32),
    "FP64": np.array([[0.1, -1e-300, 1.7e308]], np.float64),
    "STRING": np.array([["a", "ä", ""]], dtype=object),
}


@pytest.fixture(scope="module")
def server(module_repository, tmp_path_factory):
    from tests.support.server import serve

    for datatype in DATATYPES:
        module_repository.identity(datatype.lower(), datatype=datatype, dims="-1")
    module_repository.identity("loadable")
    log = tmp_path_factory.mktemp("log") / "serve.log"
    options = ["--model-control-mode=explicit"] + [f"--load-model={name.lower()}" for name in DATATYPES]
    with serve(module_repository.root, log, *options) as running:
        yield running.wait_ready()


@pytest.fixture
def client(server):
    with triton.InferenceServerClient(server.address) as client:
        yield client


def _input(array: np.ndarray, *, binary: bool) -> triton.InferInput:
    datatype = "BYTES" if array.dtype == object else np_to_triton_dtype(array.dtype)
    tensor = triton.InferInput("INPUT0", list(array.shape), datatype)
    tensor.set_data_from_numpy(array, binary_data=binary)
    return tensor


def test_health(client):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("fp32")
    assert client.is_model_ready("fp32", "1")
    assert not client.is_model_ready("loadable")
    assert not client.is_model_ready("nope")


def test_metadata_and_configuration(client):
    metadata = client.get_server_metadata()
    assert metadata["name"] == "naiad"
    assert "binary_tensor_data" in metadata["extensions"]
    model = client.get_model_metadata("fp32")
    assert model["inputs"] == [{"name": "INPUT0", "datatype": "FP32", "shape": [-1, -1]}]
    assert client.get_model_metadata("string")["inputs"][0]["datatype"] == "BYTES"
    config = client.get_model_config("fp32")
    assert config["input"][0]["data_type"] == "TYPE_FP32"
    assert config["input"][0]["dims"] == [-1]
    assert config["max_batch_size"] == 8


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
@pytest.mark.parametrize("name", DATATYPES)
def test_every_datatype_goes_there_and_back(client, name, binary_in, binary_out):
    array = DATATYPES[name]
    if name == "FP16" and not (binary_in and binary_out):
        pytest.skip("tritonclient itself refuses FP16 in JSON")
    output = triton.InferRequestedOutput("OUTPUT0", binary_data=binary_out)
    result = client.infer(name.lower(), [_input(array, binary=binary_in)], outputs=[output], request_id="7")
    got = result.as_numpy("OUTPUT0")
    if array.dtype == object:
        got = np.array([[e.decode() if isinstance(e, bytes) else e for e in got[0]]], dtype=object)
    np.testing.assert_array_equal(got, array)
    assert result.get_response()["id"] == "7"


def test_async_infer(client):
    pending = [client.async_infer("fp32", [_input(DATATYPES["FP32"], binary=True)]) for _ in range(8)]
    for each in pending:
        np.testing.assert_array_equal(each.get_result().as_numpy("OUTPUT0"), DATATYPES["FP32"])


def test_classification(client):
    output = triton.InferRequestedOutput("OUTPUT0", class_count=2)
    array = np.array([[0.5, 3.0, 1.0]], np.float32)
    got = client.infer("fp32", [_input(array, binary=True)], outputs=[output]).as_numpy("OUTPUT0")
    assert [element.decode() for element in got[0]] == ["3.000000:1", "1.000000:2"]


def test_statistics(client):
    client.infer("int32", [_input(DATATYPES["INT32"], binary=True)])
    row = client.get_inference_statistics("int32")["model_stats"][0]
    assert row["inference_stats"]["success"]["count"] >= 1
    assert row["inference_count"] >= 1 and row["execution_count"] >= 1
    everything = client.get_inference_statistics()["model_stats"]
    assert {entry["name"] for entry in everything} >= {"int32", "fp32"}


def test_load_unload_and_index(client):
    client.load_model("loadable")
    assert client.is_model_ready("loadable")
    rows = {row["name"]: row for row in client.get_model_repository_index()}
    assert rows["loadable"]["state"] == "READY"
    client.unload_model("loadable")
    assert not client.is_model_ready("loadable")


def test_load_with_a_configuration(client):
    config = client.get_model_config("fp32")
    config["max_batch_size"] = 4
    config["name"] = "loadable"
    config.pop("dynamic_batching", None)
    client.load_model("loadable", config=json.dumps(config))
    assert client.get_model_config("loadable")["max_batch_size"] == 4
    client.unload_model("loadable")


def test_errors_reach_the_caller(client):
    with pytest.raises(InferenceServerException, match="Request for unknown model: 'nope' is not found"):
        client.infer("nope", [_input(DATATYPES["FP32"], binary=True)])
    with pytest.raises(InferenceServerException, match="data-type is 'INT32', but model 'fp32' expects 'FP32'"):
        client.infer("fp32", [_input(DATATYPES["INT32"], binary=True)])
    too_many = np.zeros((9, 3), np.float32)
    with pytest.raises(InferenceServerException, match="inference request batch-size must be <= 8 for 'fp32'"):
        client.infer("fp32", [_input(too_many, binary=True)])
