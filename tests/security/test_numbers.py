"""B2-B5: numbers, depths and sizes that lie, over HTTP and gRPC; refused, never converted or overflowed."""

from __future__ import annotations

import base64
import json
import random
import struct
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from tests.support.server import serve

ROW = [0.0] * 16
WRONG = ["1e309", "1.5", "1e0", "-0", "-1", "9" * 400, '"1"', "null", "[]", "{}", "true", str(2**64)]
"""What is no integer from 0 up, as JSON."""
HUGE = [2**31, 2**32, 2**33 + 1, 2**62, 2**63 - 1]

SQUARE = """backend: "square"
max_batch_size: 0
model_transaction_policy { decoupled: true }
input { name: "IN" data_type: TYPE_INT32 dims: [ -1 ] }
output { name: "OUT" data_type: TYPE_INT32 dims: [ 1 ] }
"""


@pytest.fixture(scope="module")
def server(module_repository, tmp_path_factory):
    module_repository.identity("m")
    module_repository.identity("wide", dims="-1, -1", max_batch=0)
    module_repository.identity("words", datatype="STRING", dims="-1", max_batch=0)
    module_repository.identity("square")
    (module_repository.root / "square" / "config.pbtxt").write_text(SQUARE)
    log = tmp_path_factory.mktemp("log") / "serve.log"
    with serve(module_repository.root, log, "--model-control-mode=explicit", "--load-model=*") as running:
        running.wait_ready()
        yield running
        assert running.process.poll() is None, "the server died"
        assert running.infer("m", ROW).status == 200
        assert "panicked" not in log.read_text()


@pytest.fixture
def stub(server) -> Iterator[service_pb2_grpc.GRPCInferenceServiceStub]:
    with grpc.insecure_channel(server.grpc) as channel:
        yield service_pb2_grpc.GRPCInferenceServiceStub(channel)


def _status(stub, message: service_pb2.ModelInferRequest) -> grpc.StatusCode:
    try:
        stub.ModelInfer(message, timeout=60)
    except grpc.RpcError as error:
        return error.code()
    return grpc.StatusCode.OK


def _request(model: str, shape: list[int], raw: bytes, datatype: str = "FP32") -> service_pb2.ModelInferRequest:
    message = service_pb2.ModelInferRequest(model_name=model, raw_input_contents=[raw])
    message.inputs.add(name="INPUT0", datatype=datatype, shape=shape)
    return message


@pytest.mark.parametrize("value", WRONG)
def test_b4_fields_that_hold_integers(server, value):
    tensor = '"name":"INPUT0","shape":[1,16],"datatype":"FP32"'
    data = f'"data":{json.dumps(ROW)}'
    bodies = [
        f'{{"inputs":[{{{tensor},{data}}}],"parameters":{{"{name}":{value}}}}}' for name in ("priority", "timeout")
    ]
    bodies.append(f'{{"inputs":[{{{tensor},"parameters":{{"binary_data_size":{value}}}}}]}}')
    output = f'{{"name":"OUTPUT0","parameters":{{"classification":{value}}}}}'
    bodies.append(f'{{"inputs":[{{{tensor},{data}}}],"outputs":[{output}]}}')
    bodies.append(f'{{"inputs":[{{"name":"INPUT0","shape":[{value},16],"datatype":"FP32",{data}}}]}}')
    for body in bodies:
        answer = server.post("/v2/models/m/infer", body.encode())
        assert answer.status == 400, (body, answer.body)


@pytest.mark.parametrize("value", ["1.5", "1e0", "-1", "0x1", " 1", "9" * 400, str(2**63), "1_0", "\u0661"])
def test_b4_versions(server, stub, value):
    for verb, path in (("GET", ""), ("GET", "/config"), ("POST", "/infer")):
        answer = server.send(verb, f"/v2/models/m/versions/{quote(value)}{path}", b"{}" if verb == "POST" else None)
        assert answer.status in (400, 404), (value, path, answer.body)
    with pytest.raises(grpc.RpcError):
        stub.ModelMetadata(service_pb2.ModelMetadataRequest(name="m", version=value))


@pytest.mark.parametrize("value", [-1, -(2**63), 0])
def test_b4_integers_over_grpc(stub, value):
    message = _request("m", [1, 16], bytes(64))
    message.outputs.add(name="OUTPUT0").parameters["classification"].int64_param = value
    assert _status(stub, message) is grpc.StatusCode.INVALID_ARGUMENT


def test_b3_b4_numbers_of_shapes_over_grpc(stub):
    rng = random.Random(3)
    for _ in range(400):
        dims = [rng.choice([-1, 0, 1, 2, 3, *HUGE, rng.randrange(1, 50)]) for _ in range(rng.choice([1, 2, 2, 2, 3]))]
        count = int(np.prod([int(dim) for dim in dims], dtype=object))
        size = 4 * min(max(count, 0), 100) + rng.choice([0, 0, 0, 1, 4])
        # Without elements the other dims must not overflow either: a worker could not make the array.
        fits = len(dims) == 2 and min(dims) >= 0 and size == 4 * count and max(dims) * 8 < 2**63
        wanted = grpc.StatusCode.OK if fits else grpc.StatusCode.INVALID_ARGUMENT
        assert _status(stub, _request("wide", dims, bytes(size))) is wanted, (dims, size)


@pytest.mark.parametrize("length", [2**32 - 1, 2**31, 5, 4])
def test_b3_lengths_of_strings(server, stub, length):
    """Four bytes follow, and the length says otherwise but for the last one."""
    raw = struct.pack("<I", length) + b"abcd"
    wanted = grpc.StatusCode.OK if length == 4 else grpc.StatusCode.INVALID_ARGUMENT
    assert _status(stub, _request("words", [1], raw, "BYTES")) is wanted
    named = {"name": "INPUT0", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": len(raw)}}
    head = json.dumps({"inputs": [named]}).encode()
    answer = server.post("/v2/models/words/infer", head + raw, Inference_Header_Content_Length=str(len(head)))
    assert answer.status == (200 if length == 4 else 400), answer.body


@pytest.mark.parametrize("size", [0, 63, 65, 2**31, 2**62, 2**63 - 1, 2**64 - 1])
def test_b3_sizes_of_binary_tensors(server, size):
    named = {"name": "INPUT0", "shape": [1, 16], "datatype": "FP32", "parameters": {"binary_data_size": size}}
    head = json.dumps({"inputs": [named]}).encode()
    answer = server.post("/v2/models/m/infer", head + bytes(64), Inference_Header_Content_Length=str(len(head)))
    assert answer.status == 400, answer.body


@pytest.mark.parametrize("shape", [[0], [0, 4], [4, 0], [0, 0]])
def test_b5_tensors_without_elements(server, stub, shape):
    """Each backend gives as many back, or refuses them; none gives what it did not make."""
    for model in ("wide", "m", "words", "square"):
        datatype = {"words": "BYTES", "square": "INT32"}.get(model, "FP32")
        name = "IN" if model == "square" else "INPUT0"
        tensor: dict[str, Any] = {"name": name, "shape": shape, "datatype": datatype, "data": []}
        path = "generate_stream" if model == "square" else "infer"
        body = {"IN": []} if model == "square" else {"inputs": [tensor]}
        answer = server.post(f"/v2/models/{model}/{path}", body)
        assert answer.status in (200, 400, 500), (model, shape, answer.body)
        if answer.status == 200 and model != "square":
            (output,) = answer.json["outputs"]
            assert output["data"] == [] and output["shape"] == shape
        if model != "square":
            code = _status(stub, _request(model, shape, b"", datatype))
            assert (code is grpc.StatusCode.OK) == (answer.status == 200), (model, shape, code)
    assert server.post("/v2/models/square/generate", {"IN": [1]}).json["OUT"] == 1


@pytest.mark.filterwarnings("ignore:.*torch.jit.*")
def test_b5_torch_takes_rows_without_elements(torch, repository, start):
    repository.torchscript("linear", torch.nn.Linear(4, 2), torch.zeros(1, 4))
    server = start().wait_ready()
    name = server.get("/v2/models/linear").json["inputs"][0]["name"]
    tensor = {"name": name, "shape": [0, 4], "datatype": "FP32", "data": []}
    answer = server.post("/v2/models/linear/infer", {"inputs": [tensor]})
    if answer.status == 200:
        (output,) = answer.json["outputs"]
        assert (output["shape"], output["data"]) == ([0, 2], [])
    else:
        assert answer.status in (400, 500)
    full = {"name": name, "shape": [1, 4], "datatype": "FP32", "data": [0, 0, 0, 0]}
    assert server.post("/v2/models/linear/infer", {"inputs": [full]}).status == 200


def _nested(depth: int) -> str:
    return '{"parameters":' + "[" * depth + "]" * depth + "}"


@pytest.mark.parametrize("depth", [1000, 1_000_000])
def test_b2_a_deep_configuration_in_a_load_call(server, stub, depth):
    answer = server.post("/v2/repository/models/m/load", {"parameters": {"config": _nested(depth)}})
    assert answer.status == 400, answer.body
    message = service_pb2.RepositoryModelLoadRequest(model_name="m")
    message.parameters["config"].string_param = _nested(depth)
    with pytest.raises(grpc.RpcError) as caught:
        stub.RepositoryModelLoad(message, timeout=60)
    assert caught.value.code() is not grpc.StatusCode.UNAVAILABLE
    assert server.infer("m", ROW).status == 200


@pytest.mark.parametrize("path", ["/v2/repository/index", "/v2/repository/models/m/load", "/v2/models/m/generate"])
def test_b2_depth_on_the_other_routes(server, path):
    for body in (b"[" * 1_000_000, b'{"a":' * 100_000, b'{"parameters":' + b"[" * 500_000):
        assert server.post(path, body).status == 400


def test_b3_files_that_are_no_base64(server):
    for content in ("=", "a", "####", base64.b64encode(b"x").decode() + "=", "\0"):
        parameters = {"config": json.dumps({"backend": "identity"}), "file:1/x": content}
        assert server.post("/v2/repository/models/m/load", {"parameters": parameters}).status in (400, 403)
