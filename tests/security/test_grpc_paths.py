"""C1 over gRPC: the corpus of names and paths on every field that holds one."""

from __future__ import annotations

import json

import grpc
import pytest
from google.protobuf.message import Message
from tritonclient.grpc import service_pb2, service_pb2_grpc

from tests.security.test_paths import NAMES, PATHS

LOOKED_UP = "not found"


@pytest.fixture(scope="module")
def server(fenced):
    return fenced


@pytest.fixture
def stub(server):
    with grpc.insecure_channel(server.grpc) as channel:
        yield service_pb2_grpc.GRPCInferenceServiceStub(channel)


def _refused(call, message: Message) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        answer = call(message, timeout=30)
        pytest.fail(f"{message} was taken: {answer}")
    return caught.value.code(), caught.value.details()


METHODS = {
    "ModelReady": lambda name: service_pb2.ModelReadyRequest(name=name),
    "ModelMetadata": lambda name: service_pb2.ModelMetadataRequest(name=name),
    "ModelConfig": lambda name: service_pb2.ModelConfigRequest(name=name),
    "ModelStatistics": lambda name: service_pb2.ModelStatisticsRequest(name=name),
    "ModelInfer": lambda name: service_pb2.ModelInferRequest(model_name=name),
    "RepositoryModelLoad": lambda name: service_pb2.RepositoryModelLoadRequest(model_name=name),
    "RepositoryModelUnload": lambda name: service_pb2.RepositoryModelUnloadRequest(model_name=name),
}


@pytest.mark.parametrize("method", METHODS)
def test_c1_names(stub, method):
    for name in filter(None, NAMES):
        code, text = _refused(getattr(stub, method), METHODS[method](name))
        assert code is grpc.StatusCode.INVALID_ARGUMENT, (name, code, text)
        assert LOOKED_UP not in text and "root:" not in text, (name, text)


def test_c1_names_in_a_stream(stub):
    requests = [service_pb2.ModelInferRequest(model_name=name) for name in filter(None, NAMES)]
    replies = list(stub.ModelStreamInfer(iter(requests), timeout=60))
    assert len(replies) == len(requests)
    for request, reply in zip(requests, replies, strict=True):
        assert reply.error_message, request
        assert LOOKED_UP not in reply.error_message, (request, reply)


def test_c1_versions(stub):
    for version in ("..", "../1", "/1", "1/..", "\0", "1\n", "%31", "\uff11", "1.5", "1e0", "9" * 400):
        request = service_pb2.ModelMetadataRequest(name="m", version=version)
        code, text = _refused(stub.ModelMetadata, request)
        assert code is grpc.StatusCode.INVALID_ARGUMENT, (version, code, text)


def test_c1_c3_files_in_a_load_call(stub):
    for path in PATHS:
        request = service_pb2.RepositoryModelLoadRequest(model_name="m")
        request.parameters["config"].string_param = json.dumps({"backend": "identity"})
        request.parameters[f"file:{path}"].bytes_param = b"overwritten"
        _, text = _refused(stub.RepositoryModelLoad, request)
        assert "/tmp" not in text, text


def test_c1_names_of_repositories(stub):
    for name in filter(None, NAMES):
        for call, message in (
            (stub.RepositoryIndex, service_pb2.RepositoryIndexRequest(repository_name=name)),
            (stub.RepositoryModelLoad, service_pb2.RepositoryModelLoadRequest(repository_name=name, model_name="m")),
        ):
            code, _ = _refused(call, message)
            assert code in (grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.INVALID_ARGUMENT), (name, code)
