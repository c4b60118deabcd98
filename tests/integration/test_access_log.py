"""The access log of a real server, request ids from end to end, and `Server-Timing`."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import grpc
import numpy
import pytest
import tritonclient.grpc as triton
from tritonclient.grpc import service_pb2, service_pb2_grpc

from tests.support.server import COMMAND, Serve, until

ROW = [0.5] * 16
SPANS = ("queue", "compute_input", "compute_infer", "compute_output")


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "access.jsonl"


@pytest.fixture
def server(repository, start, log):
    repository.identity("m", extra='parameters { key: "execute_delay_ms" value: { string_value: "20" } }')
    repository.identity("slow", extra='parameters { key: "execute_delay_ms" value: { string_value: "2000" } }')
    repository.identity("repeat")
    (repository.root / "repeat" / "config.pbtxt").write_text(
        'backend: "repeat"\nmodel_transaction_policy { decoupled: true }\n'
        'input [{ name: "IN" data_type: TYPE_INT32 dims: [ -1 ] },'
        ' { name: "DELAY" data_type: TYPE_UINT32 dims: [ -1 ] }, { name: "WAIT" data_type: TYPE_UINT32 dims: [ 1 ] }]\n'
        'output [{ name: "OUT" data_type: TYPE_INT32 dims: [ 1 ] }, { name: "IDX" data_type: TYPE_UINT32 dims: [ 1 ] }]'
    )
    return start(f"--access-log={log}").wait_ready()


def lines(log: Path, **wanted: Any) -> list[dict[str, Any]]:
    """The lines with these values."""
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    return [row for row in rows if wanted.items() <= row.items()]


def line(log: Path, **wanted: Any) -> dict[str, Any]:
    """The only line with these values; it is written some moments after its answer."""
    found = until(lambda: lines(log, **wanted), 10, lambda: f"no line with {wanted}:\n{log.read_text()}")
    assert len(found) == 1, found
    return found[0]


def tensor(rows: int = 1) -> dict[str, Any]:
    return {"name": "INPUT0", "shape": [rows, 16], "datatype": "FP32", "data": ROW * rows}


def grpc_input(rows: int = 1) -> triton.InferInput:
    named = triton.InferInput("INPUT0", [rows, 16], "FP32")
    named.set_data_from_numpy(numpy.full((rows, 16), 0.5, numpy.float32))
    return named


def test_one_line_for_one_request(server: Serve, log: Path):
    before = time.time()
    body = json.dumps({"id": "of-the-body", "inputs": [tensor(3)]}).encode()
    answer = server.post("/v2/models/m/infer?token=secret", body)
    assert (answer.status, answer.headers["x-request-id"]) == (200, "of-the-body")
    row = line(log, request_id="of-the-body")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", row.pop("time"))
    assert row.pop("client").startswith("127.0.0.1:")
    assert 20 <= row["compute_ms"] < row["duration_ms"] < (time.time() - before) * 1000
    assert 0 < row.pop("queue_ms") < row.pop("duration_ms") - row.pop("compute_ms")
    assert row == {
        "listener": "http",
        "verb": "POST",
        "path": "/v2/models/m/infer",
        "status": 200,
        "model": "m",
        "version": "1",
        "request_id": "of-the-body",
        "key": "none",
        "batch": 3,
        "bytes_in": len(body),
        "bytes_out": len(answer.body),
    }


def test_the_header_names_a_request_that_names_none(server: Serve, log: Path):
    answer = server.post("/v2/models/m/infer", {"inputs": [tensor()]}, X_Request_Id="from-a-proxy")
    assert (answer.headers["x-request-id"], answer.json["id"]) == ("from-a-proxy", "from-a-proxy")
    answer = server.post("/v2/models/m/infer", {"id": "own", "inputs": [tensor()]}, X_Request_Id="both")
    assert (answer.headers["x-request-id"], answer.json["id"]) == ("both", "own")
    answer = server.get("/v2", X_Request_Id="no inference")
    fresh = answer.headers["x-request-id"]
    assert fresh != "no inference", "an id is one word"
    assert line(log, request_id="from-a-proxy")["status"] == line(log, request_id="both")["status"] == 200
    assert line(log, request_id=fresh)["path"] == "/v2"


def test_failures_say_so(server: Serve, log: Path):
    assert server.post("/v2/models/nope/infer", {}, X_Request_Id="a").status == 404
    assert server.post("/v2/models/m/infer", b"{", X_Request_Id="b").status == 400
    assert server.get("/nothing", X_Request_Id="c").status == 404
    assert server.send("HEAD", "/v2/health/live", X_Request_Id="d").status == 200
    assert (line(log, request_id="a")["model"], line(log, request_id="a")["status"]) == ("nope", 404)
    assert (line(log, request_id="b")["status"], line(log, request_id="b")["bytes_in"]) == (400, 1)
    assert "model" not in line(log, request_id="c")
    assert line(log, request_id="d")["verb"] == "HEAD"
    assert not lines(log, cancelled=True)


def test_who_went_away_is_told_from_who_was_answered(server: Serve, log: Path):
    host, port = server.address.rsplit(":", 1)
    body = json.dumps({"id": "gone", "inputs": [tensor()]}).encode()
    head = f"POST /v2/models/slow/infer HTTP/1.1\r\nHost: {server.address}\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_connection((host, int(port))) as raw:
        raw.sendall(head.encode() + body)
        running = 'naiad_requests_in_flight{model="slow",version="1",service="slow"} 1'
        server.until(lambda: running in server.scrape(), 10, "the request does not run")
    row = line(log, request_id="gone")
    assert (row["cancelled"], "status" in row, row["bytes_out"]) == (True, False, 0)


def test_generated_events_are_one_request(server: Serve, log: Path):
    body = {"IN": [1, 2, 3], "DELAY": [0, 0, 0], "WAIT": 0}
    answer = server.post("/v2/models/repeat/generate_stream", body, X_Request_Id="events")
    assert answer.body.count(b"data: ") == 3
    row = line(log, request_id="events")
    assert (row["status"], row["model"], row["bytes_out"]) == (200, "repeat", len(answer.body))
    assert "cancelled" not in row


def test_grpc_calls_have_lines(server: Serve, log: Path):
    with triton.InferenceServerClient(server.grpc) as client:
        client.infer("m", [grpc_input(2)], request_id="unary", headers={"x-request-id": "meta"})
        client.infer("m", [grpc_input()], request_id="own")
        with pytest.raises(Exception, match="unknown model"):
            client.infer("nope", [grpc_input()], headers={"x-request-id": "refused"})
    row = line(log, request_id="meta")
    assert row["path"] == "/inference.GRPCInferenceService/ModelInfer"
    known = {"listener": "grpc", "status": "OK", "model": "m", "version": "1", "batch": 2, "key": "none"}
    assert known.items() <= row.items()
    assert row["bytes_in"] > 128 < row["bytes_out"]
    assert 20 <= row["compute_ms"] < row["duration_ms"]
    assert line(log, request_id="own")["status"] == "OK"
    assert line(log, request_id="refused")["status"] == "NOT_FOUND"
    assert line(log, request_id="refused")["model"] == "nope"
    assert not lines(log, cancelled=True)


def test_each_request_of_a_stream_has_its_line(server: Serve, log: Path):
    answers = []
    with triton.InferenceServerClient(server.grpc) as client:
        client.start_stream(lambda result, error: answers.append(error or result))
        for name, model in (("s1", "m"), ("s2", "nope"), ("s3", "repeat")):
            inputs = [grpc_input()]
            if model == "repeat":
                inputs = []
                for tensor_name, datatype, values in (
                    ("IN", numpy.int32, [4, 5]),
                    ("DELAY", numpy.uint32, [0, 0]),
                    ("WAIT", numpy.uint32, [0]),
                ):
                    kind = "INT32" if datatype is numpy.int32 else "UINT32"
                    inputs.append(triton.InferInput(tensor_name, [len(values)], kind))
                    inputs[-1].set_data_from_numpy(numpy.array(values, datatype))
            client.async_stream_infer(model, inputs, request_id=name)
        until(lambda: len(answers) == 4, 20, lambda: str(answers))
        client.stop_stream()
    known = {"path": "/inference.GRPCInferenceService/ModelStreamInfer", "listener": "grpc"}
    first, second, third = (line(log, request_id=name) for name in ("s1", "s2", "s3"))
    assert {**known, "status": "OK", "model": "m", "responses": 1, "batch": 1}.items() <= first.items()
    assert {**known, "status": "NOT_FOUND", "model": "nope", "responses": 1}.items() <= second.items()
    assert {**known, "status": "OK", "model": "repeat", "responses": 2}.items() <= third.items()
    assert len(lines(log, path=known["path"])) == 3, "the stream itself has none"


def test_good_requests_are_sampled_and_failures_are_not(repository, start, log):
    repository.identity("m")
    server = start(f"--access-log={log}", "--access-log-rate=10").wait_ready()
    for _ in range(40):
        assert server.infer("m", ROW).status == 200
        assert server.get("/nothing").status == 404
    server.stop()
    assert 4 <= len(lines(log, model="m")) <= 5
    assert len(lines(log, path="/nothing")) == 40


def test_the_end_writes_what_is_left_and_rotation_loses_nothing(repository, start, log):
    repository.identity("m")
    server = start(f"--access-log={log}").wait_ready()
    for number in range(200):
        assert server.get("/v2", X_Request_Id=f"n{number}").status == 200
        if number == 100:
            line(log, request_id="n0")
            log.rename(log.with_suffix(".1"))
    server.stop()
    text = log.with_suffix(".1").read_text() + log.read_text()
    both = [json.loads(row)["request_id"] for row in text.splitlines()]
    assert [name for name in both if name.startswith("n")] == [f"n{number}" for number in range(200)]


def test_keys_are_named_by_their_ids(repository, start, log, tmp_path):
    repository.identity("m")
    keys = tmp_path / "keys"
    create = [sys.executable, "-m", "naiad", "key", "create", "--keys-file", str(keys), "--service", "m", "-o", "json"]
    key = json.loads(subprocess.run(create, capture_output=True, check=True, text=True).stdout)["key"]
    server = start(f"--access-log={log}", f"--keys-file={keys}").wait_ready()
    server.post("/v2/models/m/infer", {"inputs": [tensor()]}, X_API_Key=key, X_Request_Id="k")
    server.post("/v2/models/m/infer", {"inputs": [tensor()]}, X_Request_Id="no key")
    row = line(log, request_id="k")
    assert row["status"] == 200
    assert row["key"] in key
    assert "key" not in line(log, status=401)
    assert key not in log.read_text()


def test_a_file_that_cannot_be_written_is_named(repository, tmp_path):
    repository.identity("m")
    path = tmp_path / "no" / "such" / "folder.jsonl"
    command = [*COMMAND, "--model-repository", str(repository.root), "--http-port=0", f"--access-log={path}"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=os.environ, timeout=60)
    assert done.returncode == 1
    assert str(path) in done.stderr
    assert "Traceback" not in done.stderr


def spans(text: str) -> dict[str, float]:
    """The durations of a `Server-Timing` value, as the specification writes them."""
    return {name: float(value) for name, value in re.findall(r"([a-z_]+);dur=([\d.]+)", text)}


def test_server_timing_says_where_the_time_went(server: Serve):
    for path, body in (("infer", {"inputs": [tensor()]}), ("generate", {"INPUT0": ROW})):
        answer = server.post(f"/v2/models/m/{path}", body)
        found = spans(answer.headers["server-timing"])
        assert tuple(found) == SPANS
        assert 20 <= found["compute_infer"] < 1000
    with grpc.insecure_channel(server.grpc) as channel:
        request = service_pb2.ModelInferRequest(model_name="m")
        request.inputs.add(name="INPUT0", datatype="FP32", shape=[1, 16])
        request.raw_input_contents.append(numpy.full(16, 0.5, numpy.float32).tobytes())
        _, call = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer.with_call(request)
        found = spans(dict(call.initial_metadata())["server-timing"])
    assert tuple(found) == SPANS
    assert 20 <= found["compute_infer"] < 1000
