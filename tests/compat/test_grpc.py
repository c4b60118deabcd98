"""Stock tritonclient.grpc, unmodified, against a real server (W39-W52)."""

from __future__ import annotations

import threading

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from tests.compat.test_http import DATATYPES

LIMIT = 2**31 - 1


@pytest.fixture(scope="module")
def server(module_repository, tmp_path_factory):
    from tests.support.server import serve

    for datatype in DATATYPES:
        module_repository.identity(datatype.lower(), datatype=datatype, dims="-1")
    module_repository.identity("loadable")
    log = tmp_path_factory.mktemp("log") / "serve.log"
    options = ["--model-control-mode=explicit", "--grpc-infer-response-compression-level=low"]
    options += [f"--load-model={name.lower()}" for name in DATATYPES]
    with serve(module_repository.root, log, *options) as running:
        yield running.wait_ready()


@pytest.fixture
def client(server):
    with triton.InferenceServerClient(server.grpc) as client:
        yield client


@pytest.fixture
def stub(server):
    with grpc.insecure_channel(server.grpc, options=[("grpc.max_receive_message_length", LIMIT)]) as channel:
        yield service_pb2_grpc.GRPCInferenceServiceStub(channel)


def _input(array: np.ndarray, name: str = "INPUT0") -> triton.InferInput:
    datatype = "BYTES" if array.dtype == object else np_to_triton_dtype(array.dtype)
    tensor = triton.InferInput(name, list(array.shape), datatype)
    tensor.set_data_from_numpy(array)
    return tensor


def _refused(call, *arguments, **named) -> tuple[str, str]:
    with pytest.raises(InferenceServerException) as caught:
        call(*arguments, **named)
    return caught.value.status(), caught.value.message()


def test_w11_health(client):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("fp32")
    assert client.is_model_ready("fp32", "1")
    assert not client.is_model_ready("loadable")
    assert not client.is_model_ready("nope")
    assert not client.is_model_ready("fp32", "9")
    assert _refused(client.is_model_ready, "fp32", "abc")[0] == "StatusCode.INVALID_ARGUMENT"


def test_w12_grpc_health(server):
    with grpc.insecure_channel(server.grpc) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        for service in ("", "inference.GRPCInferenceService", "whatever"):
            answer = stub.Check(health_pb2.HealthCheckRequest(service=service))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        watch = stub.Watch(health_pb2.HealthCheckRequest())
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        watch.cancel()


def test_reflection_describes_the_services(server):
    with grpc.insecure_channel(server.grpc) as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        asked = [
            reflection_pb2.ServerReflectionRequest(list_services=""),
            reflection_pb2.ServerReflectionRequest(file_containing_symbol="inference.GRPCInferenceService"),
            reflection_pb2.ServerReflectionRequest(file_containing_symbol="nope"),
        ]
        listed, described, unknown = stub.ServerReflectionInfo(iter(asked))
    names = {service.name for service in listed.list_services_response.service}
    assert {"inference.GRPCInferenceService", "grpc.health.v1.Health"} <= names
    assert len(described.file_descriptor_response.file_descriptor_proto) == 2
    assert unknown.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]


def test_metadata_and_configuration(client):
    metadata = client.get_server_metadata(as_json=True)
    assert metadata["name"] == "naiad"
    assert "binary_tensor_data" in metadata["extensions"]
    model = client.get_model_metadata("fp32", as_json=True)
    assert model["versions"] == ["1"]
    assert model["inputs"] == [{"name": "INPUT0", "datatype": "FP32", "shape": ["-1", "-1"]}]
    assert client.get_model_metadata("string").inputs[0].datatype == "BYTES"


def test_w51_the_configuration_is_the_message_itself(client, server):
    config = client.get_model_config("fp32").config
    assert (config.name, config.max_batch_size, config.backend) == ("fp32", 8, "identity")
    assert (config.input[0].name, list(config.input[0].dims)) == ("INPUT0", [-1])
    told = client.get_model_config("fp32", as_json=True)["config"]
    assert "platform" not in told  # defaults are absent
    assert server.get("/v2/models/fp32/config").json["instance_group"][0]["count"] == config.instance_group[0].count


@pytest.mark.parametrize("name", DATATYPES)
def test_w40_every_datatype_goes_there_and_back(client, name):
    array = DATATYPES[name]
    result = client.infer(name.lower(), [_input(array)], request_id="7")
    got = result.as_numpy("OUTPUT0")
    if array.dtype == object:
        got = np.array([[e.decode() for e in got[0]]], dtype=object)
    np.testing.assert_array_equal(got, array)
    response = result.get_response()
    assert (response.id, response.model_name, response.model_version) == ("7", name.lower(), "1")
    assert len(response.raw_output_contents) == 1 and not response.outputs[0].HasField("contents")


def test_large_tensors_go_there_and_back(client):
    """W45."""
    array = np.arange(3 << 20, dtype=np.float32).reshape(1, -1)
    np.testing.assert_array_equal(client.infer("fp32", [_input(array)]).as_numpy("OUTPUT0"), array)


def test_w41_w42_typed_contents_are_answered_raw(stub):
    def ask(**changes):
        tensor = {"name": "INPUT0", "datatype": "INT16", "shape": [1, 2], "contents": {"int_contents": [-2, 65537]}}
        tensor.update(changes)
        return stub.ModelInfer(service_pb2.ModelInferRequest(model_name="int16", inputs=[tensor]))

    assert list(ask().raw_output_contents) == [np.array([-2, 1], np.int16).tobytes()]
    with pytest.raises(grpc.RpcError) as caught:
        ask(contents={"fp32_contents": [1.0]})
    assert caught.value.details() == (
        "unexpected explicit tensor data for input tensor 'INPUT0' for model 'int16' of type 'FP32', "
        "expected datatype 'INT16'"
    )


def test_w43_parameters_are_typed(stub, client):
    array = np.zeros((1, 2), np.float32)
    client.infer("fp32", [_input(array)], priority=2, timeout=1_000_000, parameters={"own": 1, "text": "x"})
    request = service_pb2.ModelInferRequest(model_name="fp32")
    request.parameters["own"].uint64_param = 5
    with pytest.raises(grpc.RpcError) as caught:
        stub.ModelInfer(request)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert caught.value.details() == (
        "invalid value type for 'own' parameter, expected int64_param, bool_param, or string_param."
    )


def test_w43_a_negative_priority_is_refused(stub):
    for name in ("priority", "timeout"):
        request = service_pb2.ModelInferRequest(model_name="fp32")
        request.parameters[name].int64_param = -1
        with pytest.raises(grpc.RpcError) as caught:
            stub.ModelInfer(request)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert caught.value.details() == f"invalid value -1 for '{name}' parameter, expected >= 0."


def test_w44_classification(client):
    array = np.array([[1, 5, 3]], np.float32)
    output = triton.InferRequestedOutput("OUTPUT0", class_count=2)
    got = client.infer("fp32", [_input(array)], outputs=[output]).as_numpy("OUTPUT0")
    assert got.tolist() == [[b"5.000000:1", b"3.000000:2"]]


def test_w47_versions(client):
    tensor = _input(np.zeros((1, 2), np.float32))
    assert client.infer("fp32", [tensor], model_version="1").get_response().model_version == "1"
    refusals = {
        "abc": (
            "StatusCode.INVALID_ARGUMENT",
            "failed to get model version from specified version string 'abc' (details: stol), version should be an "
            "integral value > 0",
        ),
        "-1": (
            "StatusCode.INVALID_ARGUMENT",
            "invalid model version specified '-1' , version should be an integral value > 0",
        ),
        "9": ("StatusCode.NOT_FOUND", "Request for unknown model: 'fp32' version 9 is not found"),
        "0": ("StatusCode.NOT_FOUND", "Request for unknown model: 'fp32' version 0 is not found"),
    }
    for version, refusal in refusals.items():
        assert _refused(client.infer, "fp32", [tensor], model_version=version) == refusal


def test_refusals_have_the_texts_of_http(client, server):
    tensor = _input(np.zeros((1, 2), np.float32))
    wrong = _input(np.zeros((1, 2), np.float32), name="X")
    for model, asked in (("nope", tensor), ("fp32", wrong), ("int8", tensor), ("loadable", tensor)):
        data = {"name": asked.name(), "shape": [1, 2], "datatype": "FP32", "data": [0.0, 0.0]}
        body = {"id": "5", "inputs": [data]}
        told = server.post(f"/v2/models/{model}/infer", body).error
        assert _refused(client.infer, model, [asked], request_id="5")[1] == told
    assert _refused(client.get_model_metadata, "nope")[0] == "StatusCode.NOT_FOUND"
    status, text = _refused(client.get_inference_statistics, "nope")
    assert (status, text) == ("StatusCode.INVALID_ARGUMENT", "requested model 'nope' is not available")


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_compressed_both_ways(client, server, algorithm):
    array = np.zeros((1, 1 << 18), np.float32)
    result = client.infer("fp32", [_input(array)], compression_algorithm=algorithm)
    np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), array)


def test_w49_load_and_unload(client, server):
    assert not client.is_model_ready("loadable")
    client.load_model("loadable")
    assert client.is_model_ready("loadable")
    index = {row.name: row for row in client.get_model_repository_index().models}
    assert (index["loadable"].state, index["loadable"].version) == ("READY", "1")
    client.unload_model("loadable")
    server.until(lambda: not client.is_model_ready("loadable"), 30, "the model was not unloaded")
    client.unload_model("nope")
    status, text = _refused(client.load_model, "nope")
    assert (status, text) == (
        "StatusCode.INTERNAL",
        "failed to load 'nope', failed to poll from model repository",
    )
    files = {"file:1/model.bin": b"x"}
    status, _ = _refused(client.load_model, "loadable", config="{}", files=files)
    assert status == "StatusCode.PERMISSION_DENIED"  # W68: no key on this server


def test_w49_a_repository_name_is_refused(stub):
    with pytest.raises(grpc.RpcError) as caught:
        stub.RepositoryIndex(service_pb2.RepositoryIndexRequest(repository_name="r"))
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_w72_a_name_that_climbs_is_refused(client):
    status, text = _refused(client.load_model, "../x")
    assert status == "StatusCode.INVALID_ARGUMENT"
    assert text == "invalid model name '../x', model name must not contain path traversal characters"


def test_statistics_count_requests(client):
    tensor = _input(np.zeros((3, 2), np.int32))
    before = client.get_inference_statistics("int32").model_stats[0]
    client.infer("int32", [tensor])
    after = client.get_inference_statistics("int32").model_stats[0]
    assert after.inference_count - before.inference_count == 3
    assert after.inference_stats.success.count - before.inference_stats.success.count == 1
    everything = client.get_inference_statistics()
    assert {row.name for row in everything.model_stats} >= {"int32", "fp32"}


def test_w73_shared_memory_is_off(client):
    assert not client.get_system_shared_memory_status().regions
    assert not client.get_cuda_shared_memory_status().regions
    status, text = _refused(client.register_system_shared_memory, "r", "/k", 8)
    assert status == "StatusCode.UNIMPLEMENTED"
    assert text.startswith("Client shared memory is disabled.")
    tensor = triton.InferInput("INPUT0", [1, 2], "FP32")
    tensor.set_shared_memory("r", 8)
    assert _refused(client.infer, "fp32", [tensor])[0] == "StatusCode.UNIMPLEMENTED"


def test_async_infer(client):
    done = threading.Event()
    answers = []

    def called(result, error):
        answers.append((result, error))
        done.set()

    array = np.ones((1, 2), np.float32)
    client.async_infer("fp32", [_input(array)], called)
    assert done.wait(20)
    result, error = answers[0]
    assert error is None
    np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), array)
