"""Streams of stock tritonclient.grpc against a real server (W53-W57)."""

from __future__ import annotations

import queue
from collections.abc import Callable
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.grpc import service_pb2, service_pb2_grpc

Answers = "queue.Queue[tuple[Any, Any]]"


@pytest.fixture(scope="module")
def server(module_repository, tmp_path_factory):
    from tests.support.server import serve

    module_repository.identity("m")
    module_repository.identity("held", extra="dynamic_batching { max_queue_delay_microseconds: 600000000 }")
    log = tmp_path_factory.mktemp("log") / "serve.log"
    with serve(module_repository.root, log) as running:
        yield running.wait_ready()


@pytest.fixture
def client(server):
    with triton.InferenceServerClient(server.grpc) as client:
        yield client


@pytest.fixture
def answers(client) -> Answers:
    arrived: Answers = queue.Queue()
    client.start_stream(lambda result, error: arrived.put((result, error)))
    return arrived


def _input(value: float = 0.0) -> triton.InferInput:
    tensor = triton.InferInput("INPUT0", [1, 16], "FP32")
    tensor.set_data_from_numpy(np.full((1, 16), value, np.float32))
    return tensor


def _request(model: str = "m", number: int = 0) -> service_pb2.ModelInferRequest:
    request = service_pb2.ModelInferRequest(model_name=model, id=str(number))
    request.inputs.add(name="INPUT0", datatype="FP32", shape=[1, 16])
    request.raw_input_contents.append(np.full((1, 16), number, np.float32).tobytes())
    return request


def _stub(channel: grpc.Channel) -> Callable[..., Any]:
    return service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelStreamInfer


def test_w54_w56_responses_keep_the_order_of_the_requests(client, answers):
    for number in range(200):
        client.async_stream_infer("m", [_input(number)], request_id=str(number))
    for number in range(200):
        result, error = answers.get(timeout=30)
        assert error is None
        response = result.get_response()
        assert response.id == str(number)
        assert response.parameters["triton_final_response"].bool_param is True
        assert result.as_numpy("OUTPUT0")[0, 0] == number


def test_w53_errors_do_not_end_the_stream(client, answers):
    wrong = triton.InferInput("INPUT0", [1, 3], "FP32")
    wrong.set_data_from_numpy(np.zeros((1, 3), np.float32))
    client.async_stream_infer("nope", [_input()], request_id="1")
    client.async_stream_infer("m", [wrong], request_id="2")
    client.async_stream_infer("m", [_input(7)], request_id="3")
    _, unknown = answers.get(timeout=30)
    assert unknown.message() == "Request for unknown model: 'nope' is not found"
    _, shape = answers.get(timeout=30)
    assert "unexpected shape for input 'INPUT0' for model 'm'" in shape.message()
    result, error = answers.get(timeout=30)
    assert error is None and result.get_response().id == "3"


def test_w53_an_error_names_its_request(server):
    with grpc.insecure_channel(server.grpc) as channel:
        replies = list(_stub(channel)(iter([_request("nope", 5), _request("m", 6)])))
    assert (replies[0].infer_response.id, replies[0].infer_response.model_name) == ("5", "")
    assert replies[0].error_message and not replies[1].error_message
    assert replies[1].infer_response.id == "6"


def test_w53_strict_errors_end_the_stream(server):
    with grpc.insecure_channel(server.grpc) as channel:
        metadata = [("triton_grpc_error", "true")]
        replies = _stub(channel)(iter([_request("m", 1), _request("nope", 2)]), metadata=metadata)
        assert next(replies).infer_response.id == "1"
        with pytest.raises(grpc.RpcError) as caught:
            next(replies)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert caught.value.details() == "Request for unknown model: 'nope' is not found"


def test_w57_half_close_waits_for_what_runs(server):
    with grpc.insecure_channel(server.grpc) as channel:
        replies = list(_stub(channel)(iter([_request("m", number) for number in range(20)])))
    assert [reply.infer_response.id for reply in replies] == [str(number) for number in range(20)]


def _row(server, name: str) -> dict[str, Any]:
    return server.get(f"/v2/models/{name}/stats").json["model_stats"][0]


def _cancelled(server, name: str) -> int:
    return _row(server, name)["response_stats"].get("0", {}).get("cancel", {}).get("count", 0)


def test_w57_w52_a_cancelled_stream_cancels_its_requests(server, client, answers):
    cancelled, ran = _cancelled(server, "held"), _row(server, "m")["execution_count"]
    client.async_stream_infer("held", [_input()], request_id="1")
    client.async_stream_infer("m", [_input()], request_id="2")
    # The second one runs, so the first one is queued by then; its response waits for that of the first one.
    server.until(lambda: _row(server, "m")["execution_count"] > ran, 30, "the second request did not run")
    assert answers.empty()
    client.stop_stream(cancel_requests=True)
    server.until(lambda: _cancelled(server, "held") > cancelled, 30, "the request was not cancelled")


def test_w52_a_cancelled_call_cancels_its_request(server):
    cancelled = _cancelled(server, "held")
    with grpc.insecure_channel(server.grpc) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)

        def was_cancelled() -> bool:
            held = stub.ModelInfer.future(_request("held"))
            stub.ModelInfer(_request("m"))  # so that the first one has most likely arrived; else it is tried again
            held.cancel()
            return _cancelled(server, "held") > cancelled

        server.until(was_cancelled, 30, "the request was not cancelled")


def test_w52_a_deadline_drops_the_queued_request(server, client):
    before = server.get("/v2/models/held/stats").json["model_stats"][0]
    with pytest.raises(triton.InferenceServerException) as caught:
        client.infer("held", [_input()], client_timeout=0.2)
    assert caught.value.status() == "StatusCode.DEADLINE_EXCEEDED"
    after = server.get("/v2/models/held/stats").json["model_stats"][0]
    assert after["inference_count"] == before["inference_count"]


def test_many_streams_on_one_connection(server):
    with grpc.insecure_channel(server.grpc) as channel:
        streams = []
        for number in range(300):
            asked: queue.Queue[service_pb2.ModelInferRequest | None] = queue.Queue()
            streams.append((asked, _stub(channel)(iter(asked.get, None))))
            asked.put(_request("m", number))
        for number, (_, replies) in enumerate(streams):
            assert next(replies).infer_response.id == str(number)
        for asked, replies in streams:
            asked.put(None)
            assert list(replies) == []


def test_a_stopping_server_ends_idle_streams(module_repository, tmp_path):
    from tests.support.server import serve

    with serve(module_repository.root, tmp_path / "serve.log") as server:
        server.wait_ready()
        with grpc.insecure_channel(server.grpc) as channel:
            asked: queue.Queue[service_pb2.ModelInferRequest | None] = queue.Queue()
            replies = _stub(channel)(iter(asked.get, None))
            asked.put(_request("m", 1))
            assert next(replies).infer_response.id == "1"
            assert server.stop() == 0
            with pytest.raises(grpc.RpcError) as caught:
                next(replies)
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
            asked.put(None)
