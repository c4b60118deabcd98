"""Spans that an OpenTelemetry receiver gets: how they hang together, whose trace they continue, and bad receivers."""

from __future__ import annotations

import contextlib
import queue
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from tritonclient import grpc

from tests.support.otlp import ERROR, INTERNAL, SERVER, Receiver, receiver
from tests.support.server import COMMAND

TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED, UNSAMPLED = f"00-{TRACE}-{CALLER}-01", f"00-{TRACE}-{CALLER}-00"


@pytest.fixture
def otlp() -> Iterator[Receiver]:
    with receiver() as found:
        yield found


@pytest.fixture
def traced(repository, start, otlp):
    """Starts a server with the model `m` whose spans go to the receiver."""

    def begin(*settings: str, url: str = otlp.url) -> Any:
        repository.identity("m", dims="2")
        settings = ("mode=opentelemetry", f"opentelemetry,url={url}", "opentelemetry,bsp_schedule_delay=50", *settings)
        return start(*(f"--trace-config={setting}" for setting in settings)).wait_ready()

    return begin


def infer(server: Any, request_id: str = "", **headers: str) -> int:
    tensor = {"name": "INPUT0", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}
    return server.post("/v2/models/m/infer", {"id": request_id, "inputs": [tensor]}, **headers).status


def grpc_input() -> grpc.InferInput:
    tensor = grpc.InferInput("INPUT0", [1, 2], "FP32")
    tensor.set_data_from_numpy(np.ones((1, 2), np.float32))
    return tensor


def names(events: list[tuple[str, int]]) -> list[str]:
    assert events == sorted(events, key=lambda event: event[1])
    return [name for name, _ in events]


def test_three_spans_a_request(traced, otlp):
    settings = ("opentelemetry,resource=service.name=mine", "opentelemetry,resource=deployment=test=1")
    server = traced("level=TIMESTAMPS", "rate=1", *settings)
    before = time.time_ns()
    assert infer(server, "seven") == 200
    spans = otlp.wait(3)
    root, model, compute = spans["InferRequest"], spans["m"], spans["compute"]
    assert (root.parent, model.parent, compute.parent) == ("", root.id, model.id)
    assert (root.kind, model.kind, compute.kind) == (SERVER, INTERNAL, INTERNAL)
    for span in spans.values():
        assert span.trace == root.trace and re.fullmatch("[0-9a-f]{32}", span.trace) and span.trace != "0" * 32
        assert re.fullmatch("[0-9a-f]{16}", span.id)
        assert (span.resource, span.scope) == ({"service.name": "mine", "deployment": "test=1"}, "naiad")
        assert {"triton.model_name": "m", "triton.model_version": 1, "triton.request_id": "seven"}.items() <= (
            span.attributes.items()
        )
        assert span.status == {}
    assert len({span.id for span in spans.values()}) == 3
    assert before <= root.start <= model.start <= compute.start < compute.end <= model.end <= root.end <= time.time_ns()
    assert names(root.events) == [
        "HTTP_RECV_START", "HTTP_RECV_END", "INFER_RESPONSE_COMPLETE", "HTTP_SEND_START", "HTTP_SEND_END",
    ]  # fmt: skip
    assert names(model.events) == ["REQUEST_START", "QUEUE_START", "REQUEST_END"]
    assert names(compute.events) == ["COMPUTE_START", "COMPUTE_INPUT_END", "COMPUTE_OUTPUT_START", "COMPUTE_END"]
    assert (root.attributes["http.request.method"], compute.attributes["naiad.batch_size"]) == ("POST", 1)
    assert model.attributes["triton.trace_id"] == 1


def test_a_callers_trace_goes_on(traced, otlp):
    """Its sampled spans are followed whatever the rate; over HTTP, gRPC and a stream."""
    server = traced("level=TIMESTAMPS", "rate=0")
    assert infer(server) == 200
    assert infer(server, traceparent=UNSAMPLED) == 200
    assert infer(server, traceparent=SAMPLED[:-1]) == 200
    assert infer(server, traceparent=SAMPLED) == 200
    assert otlp.wait(3)["InferRequest"].parent == CALLER
    with grpc.InferenceServerClient(server.grpc) as client:
        client.infer("m", [grpc_input()], headers={"traceparent": SAMPLED})
        root = otlp.wait(6)["InferRequest"]
        replies: queue.Queue[Any] = queue.Queue()
        client.start_stream(lambda result, error: replies.put(error or result), headers={"traceparent": SAMPLED})
        client.async_stream_infer("m", [grpc_input()])
        replies.get(timeout=30)
        client.stop_stream()
    otlp.wait(9)
    assert {span.trace for span in otlp.spans} == {TRACE}
    roots = [span for span in otlp.spans if span.name == "InferRequest"]
    assert [root.parent for root in roots] == [CALLER] * 3
    assert [root.attributes.get("rpc.system") for root in roots] == [None, "grpc", "grpc"]
    assert names(root.events)[:2] == ["GRPC_WAITREAD_START", "GRPC_WAITREAD_END"]


def test_a_trace_that_the_caller_does_not_keep_is_sampled_by_rate(traced, otlp):
    server = traced("level=TIMESTAMPS", "rate=2", "count=1")
    for _ in range(4):
        assert infer(server, traceparent=UNSAMPLED) == 200
    root = otlp.wait(3)["InferRequest"]
    assert (root.trace, root.parent) == (TRACE, CALLER)
    assert infer(server, traceparent=SAMPLED) == 200
    otlp.wait(6)
    assert server.get("/v2/trace/setting").json["trace_mode"] == "opentelemetry"


def test_settings_change_while_the_server_runs(traced, otlp):
    server = traced()
    assert infer(server, traceparent=SAMPLED) == 200
    change = {"trace_level": ["TIMESTAMPS"], "trace_rate": "1"}
    assert server.post("/v2/trace/setting", change).status == 200
    assert infer(server, "late") == 200
    assert otlp.wait(3)["m"].attributes["triton.request_id"] == "late"
    refused = server.post("/v2/trace/setting", {"trace_level": ["TENSORS"]})
    assert (refused.status, refused.error) == (
        400,
        "Attempting to set invalid trace setting :mode opentelemetry has no level TENSORS",
    )


def test_a_failure_is_told(traced, otlp):
    server = traced("level=TIMESTAMPS", "rate=1")
    tensor = {"name": "INPUT0", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}
    assert server.post("/v2/models/m/infer", {"inputs": [tensor]}).status == 400
    spans = otlp.wait(2)
    assert set(spans) == {"InferRequest", "m"}
    for span in spans.values():
        assert span.status["code"] == ERROR
        assert "unexpected shape for input 'INPUT0'" in span.status["message"]


def test_spans_travel_together_and_the_end_waits_for_them(traced, otlp):
    """Batches of six spans; what is left is sent when the server stops."""
    late = ("opentelemetry,bsp_schedule_delay=600000", "opentelemetry,bsp_max_export_batch_size=6")
    server = traced("level=TIMESTAMPS", "rate=1", *late)
    for _ in range(5):
        assert infer(server) == 200
    server.stop()
    assert otlp.messages == [6, 6, 3]


@pytest.mark.parametrize("how", ["refuses", "is away", "says nothing"])
def test_a_receiver_that_fails_costs_one_line_and_no_request(traced, otlp, how):
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as silent:
        port = silent.getsockname()[1]
        if how == "is away":
            silent.close()
        otlp.status = 503
        url = otlp.url if how == "refuses" else f"http://127.0.0.1:{port}/v1/traces"
        server = traced("level=TIMESTAMPS", "rate=1", "opentelemetry,bsp_schedule_delay=0", url=url)
        for _ in range(5):
            assert infer(server) == 200

        def told() -> list[dict[str, Any]]:
            return [record for record in server.records() if record["message"] == "traces were lost"]

        (record,) = server.until(told, 30, "no line tells of it")
        assert "cannot send spans to '127.0.0.1" in record["reason"]
        assert record["level"] == "warning"
        server.stop()
        assert len(told()) <= 2, "the second one is the sum at the end"


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("https://127.0.0.1/v1/traces", "spans are sent over http only"),
        ("localhost:4318", "expected http://host:port/path"),
        ("http://me:secret@127.0.0.1/v1/traces", "expected http://host:port/path"),
    ],
)
def test_an_address_that_cannot_be_used_stops_the_start(repository, url, reason):
    repository.identity("m")
    command = [*COMMAND, "--model-repository", str(repository.root), "--http-port=0", "--grpc-port=0"]
    command += ["--metrics-port=0", "--trace-config=mode=opentelemetry", f"--trace-config=opentelemetry,url={url}"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1
    assert reason in ended.stderr
