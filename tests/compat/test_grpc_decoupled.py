"""Decoupled models on streams of stock tritonclient.grpc (W54-W56)."""

from __future__ import annotations

import queue
from collections.abc import Iterator

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.grpc import service_pb2, service_pb2_grpc

SQUARE = """backend: "square"
max_batch_size: 0
model_transaction_policy { decoupled: true }
input { name: "IN" data_type: TYPE_INT32 dims: [ 1 ] }
output { name: "OUT" data_type: TYPE_INT32 dims: [ 1 ] }
"""
REPEAT = """backend: "repeat"
max_batch_size: 0
model_transaction_policy { decoupled: true }
input { name: "IN" data_type: TYPE_INT32 dims: [ -1 ] }
input { name: "DELAY" data_type: TYPE_UINT32 dims: [ -1 ] }
input { name: "WAIT" data_type: TYPE_UINT32 dims: [ 1 ] }
output { name: "OUT" data_type: TYPE_INT32 dims: [ 1 ] }
output { name: "IDX" data_type: TYPE_UINT32 dims: [ 1 ] }
"""
HOUR = 3_600_000
EMPTY_FINAL = {"enable_empty_final_response": True}

Answers = "queue.Queue[tuple[Any, Any]]"


@pytest.fixture(scope="module")
def server(module_repository, tmp_path_factory):
    from tests.support.server import serve

    module_repository.identity("m")
    for name, text in (("square", SQUARE), ("repeat", REPEAT)):
        module_repository.identity(name)
        (module_repository.root / name / "config.pbtxt").write_text(text)
    with serve(module_repository.root, tmp_path_factory.mktemp("log") / "serve.log") as running:
        yield running.wait_ready()


@pytest.fixture
def client(server):
    with triton.InferenceServerClient(server.grpc) as client:
        yield client


@pytest.fixture
def answers(client) -> Iterator[Answers]:
    arrived: Answers = queue.Queue()
    client.start_stream(lambda result, error: arrived.put((result, error)))
    yield arrived
    client.stop_stream(cancel_requests=True)


def _tensor(name: str, values: list[int], dtype: type) -> triton.InferInput:
    tensor = triton.InferInput(name, [len(values)], "INT32" if dtype is np.int32 else "UINT32")
    tensor.set_data_from_numpy(np.array(values, dtype))
    return tensor


def _square(count: int) -> list[triton.InferInput]:
    return [_tensor("IN", [count], np.int32)]


def _repeat(values: list[int], delays: list[int]) -> list[triton.InferInput]:
    waits = [_tensor("DELAY", delays, np.uint32), _tensor("WAIT", [0], np.uint32)]
    return [_tensor("IN", values, np.int32), *waits]


def _next(answers: Answers) -> triton.InferResult:
    result, error = answers.get(timeout=30)
    assert error is None, error
    return result


def _is_final(result: triton.InferResult) -> bool:
    return result.get_response().parameters["triton_final_response"].bool_param


@pytest.mark.parametrize("count", [0, 1, 2, 500])
def test_w55_the_empty_final_response_comes_where_it_is_asked_for(client, answers, count):
    client.async_stream_infer("square", _square(count), request_id="7", model_version="1", **EMPTY_FINAL)
    for _ in range(count):
        result = _next(answers)
        assert result.as_numpy("OUT").tolist() == [count]
        assert result.get_response().id == "7" and not _is_final(result)
    last = _next(answers)
    response = last.get_response()
    assert _is_final(last)
    assert (response.id, response.model_name, response.model_version) == ("7", "square", "1")
    assert not response.outputs and not response.raw_output_contents


def test_w55_the_version_of_the_empty_response_is_that_asked_for(client, answers):
    client.async_stream_infer("square", _square(0), request_id="8", **EMPTY_FINAL)
    assert _next(answers).get_response().model_version == ""


def test_w55_without_asking_nothing_tells_the_end(client, answers):
    client.async_stream_infer("square", _square(2), request_id="silent")
    client.async_stream_infer("square", _square(0), request_id="silent")
    client.async_stream_infer("square", _square(0), request_id="asks", **EMPTY_FINAL)
    seen = []
    while not seen or seen[-1] != ("asks", True):
        result = _next(answers)
        seen.append((result.get_response().id, _is_final(result)))
    assert seen == [("silent", False), ("silent", False), ("asks", True)]


def test_w56_only_the_id_tells_whose_a_response_is(client, answers):
    client.async_stream_infer("repeat", _repeat([1, 2], [0, HOUR]), request_id="slow", **EMPTY_FINAL)
    first = _next(answers)
    assert (first.get_response().id, first.as_numpy("OUT").tolist(), first.as_numpy("IDX").tolist()) == (
        "slow",
        [1],
        [0],
    )
    # The second response of `slow` is an hour away, and its instance is free: others answer in between.
    client.async_stream_infer("repeat", _repeat([3, 4, 5], [0, 0, 0]), request_id="quick", **EMPTY_FINAL)
    seen = [_next(answers) for _ in range(4)]
    assert [result.get_response().id for result in seen] == ["quick"] * 4
    assert [result.as_numpy("OUT").tolist() for result in seen[:3]] == [[3], [4], [5]]
    assert _is_final(seen[3])


def test_an_error_in_the_middle_leaves_the_stream_open(client, answers):
    client.async_stream_infer("repeat", _repeat([1, 2], [0]), request_id="bad", **EMPTY_FINAL)
    result, error = answers.get(timeout=30)
    assert result is None and "expected as many elements in DELAY as in IN" in error.message()
    client.async_stream_infer("square", _square(1), request_id="good")
    assert _next(answers).get_response().id == "good"


def test_the_flag_changes_nothing_for_a_model_of_one_response(server):
    request = service_pb2.ModelInferRequest(model_name="m", id="1", raw_input_contents=[bytes(64)])
    request.inputs.add(name="INPUT0", datatype="FP32", shape=[1, 16])
    request.parameters["triton_enable_empty_final_response"].bool_param = True
    with grpc.insecure_channel(server.grpc) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        (reply,) = stub.ModelStreamInfer(iter([request]), timeout=30)
    assert reply.infer_response.parameters["triton_final_response"].bool_param is True
    assert reply.infer_response.outputs
