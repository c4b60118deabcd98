"""A1-A6 over gRPC: every method of the live table by every kind of key, under its canonical name only."""

from __future__ import annotations

import grpc
import pytest
from google.protobuf import message_factory
from google.protobuf.message import Message
from tritonclient.grpc import service_pb2

from tests.support.keys import ALLOWED

SERVICE = "/inference.GRPCInferenceService/"
DENIED = {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED}


@pytest.fixture(scope="module")
def methods(secured):
    server, made = secured
    rows = [row for row in server.get("/naiad/v1/routes", X_API_Key=made["admin"]).json if row["verb"] == "GRPC"]
    known = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods_by_name
    assert {row["pattern"].removeprefix(SERVICE) for row in rows if row["pattern"].startswith(SERVICE)} == set(known)
    return rows


@pytest.fixture
def channel(secured):
    server, _ = secured
    with grpc.insecure_channel(server.grpc) as channel:
        yield channel


def _message(path: str) -> bytes:
    """The method's request about the model `mine`; methods of other services take an empty one."""
    if not path.startswith(SERVICE):
        return b""
    method = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods_by_name[path.rpartition("/")[2]]
    request: Message = message_factory.GetMessageClass(method.input_type)()
    for field in ("name", "model_name"):
        if field in method.input_type.fields_by_name and "Memory" not in path:
            setattr(request, field, "mine")
    return request.SerializeToString()


def _call(channel: grpc.Channel, path: str, message: bytes, *metadata: tuple[str, str]) -> tuple[grpc.StatusCode, str]:
    """The status and text of a call that sends one message, whatever the kind of the method."""
    call = channel.stream_stream(path)(iter([message]), metadata=metadata, timeout=20)
    try:
        for _ in call:
            if path.endswith("/Watch"):
                call.cancel()
                return grpc.StatusCode.OK, ""
    except grpc.RpcError as error:
        return error.code(), error.details()
    return call.code(), call.details()


def test_every_method_by_every_key(secured, methods, channel):
    _, made = secured
    for row in methods:
        path = row["pattern"]
        if path.endswith("RepositoryModelUnload"):
            continue  # it would take the model away from the rows behind it; see below
        # Errors of a stream's requests are told in the stream, unless the client asks for a status.
        strict = ("triton_grpc_error", "true")
        # Statistics of one model ask for that model's key.
        scope = "infer" if path.endswith("ModelStatistics") else row["scope"]
        for caller in (None, *made):
            key = [("x-api-key", made[caller])] if caller else []
            code, text = _call(channel, path, _message(path), strict, *key)
            where = f"{path} by {caller}: {code} {text}"
            if caller in ALLOWED[scope]:
                assert code not in DENIED, where
            elif caller in (None, "expired", "forged"):
                assert code is grpc.StatusCode.UNAUTHENTICATED, where
                assert "Authorization: Bearer" in text and "X-API-Key" in text, where
            else:
                assert code is grpc.StatusCode.PERMISSION_DENIED, where


def test_unload_is_for_managers(secured, channel):
    _, made = secured
    path = SERVICE + "RepositoryModelUnload"
    assert _call(channel, path, _message(path))[0] is grpc.StatusCode.UNAUTHENTICATED
    for caller in ("infer mine", "metrics"):
        assert _call(channel, path, _message(path), ("x-api-key", made[caller]))[0] is grpc.StatusCode.PERMISSION_DENIED


def test_both_headers_and_never_two_keys(secured, channel):
    _, made = secured
    path = SERVICE + "ModelMetadata"

    def code(*metadata: tuple[str, str]) -> grpc.StatusCode:
        return _call(channel, path, _message(path), *metadata)[0]

    assert code(("authorization", f"Bearer {made['infer mine']}")) is grpc.StatusCode.OK
    assert code(("authorization", f"Bearer {made['admin']}"), ("x-api-key", made["admin"])) is grpc.StatusCode.OK
    two = ("authorization", f"Bearer {made['admin']}"), ("x-api-key", made["infer mine"])
    assert code(*two) is grpc.StatusCode.UNAUTHENTICATED
    assert code(("authorization", f"Basic {made['admin']}")) is grpc.StatusCode.UNAUTHENTICATED


def test_a6_a_model_of_another_service_is_denied_whether_it_exists_or_not(secured, channel):
    _, made = secured
    for name in ("other", "nope", "../x"):
        message = service_pb2.ModelInferRequest(model_name=name).SerializeToString()
        code, _ = _call(channel, SERVICE + "ModelInfer", message, ("x-api-key", made["infer mine"]))
        assert code is grpc.StatusCode.PERMISSION_DENIED


def test_a6_each_request_of_a_stream_shows_its_key(secured, channel):
    _, made = secured
    messages = [service_pb2.ModelInferRequest(model_name=name, id=name) for name in ("other", "mine")]
    call = channel.stream_stream(
        SERVICE + "ModelStreamInfer",
        request_serializer=service_pb2.ModelInferRequest.SerializeToString,
        response_deserializer=service_pb2.ModelStreamInferResponse.FromString,
    )
    other, mine = call(iter(messages), metadata=[("x-api-key", made["infer mine"])], timeout=20)
    assert other.error_message == "the API key is not valid for model 'other'"
    assert "inputs" in mine.error_message


@pytest.mark.parametrize(
    "path",
    [
        f"/{SERVICE}ServerMetadata",
        f"{SERVICE}servermetadata",
        f"{SERVICE}ServerMetadata/",
        "/inference.GRPCInferenceService%2FServerMetadata",
        f"{SERVICE}../ServerMetadata",
        "/v2/health/live",
        "/",
    ],
)
def test_a3_another_spelling_is_no_method(secured, channel, path):
    _, made = secured
    code, _ = _call(channel, path, b"", ("x-api-key", made["admin"]))
    assert code is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("service", [SERVICE.lstrip("/"), SERVICE.replace("/", "%2F")])
def test_a3_a_path_without_a_slash_is_not_served(secured, channel, service):
    _, made = secured
    code, _ = _call(channel, service + "ServerMetadata", b"", ("x-api-key", made["admin"]))
    assert code is not grpc.StatusCode.OK


def test_lists_show_a_key_its_own_services(secured, channel):
    _, made = secured
    key = [("x-api-key", made["infer mine"])]
    index = channel.unary_unary(
        SERVICE + "RepositoryIndex", response_deserializer=service_pb2.RepositoryIndexResponse.FromString
    )
    assert {row.name for row in index(b"", metadata=key).models} == {"mine"}


def test_f2_a_foreign_authority_is_refused(secured):
    server, _ = secured
    options = [("grpc.default_authority", "evil.test")]
    with grpc.insecure_channel(server.grpc, options=options) as channel:
        code, text = _call(channel, SERVICE + "ServerLive", b"")
    assert code is grpc.StatusCode.PERMISSION_DENIED
    assert "evil.test" in text
