"""H1-H3 over gRPC: refusals tell clients nothing about the inside, and no log shows a secret or a forged line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from tritonclient.grpc import service_pb2, service_pb2_grpc

from naiad import keys
from tests.security.test_leaks import BROKEN, INSIDE
from tests.support.server import serve


@pytest.fixture(scope="module")
def server(module_repository, tmp_path_factory):
    module_repository.identity("m")
    module_repository.identity("words", datatype="STRING", dims="1")
    module_repository.file("broken", b"no model")
    (module_repository.root / "broken" / "config.pbtxt").write_text(BROKEN)
    log = tmp_path_factory.mktemp("log") / "serve.log"
    options = ["--model-control-mode=explicit", "--load-model=m", "--load-model=words", "--log-format=json"]
    with serve(module_repository.root, log, *options, "--allow-file-override=true") as running:
        yield running.wait_ready()


@pytest.fixture
def stub(server):
    with grpc.insecure_channel(server.grpc) as channel:
        yield service_pb2_grpc.GRPCInferenceServiceStub(channel)


def _infer(model: str = "m", raw: bytes = bytes(64), **tensor: Any) -> service_pb2.ModelInferRequest:
    request = service_pb2.ModelInferRequest(model_name=model, raw_input_contents=[raw])
    request.inputs.add(**{"name": "INPUT0", "datatype": "FP32", "shape": [1, 16], **tensor})
    return request


def _with(parameters: dict[str, dict[str, Any]], request: Any = None) -> Any:
    message = request or _infer()
    for name, choice in parameters.items():
        for kind, value in choice.items():
            setattr(message.parameters[name], kind, value)
    return message


def _load(model: str, **parameters: dict[str, Any]) -> service_pb2.RepositoryModelLoadRequest:
    named = {name.replace("__", ":"): choice for name, choice in parameters.items()}
    return _with(named, service_pb2.RepositoryModelLoadRequest(model_name=model))


def _region(kind: str) -> Any:
    message = getattr(service_pb2, f"{kind}SharedMemoryRegisterRequest")(name="r")
    if kind == "System":
        message.key = "/dev/shm/x"
    return message


def failures() -> Iterator[tuple[str, Message]]:
    """Calls that are refused, as pairs of method and message."""
    shapes = ([1], [], [-1, 16], [0, 16], [9, 16], [1, 17], [2**62, 4], [2**31] * 3, [1] * 100, [2**63 - 1])
    yield from (("ModelInfer", _infer(shape=shape)) for shape in shapes)
    yield from (("ModelInfer", _infer(datatype=name)) for name in ("INT8", "x", "", "BYTES", "FP16", "/tmp"))
    yield from (("ModelInfer", _infer(name=name)) for name in ("x", "", "INPUT1", "../x"))
    yield from (("ModelInfer", _infer(raw=bytes(size))) for size in (0, 1, 63, 65, 4096))
    yield from (("ModelInfer", _infer("words", raw, datatype="BYTES", shape=[1, 1])) for raw in BAD_WORDS)
    yield from (("ModelInfer", _infer(model)) for model in ("nope", "broken", "../m", "a" * 300))
    yield from (("ModelInfer", _with({name: choice})) for name, choice in BAD_PARAMETERS)
    doubled = _infer()
    doubled.inputs.add(name="INPUT0", datatype="FP32", shape=[1, 16])
    yield "ModelInfer", doubled
    unknown = _infer()
    unknown.outputs.add(name="x")
    yield "ModelInfer", unknown
    region = _infer()
    region.inputs[0].parameters["shared_memory_region"].string_param = "r"
    yield "ModelInfer", region
    for method in ("ModelMetadata", "ModelConfig"):
        for name, version in (("nope", ""), ("m", "9"), ("m", "abc"), ("m", "-1"), ("..", "")):
            yield method, getattr(service_pb2, f"{method}Request")(name=name, version=version)
    yield "ModelStatistics", service_pb2.ModelStatisticsRequest(name="nope")
    yield "RepositoryModelLoad", _load("nope")
    yield "RepositoryModelLoad", _load("broken")
    yield "RepositoryModelLoad", _load("m", config={"string_param": "{"})
    yield "RepositoryModelLoad", _load("m", config={"int64_param": 5})
    yield "RepositoryModelLoad", _load("m", x={"string_param": "y"})
    yield "RepositoryModelLoad", _load("m", config={"string_param": "{}"}, file__={"bytes_param": b"x"})
    yield "SystemSharedMemoryRegister", _region("System")
    yield "CudaSharedMemoryRegister", _region("Cuda")


BAD_WORDS = (b"", b"\1\0\0", b"\xff\xff\xff\xff", b"\5\0\0\0abc", b"\0\0\0\0\0\0\0\0")
BAD_PARAMETERS = [
    ("own", {"uint64_param": 1}), ("priority", {"int64_param": -1}), ("priority", {"string_param": "x"}),
    ("timeout", {"int64_param": -1}), ("sequence_id", {"uint64_param": 1}), ("sequence_start", {"int64_param": 1}),
    ("triton_x", {"bool_param": True}), ("triton_enable_empty_final_response", {"int64_param": 1}),
]  # fmt: skip


def test_h1_failures_name_nothing_of_the_inside(server, stub):
    seen = 0
    for method, message in failures():
        with pytest.raises(grpc.RpcError) as caught:
            answer = getattr(stub, method)(message, timeout=60)
            pytest.fail(f"{method} took {message}: {answer}")
        text = caught.value.details()
        # The client's own words may stand in an answer.
        inside = INSIDE.search(text.replace("'/tmp'", ""))
        assert not inside, (method, message, text)
        assert caught.value.code() is not grpc.StatusCode.UNKNOWN, (method, message, text)
        seen += 1
    assert seen >= 50
    assert server.infer("m", [0.0] * 16).status == 200


def test_h1_errors_of_a_stream_name_nothing_of_the_inside(stub):
    requests = [message for method, message in failures() if method == "ModelInfer"]
    for reply in stub.ModelStreamInfer(iter(requests), timeout=60):
        assert reply.error_message
        assert not INSIDE.search(reply.error_message.replace("'/tmp'", "")), reply


def test_h2_one_record_is_one_line(server, stub):
    forged = 'x\n{"level":"info","message":"forged"}\r\n\x1b[31m'
    request = _with({forged: {"string_param": forged}})
    request.id = forged
    stub.ModelInfer(request)
    for message in (_infer(forged), _infer(name=forged), _infer(datatype=forged)):
        with pytest.raises(grpc.RpcError):
            stub.ModelInfer(message)
    for load in (_load(forged), _load("broken", config={"string_param": json.dumps({"name": forged})})):
        with pytest.raises(grpc.RpcError):
            stub.RepositoryModelLoad(load)
    for line in server.log.read_bytes().splitlines():
        assert json.loads(line).get("message") != "forged"
        assert b"\x1b" not in line


def test_h3_no_secret_is_shown(repository, start, tmp_path):
    repository.identity("m")
    key, restricted = keys.make_key().reveal(), "swordfish-of-the-day"
    row = {"id": key[3:11], "digest": keys.digest(key), "scopes": ["admin"], "services": [], "expires": None}
    (tmp_path / "keys.json").write_text(json.dumps({"keys": [row]}))
    protocol = f"--grpc-restricted-protocol=metadata:door={restricted}"
    server = start(f"--keys-file={tmp_path / 'keys.json'}", "--log-verbose=2", protocol)
    server.headers["X-API-Key"] = key
    server.wait_ready()
    door = ("triton-grpc-protocol-door", restricted)
    told = []
    with grpc.insecure_channel(server.grpc) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        for metadata in (
            [("x-api-key", key)], [("x-api-key", key), door], [("authorization", f"Bearer {key}"), door],
            [("x-api-key", key + "x"), door], [("x-api-key", key), ("triton-grpc-protocol-door", restricted + "x")],
        ):  # fmt: skip
            for call, message in (
                (stub.ServerMetadata, service_pb2.ServerMetadataRequest()),
                (stub.ModelInfer, _infer()),
                (stub.ModelConfig, service_pb2.ModelConfigRequest(name="m")),
            ):
                try:
                    told.append(str(call(message, metadata=metadata, timeout=30)))
                except grpc.RpcError as error:
                    told.append(error.details())
    text = "".join(told) + server.log.read_text()
    assert key not in text and key[11:] not in text
    assert restricted not in text
