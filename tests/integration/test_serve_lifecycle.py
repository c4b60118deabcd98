"""A server's life: start, refusals, one bad model among good ones, the end."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import threading

import pytest

from tests.support.server import COMMAND, Serve, alive, descendants

ROW = [float(i) for i in range(16)]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=60, check=False)


def test_a_repository_is_served(repository, start):
    repository.identity()
    server = start().wait_ready()
    answer = server.infer("identity", ROW)
    assert answer.status == 200
    assert answer.json["outputs"] == [{"name": "OUTPUT0", "datatype": "FP32", "shape": [1, 16], "data": ROW}]
    assert answer.json["parameters"] == {
        "param0": "an example string parameter",
        "param1": 42,
        "param2": False,
        "param3": 123.123,
    }


def test_running_requests_finish_at_sigterm(repository, start):
    repository.identity(extra='parameters { key: "execute_delay_ms" value { string_value: "1000" } }')
    server = start().wait_ready()
    answers: list[int] = []
    running = threading.Thread(target=lambda: answers.append(server.infer("identity", ROW).status))
    running.start()
    server.until(lambda: _running(server), 10, "the request never ran")
    server.process.send_signal(signal.SIGTERM)
    running.join(20)
    assert answers == [200]
    assert server.process.wait(20) == 0


def _running(server: Serve) -> bool:
    """Whether a request has come in and is not answered yet."""
    return re.search(r"naiad_requests_in_flight.* 1\n", server.scrape()) is not None


def test_a_second_signal_ends_at_once(repository, start):
    repository.identity(extra='parameters { key: "execute_delay_ms" value { string_value: "30000" } }')
    server = start("--exit-timeout-secs=60").wait_ready()
    tree = descendants(server.pid)
    running = threading.Thread(target=lambda: _ignore(server))
    running.start()
    server.until(lambda: _running(server), 10, "the request never ran")
    server.process.send_signal(signal.SIGTERM)
    server.until(lambda: _shutting_down(server), 10, "the first signal was not seen")
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(10) == 1
    running.join(20)
    server.until(lambda: not any(map(alive, tree)), 10, "workers outlived the server")


def _ignore(server: Serve) -> None:
    try:
        server.infer("identity", ROW)
    except OSError:
        pass


def _shutting_down(server: Serve) -> bool:
    return any(record["message"] == "shutting down" for record in server.records())


@pytest.mark.parametrize("value", ["abc", "-1", "1.5", " 2", "9" * 30])
def test_a_wrong_hook_for_tests_stops_the_start(repository, monkeypatch, value):
    repository.identity()
    monkeypatch.setenv("TRITONSERVER_DELAY_SCHEDULER", value)
    ended = run("--model-repository", str(repository.root), "--http-port=0", "--grpc-port=0", "--metrics-port=0")
    assert ended.returncode != 0
    expected = f"error: setting TRITONSERVER_DELAY_SCHEDULER: expected a number of requests, got '{value}'"
    assert ended.stderr.splitlines() == [expected]


def test_an_occupied_port_is_named(repository):
    repository.identity()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ports = ("--http-port", str(port), "--grpc-port", "0", "--metrics-port", "0")
        ended = run("--model-repository", str(repository.root), *ports)
    assert ended.returncode == 1
    assert f"127.0.0.1:{port}" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "option --model-repository: expected at least one folder"),
        (("--model-repository", "/nowhere"), "model repository '/nowhere' is no folder"),
        (("--model-repository", "/", "--htpp-port=1"), "unknown option --htpp-port; did you mean --http-port?"),
        (("--model-repository", "/", "--http-port=x"), "option --http-port: expected a number, got 'x'"),
        (
            ("--model-repository", "/", "--rate-limit=off"),
            "option --rate-limit: this feature comes with a later version",
        ),
        (("--model-repository", "/", "--http-address=0.0.0.0"), "naiad key create --keys-file"),
        (("--model-repository", "/", "--grpc-address=0.0.0.0"), "--grpc-address 0.0.0.0 can be reached"),
        (("--model-repository", "/", "--metrics-address=0.0.0.0"), "--scope metrics"),
        (("--model-repository", "/", "--metrics-config=x=1"), "option --metrics-config: expected one of"),
        (("--model-repository", "/", "--load-model=x"), "works with --model-control-mode=explicit only"),
    ],
)
def test_a_wrong_command_line_says_what_to_do(arguments, words):
    ended = run(*arguments)
    assert ended.returncode == 1
    assert words in ended.stderr
    assert "Traceback" not in ended.stderr


def test_one_bad_model_does_not_stop_the_others(repository, start):
    repository.identity("good")
    repository.file("pickled", b"\x80\x04.")
    (repository.root / "broken" / "1").mkdir(parents=True)
    (repository.root / "broken" / "config.pbtxt").write_text('backend: "identity"\nmax_batch_sze: 3\n')
    server = start("--strict-readiness=false").wait_ready()
    assert server.infer("good", ROW).status == 200
    index = server.index()
    assert index["good"]["state"] == "READY"
    assert "config.pbtxt:2:1" in index["broken"]["reason"]
    assert "did you mean 'max_batch_size'?" in index["broken"]["reason"]
    assert "is a pickle" in index["pickled"]["reason"]
    failures = [record for record in server.records() if record["level"] == "error"]
    assert {(f["model"], f["stage"]) for f in failures} == {("broken", "repository"), ("pickled", "signature")}
    assert all(f["cause"] for f in failures)


def test_strict_readiness_waits_for_every_model(repository, start):
    repository.identity("good")
    repository.file("empty", b"")
    server = start().wait_settled("good", "empty")
    assert server.get("/v2/health/ready").status == 400
    assert server.get("/v2/health/live").json == {"live": True}


def test_exit_on_error(repository, tmp_path):
    repository.file("empty", b"")
    ended = run(
        "--model-repository",
        str(repository.root),
        "--http-port=0",
        "--grpc-port=0",
        "--metrics-port=0",
        "--exit-on-error=true",
    )
    assert ended.returncode == 1
    records = [json.loads(line) for line in ended.stderr.splitlines()]
    assert any(record.get("cause", "").startswith("'model.pt' is empty") for record in records)
