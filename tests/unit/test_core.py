"""The doors of the core as Python meets them; requests never wait for the GIL."""

from __future__ import annotations

import ctypes
import http.client
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from naiad import _core

CLIENT = """
import http.client, sys, time
connection = http.client.HTTPConnection(sys.argv[1], timeout=20)
connection.request("GET", "/v2/health/live")
connection.getresponse().read()
print("ready", flush=True)
sys.stdin.readline()
begin = time.monotonic()
for _ in range(50):
    connection.request("GET", "/v2/models/stats")
    assert connection.getresponse().read() == b'{"model_stats":[]}'
print(time.monotonic() - begin, flush=True)
"""


def options(**more: Any) -> bytes:
    fixed = {"server_version": "1", "require_key": False, "model_control": "explicit", "byte_budget": 1 << 26}
    listener = {"address": "127.0.0.1", "port": 0, "reuse_port": False}
    return json.dumps({**fixed, "http": listener, "log": {"file": os.devnull}, **more}).encode()


@pytest.fixture
def core() -> Iterator[_core.Core]:
    core = _core.Core(options())
    yield core
    core.stop()


def test_a_wrong_option_is_named() -> None:
    with pytest.raises(_core.CoreError, match="unknown field `htpp`") as caught:
        _core.Core(options(htpp=1))
    assert caught.value.code == "invalid_arg"
    assert caught.value.args == ("invalid_arg", caught.value.message)


def test_an_occupied_port_is_named(core: _core.Core) -> None:
    address = json.loads(core.start())["http"]
    second = _core.Core(options(http={"address": "127.0.0.1", "port": int(address.rpartition(":")[2])}))
    try:
        with pytest.raises(_core.CoreError, match=address) as caught:
            second.start()
        assert caught.value.code == "unavailable"
    finally:
        second.stop()


def test_a_load_request_goes_to_python_and_back(core: _core.Core) -> None:
    address = json.loads(core.start())["http"]
    seen: list[dict[str, Any]] = []

    def python() -> None:
        command = core.next_command(20_000)
        assert command is not None
        seen.append(json.loads(command))
        answer = {
            "ok": False,
            "code": "internal",
            "message": "failed to load 'm', failed to poll from model repository",
        }
        core.complete(seen[0]["id"], json.dumps(answer).encode())

    thread = threading.Thread(target=python)
    thread.start()
    connection = http.client.HTTPConnection(address, timeout=20)
    connection.request("POST", "/v2/repository/models/m/load")
    response = connection.getresponse()
    assert (response.status, json.loads(response.read())["error"][:18]) == (500, "failed to load 'm'")
    connection.close()
    thread.join()
    assert (seen[0]["kind"], seen[0]["model"], seen[0]["files"]) == ("load", "m", {})


def test_a_stopped_core_says_so(core: _core.Core) -> None:
    assert core.next_command(0) is None
    core.stop()
    with pytest.raises(_core.CoreError) as caught:
        core.next_command(0)
    assert caught.value.code == "cancelled"


def test_a_closed_worker_channel_is_reported(core: _core.Core) -> None:
    worker, descriptor = core.open_worker(b'{"model":"m","version":1,"instance":0}')
    assert not os.get_inheritable(descriptor)
    os.close(descriptor)
    command = core.next_command(20_000)
    assert command is not None
    event = json.loads(command)
    assert (event["id"], event["kind"], event["worker"], event["model"]) == (0, "worker_lost", worker, "m")


def test_a_fork_may_not_use_the_core(core: _core.Core) -> None:
    code = f"""
import os
from naiad import _core
core = _core.Core({options()!r})
child = os.fork()
if child == 0:
    try:
        core.set_ready(True)
    except RuntimeError as error:
        os._exit(7 if str(os.getppid()) in str(error) and str(os.getpid()) in str(error) else 1)
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
core.stop()
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_requests_are_answered_while_a_thread_keeps_the_gil(core: _core.Core) -> None:
    address = json.loads(core.start())["http"]
    command = [sys.executable, "-c", CLIENT, address]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as client:
        assert client.stdin is not None
        assert client.stdout is not None
        assert client.stdout.readline() == "ready\n"
        client.stdin.write("go\n")
        client.stdin.flush()
        # PyDLL keeps the GIL, CDLL would let go of it.
        ctypes.PyDLL(None).usleep(2_000_000)
        took = float(client.stdout.readline())
    assert took < 1.5
