"""Triton's trace files: what they hold, which requests are chosen, how they rotate, and what a bad path does."""

from __future__ import annotations

import json
import queue
import signal
import stat
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tritonclient import grpc, http

from tests.support.server import COMMAND, until
from tests.support.traces import Trace, read

SQUARE = """backend: "square"
model_transaction_policy { decoupled: true }
input { name: "IN" data_type: TYPE_INT32 dims: [ 1 ] }
output { name: "OUT" data_type: TYPE_INT32 dims: [ 1 ] }
"""
ENGINE = [
    "REQUEST_START", "QUEUE_START", "COMPUTE_START", "COMPUTE_INPUT_END", "COMPUTE_OUTPUT_START", "COMPUTE_END",
    "INFER_RESPONSE_COMPLETE", "REQUEST_END",
]  # fmt: skip
OVER_HTTP = ["HTTP_RECV_START", "HTTP_RECV_END", *ENGINE, "HTTP_SEND_START", "HTTP_SEND_END"]
OVER_GRPC = ["GRPC_WAITREAD_START", "GRPC_WAITREAD_END", *ENGINE, "GRPC_SEND_START", "GRPC_SEND_END"]


@pytest.fixture
def file(tmp_path) -> Path:
    return tmp_path / "trace.json"


@pytest.fixture
def traced(repository, start, file):
    """Starts a server with models `m` and `n` that traces into `file`."""

    def begin(*settings: str) -> Any:
        repository.identity("m", dims="2")
        repository.identity("n", dims="2")
        options = [f"--trace-config={setting}" for setting in (f"triton,file={file}", *settings)]
        return start(*options).wait_ready()

    return begin


def written(path: Path, count: int) -> list[Trace]:
    """So many traces, as soon as they are there."""
    return until(lambda: len(read(path)) >= count and read(path), 30, lambda: path.read_text()[-2000:])


def grpc_input(*row: float) -> grpc.InferInput:
    tensor = grpc.InferInput("INPUT0", [1, len(row)], "FP32")
    tensor.set_data_from_numpy(np.array([row], np.float32))
    return tensor


def test_every_request_tells_what_happened_when(traced, file):
    server = traced("level=TIMESTAMPS", "rate=1")
    before = time.monotonic_ns()
    body = {"id": 'a"b', "inputs": [{"name": "INPUT0", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}]}
    assert server.post("/v2/models/m/infer", body).status == 200
    written(file, 1)
    with grpc.InferenceServerClient(server.grpc) as client:
        client.infer("m", [grpc_input(1, 2)], request_id="unary")
        written(file, 2)
        replies: queue.Queue[Any] = queue.Queue()
        client.start_stream(lambda result, error: replies.put(error or result))
        client.async_stream_infer("m", [grpc_input(3, 4)], request_id="stream")
        replies.get(timeout=30)
        client.stop_stream()
    traces = written(file, 3)
    for trace, request_id, names in zip(
        traces, ('a"b', "unary", "stream"), (OVER_HTTP, OVER_GRPC, OVER_GRPC), strict=True
    ):
        del trace.head["id"]
        assert trace.head == {"model_name": "m", "model_version": 1, "request_id": request_id}
        assert trace.names == names
        times = [ns for _, ns in trace.events]
        assert times == sorted(times), "one clock for the core and its workers"
        assert before < times[0] and times[-1] < time.monotonic_ns()
        assert not trace.tensors
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_generate_is_traced_too(traced, file):
    server = traced("level=TIMESTAMPS", "rate=1")
    assert server.post("/v2/models/m/generate", {"INPUT0": [[1, 2]]}).status == 200
    assert server.post("/v2/models/m/generate_stream", {"INPUT0": [[1, 2]]}).status == 200
    for trace in written(file, 2):
        assert sorted(trace.names) == sorted(OVER_HTTP)


def test_a_stream_of_responses_is_one_trace(repository, start, file):
    repository.identity("square")
    (repository.root / "square" / "config.pbtxt").write_text(SQUARE)
    server = start("--trace-file", str(file), "--trace-level=TIMESTAMPS", "--trace-level=TENSORS", "--trace-rate=1")
    server.wait_ready()
    tensor = grpc.InferInput("IN", [1], "INT32")
    tensor.set_data_from_numpy(np.array([3], np.int32))
    with grpc.InferenceServerClient(server.grpc) as client:
        replies: queue.Queue[Any] = queue.Queue()
        client.start_stream(lambda result, error: replies.put(error or result))
        client.async_stream_infer("square", [tensor])
        for _ in range(3):
            replies.get(timeout=30)
        client.stop_stream()
    (trace,) = written(file, 1)
    for name in ("INFER_RESPONSE_COMPLETE", "GRPC_SEND_START", "GRPC_SEND_END"):
        assert trace.names.count(name) == 3
    for name in ("COMPUTE_START", "COMPUTE_END", "REQUEST_END"):
        assert trace.names.count(name) == 1
    assert [tensor["data"] for activity, tensor in trace.tensors if activity == "TENSOR_BACKEND_OUTPUT"] == ["3"] * 3


def test_a_request_that_fails_leaves_what_is_known(traced, file):
    server = traced("level=TIMESTAMPS", "rate=1")
    assert server.post("/v2/models/m/infer", b"{").status == 400
    assert server.infer("nope", [1, 2]).status == 404
    assert server.infer("m", [1, 2]).status == 200
    refused, good = written(file, 2)
    assert refused.names == ["HTTP_RECV_START", "HTTP_RECV_END"]
    assert good.names == OVER_HTTP


@pytest.mark.parametrize("level", [["TENSORS"], ["TIMESTAMPS", "TENSORS"]])
def test_tensors_are_those_that_were_sent(traced, file, level):
    server = traced(*(f"level={name}" for name in level), "rate=1")
    sent = np.array([[0.1, -1e30]], np.float32)
    assert server.infer("m", sent.tolist()[0]).status == 200
    (trace,) = written(file, 1)
    assert [(activity, tensor["name"]) for activity, tensor in trace.tensors] == [
        ("TENSOR_QUEUE_INPUT", "INPUT0"),
        ("TENSOR_BACKEND_INPUT", "INPUT0"),
        ("TENSOR_BACKEND_OUTPUT", "OUTPUT0"),
    ]
    for _, tensor in trace.tensors:
        assert (tensor["shape"], tensor["dtype"]) == ("1,2", "FP32")
        read_back = np.array(tensor["data"].split(","), np.float32).reshape(1, 2)
        np.testing.assert_array_equal(read_back, sent)
    assert bool(trace.events) == ("TIMESTAMPS" in level)


@pytest.mark.parametrize(
    ("datatype", "data", "text"),
    [
        ("BOOL", [True, False], "1,0"),
        ("INT8", [-1, 65], "-1,65"),
        ("UINT64", [0, 2**64 - 1], "0,18446744073709551615"),
        ("FP16", [0.5, 2], "0.5,2"),
        ("STRING", ['a"b', "é\n"], '"a\\"b","é\\n"'),
    ],
)
def test_tensors_of_other_datatypes(repository, start, file, datatype, data, text):
    repository.identity("m", datatype=datatype, dims="-1", max_batch=0)
    server = start(f"--trace-config=triton,file={file}", "--trace-config=level=TENSORS", "--trace-config=rate=1")
    server.wait_ready()
    name = "BYTES" if datatype == "STRING" else datatype
    tensor = {"name": "INPUT0", "shape": [2], "datatype": name, "data": data}
    assert server.post("/v2/models/m/infer", {"inputs": [tensor]}).status == 200
    (trace,) = written(file, 1)
    assert [(tensor["data"], tensor["dtype"]) for _, tensor in trace.tensors] == [(text, name)] * 3


def test_tensors_without_room_are_counted(repository, start, file):
    """More than 64 MiB: the trace is left out and the log says so, and the next one is written."""
    repository.identity("m", datatype="UINT8", dims="-1", max_batch=0)
    settings = (f"triton,file={file}", "level=TENSORS", "rate=1")
    options = ("--http-max-input-size=100000000", *(f"--trace-config={setting}" for setting in settings))
    server = start(*options).wait_ready()
    for size in ((64 << 20) + 1, 2):
        answer = server.post("/v2/models/m/infer", bytes(size), Inference_Header_Content_Length="0")
        assert (answer.status, len(answer.body) > size) == (200, True)
    (trace,) = written(file, 1)
    assert [tensor["data"] for _, tensor in trace.tensors] == ["0,0"] * 3

    def told() -> list[dict[str, Any]]:
        return [record for record in server.records() if record["message"] == "traces were lost"]

    (record,) = server.until(told, 30, "no line tells of it")
    assert record["lost"] == 1


def test_rate_and_count(traced, file):
    server = traced("level=TIMESTAMPS", "rate=3", "count=2")
    for number in range(12):
        body = {"id": str(number), "inputs": [{"name": "INPUT0", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}]}
        assert server.post("/v2/models/m/infer", body).status == 200
    assert server.get("/v2/trace/setting").json["trace_count"] == "0"
    server.stop()
    assert [trace.head["request_id"] for trace in read(file)] == ["2", "5"]


def test_settings_change_while_the_server_runs(traced, file):
    server = traced()
    assert server.infer("m", [1, 2]).status == 200
    with http.InferenceServerClient(server.address) as client:
        client.update_trace_settings("m", {"trace_level": ["TIMESTAMPS"], "trace_rate": "1"})
    for model in ("m", "n", "m"):
        assert server.infer(model, [1, 2]).status == 200
    assert [trace.head["model_name"] for trace in written(file, 2)] == ["m", "m"]
    with grpc.InferenceServerClient(server.grpc) as client:
        client.update_trace_settings(settings={"trace_level": ["TENSORS"], "trace_rate": "2"})
        client.update_trace_settings("m", {"trace_level": None, "trace_rate": None, "trace_count": "1"})
    for model in ("n", "n", "m", "m", "m", "m"):
        assert server.infer(model, [1, 2]).status == 200
    server.stop()
    late = read(file)[2:]
    assert [trace.head["model_name"] for trace in late] == ["n", "m"], "every second one; of m one is left"
    assert all(trace.tensors and not trace.events for trace in late)


def test_so_many_traces_a_file(traced, file):
    server = traced("level=TIMESTAMPS", "rate=1", "triton,log-frequency=2")
    for _ in range(5):
        assert server.infer("m", [1, 2]).status == 200
    server.stop()
    parts = sorted(file.parent.glob("trace.json.*"))
    assert [part.name for part in parts] == ["trace.json.0", "trace.json.1", "trace.json.2"]
    assert [len(read(part)) for part in parts] == [2, 2, 1]
    assert not file.exists()


def test_a_killed_server_leaves_a_whole_file(traced, file):
    server = traced("level=TIMESTAMPS", "rate=1")
    for _ in range(3):
        assert server.infer("m", [1, 2]).status == 200
    written(file, 3)
    server.process.send_signal(signal.SIGKILL)
    server.process.wait(30)
    assert len(read(file)) == 3


def test_a_path_that_cannot_be_written_stops_the_start(repository, tmp_path):
    repository.identity("m")
    for path, settings in ((tmp_path / "no" / "t.json", []), (tmp_path / "no" / "t", ["triton,log-frequency=5"])):
        options = [f"--trace-config={setting}" for setting in (f"triton,file={path}", *settings)]
        command = [*COMMAND, "--model-repository", str(repository.root), "--http-port=0", "--grpc-port=0", *options]
        ended = subprocess.run([*command, "--metrics-port=0"], capture_output=True, text=True, timeout=60, check=False)
        assert ended.returncode == 1
        assert f"cannot write the trace file '{path}" in ended.stderr


def test_where_nothing_is_traced_no_file_grows(traced, file):
    server = traced("rate=1")
    assert server.infer("m", [1, 2]).status == 200
    server.stop()
    assert json.loads(file.read_text()) == []
