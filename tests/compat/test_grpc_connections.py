"""gRPC connections: how long they last, pings both ways, and protocols that ask for metadata (W46, W48)."""

from __future__ import annotations

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException

from tests.support import http2
from tests.support.http2 import Connection, frame, request

ACK = 1
FIELDS = ("content-type", "application/grpc"), ("te", "trailers")
LIVE = request("/inference.GRPCInferenceService/ServerLive", "POST", *FIELDS)
INFER = request("/inference.GRPCInferenceService/ModelInfer", "POST", *FIELDS)
NOTHING = bytes(5)
"""A message without bytes, with its prefix."""


def _live(connection: Connection, stream: int) -> bytes | None:
    """The message that answers a call of ServerLive, without its prefix."""
    ended = frame(http2.DATA, http2.END_STREAM, stream, NOTHING)
    connection.send(frame(http2.HEADERS, http2.END_HEADERS, stream, LIVE) + ended)
    answer = connection.until(http2.DATA, stream)
    return answer and answer[5:]


def _request(model: str) -> service_pb2.ModelInferRequest:
    message = service_pb2.ModelInferRequest(model_name=model, raw_input_contents=[bytes(64)])
    message.inputs.add(name="INPUT0", datatype="FP32", shape=[1, 16])
    return message


def test_w46_pings_are_answered_however_often_they_come(repository, start):
    server = start()
    with Connection(server.grpc) as connection:
        for number in range(3_000):
            payload = number.to_bytes(8)
            assert connection.send(frame(http2.PING, 0, 0, payload))
            assert connection.until(http2.PING) == payload, "the connection was ended for its pings"
        assert _live(connection, 1) == service_pb2.ServerLiveResponse(live=True).SerializeToString()


def test_w46_a_flood_of_pings_ends_its_own_connection_at_most(repository, start):
    repository.identity("m")
    server = start().wait_ready()
    with Connection(server.grpc) as connection:
        connection.socket.settimeout(2)
        try:
            for _ in range(500):
                if not connection.send(frame(http2.PING, 0, 0, bytes(8)) * 1000):
                    break
        except TimeoutError:
            pass  # the server waits until its answers are taken
        with triton.InferenceServerClient(server.grpc) as client:
            assert client.is_server_live()
    assert server.infer("m", [0.0] * 16).status == 200


def test_keepalive_ends_a_connection_that_does_not_answer(repository, start):
    server = start("--grpc-keepalive-time=200", "--grpc-keepalive-timeout=200")
    with Connection(server.grpc) as deaf:
        assert _live(deaf, 1)
        assert deaf.until(http2.PING) is not None, "the client was never asked"
        while deaf.frame() is not None:
            pass


def test_keepalive_keeps_a_connection_that_answers(repository, start):
    server = start("--grpc-keepalive-time=200", "--grpc-keepalive-timeout=10000")
    with Connection(server.grpc) as idle:
        assert _live(idle, 1)
        for _ in range(5):
            while (found := idle.frame()) is not None and (found[0] != http2.PING or found[1] & ACK):
                pass
            assert found is not None, "the connection was ended although it answered"
            idle.send(frame(http2.PING, ACK, 0, found[3]))
        assert _live(idle, 3)


def test_an_old_connection_takes_no_more_calls(repository, start):
    server = start("--grpc-max-connection-age=300")
    with Connection(server.grpc) as connection:
        assert _live(connection, 1)
        assert connection.until(http2.GOAWAY) is not None
        connection.send(frame(http2.PING, ACK, 0, bytes(8)))
        while (found := connection.frame()) is not None:
            if found[0] == http2.PING and not found[1] & ACK:
                connection.send(frame(http2.PING, ACK, 0, found[3]))
    with triton.InferenceServerClient(server.grpc) as client:
        assert client.is_server_live()  # a stock client connects anew


def test_the_calls_of_an_old_connection_get_the_grace(repository, start):
    repository.identity("held", extra="dynamic_batching { max_queue_delay_microseconds: 600000000 }")
    server = start("--grpc-max-connection-age=300", "--grpc-max-connection-age-grace=300").wait_ready()
    with grpc.insecure_channel(server.grpc, options=[("grpc.enable_retries", 0)]) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            stub.ModelInfer(_request("held"), timeout=60)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


def test_without_a_grace_the_calls_get_all_they_need(repository, start):
    repository.identity("held", max_batch=2, extra="dynamic_batching { max_queue_delay_microseconds: 600000000 }")
    server = start("--grpc-max-connection-age=300").wait_ready()
    message = _request("held").SerializeToString()
    body = b"\0" + len(message).to_bytes(4) + message
    with Connection(server.grpc) as connection:
        head = frame(http2.HEADERS, http2.END_HEADERS, 1, INFER)
        connection.send(head + frame(http2.DATA, http2.END_STREAM, 1, body))
        assert connection.until(http2.GOAWAY) is not None
        # The other half of its batch lets the call end.
        assert server.infer("held", [0.0] * 16).status == 200
        assert bytes(64) in (connection.until(http2.DATA, 1) or b"")


def test_w48_restricted_protocols_with_the_stock_client(repository, start):
    repository.identity("m")
    server = start("--grpc-restricted-protocol=model-config,inference:Admin-Key=let me in").wait_ready()
    given = {"triton-grpc-protocol-admin-key": "let me in"}
    text = "This protocol is restricted, expecting header 'triton-grpc-protocol-admin-key'"
    tensor = triton.InferInput("INPUT0", [1, 16], "FP32")
    tensor.set_data_from_numpy(np.ones((1, 16), np.float32))
    with triton.InferenceServerClient(server.grpc) as client:
        assert client.get_server_metadata().name == "naiad"  # another category
        for wrong in ({}, {"admin-key": "let me in"}, {"triton-grpc-protocol-admin-key": "let me out"}):
            for call in (
                lambda named: client.get_model_config("m", headers=named),
                lambda named: client.infer("m", [tensor], headers=named),
            ):
                with pytest.raises(InferenceServerException) as caught:
                    call(wrong)
                assert (caught.value.status(), caught.value.message()) == ("StatusCode.UNAVAILABLE", text)
        assert client.get_model_config("m", headers=given).config.name == "m"
        assert client.infer("m", [tensor], headers=given).as_numpy("OUTPUT0").sum() == 16
    assert server.infer("m", [0.0] * 16).status == 200  # HTTP has rules of its own
    assert "let me in" not in server.log.read_text()


def test_w48_a_restricted_stream_is_refused_before_its_first_request(repository, start):
    repository.identity("m")
    server = start("--grpc-restricted-protocol=inference:key=v").wait_ready()
    with grpc.insecure_channel(server.grpc) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            list(stub.ModelStreamInfer(iter([_request("m")]), timeout=30))
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        metadata = [("triton-grpc-protocol-key", "v")]
        (reply,) = stub.ModelStreamInfer(iter([_request("m")]), timeout=30, metadata=metadata)
        assert not reply.error_message
