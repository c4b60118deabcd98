"""Starts and stops the servers under test, each on free ports, and asks them for their own counts."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benches.peers import CHECKOUT, Peers, triton_environment

ACCESS_LOG = "--access-log"


class ServerDied(RuntimeError):
    """A server ended under the load."""


@dataclass(frozen=True, slots=True)
class Server:
    """A running server: its name in the table, its process and its addresses."""

    name: str
    pid: int
    address: str
    """`host:port` of HTTP."""
    grpc: str
    metrics: str | None
    headers: dict[str, str] = field(default_factory=dict)
    """What every HTTP request has to carry."""

    def lives(self) -> bool:
        """Whether its process runs."""
        try:
            return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        except OSError:
            return False

    def get(self, path: str) -> Any:
        """The JSON body of a GET."""
        return self._ask(path, None)

    def post(self, path: str, body: bytes) -> Any:
        """The JSON body of a POST."""
        return self._ask(path, body)

    def _ask(self, path: str, body: bytes | None) -> Any:
        request = urllib.request.Request(f"http://{self.address}{path}", data=body, headers=self.headers)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    def counts(self, model: str) -> tuple[int, int, int]:
        """(requests answered, batch elements, executions) of a model since the server started."""
        row = self.get(f"/v2/models/{model}/stats")["model_stats"][0]
        requests = row["inference_stats"]["success"]["count"]
        # A generator that stops leaves requests behind, which Naiad counts as failed because they were cancelled.
        cancelled = row.get("response_stats", {}).get("0", {}).get("cancel", {}).get("count", 0)
        failures = row["inference_stats"]["fail"]["count"] - cancelled
        if failures:
            raise RuntimeError(f"{self.name} counted {failures} failed requests of '{model}': the run is void")
        return requests, row["inference_count"], row["execution_count"]


@contextlib.contextmanager
def naiad(repository: Path, log: Path, *options: str, name: str = "naiad", key: str = "") -> Iterator[Server]:
    """`naiad serve` of this checkout; with a key it asks everybody for it."""
    read_end, write_end = os.pipe()
    passed = [write_end]
    command = [sys.executable, "-m", "naiad", "serve", "--model-repository", str(repository)]
    command += ["--http-port", "0", "--grpc-port", "0", "--metrics-port", "0"]
    command += ["--ready-fd", str(write_end), "--exit-on-error", "true", *options]
    if key:
        key_end, given = os.pipe()
        os.write(given, key.encode())
        os.close(given)
        passed.append(key_end)
        command += ["--require-key", "true", "--bootstrap-key-fd", str(key_end)]
    with log.open("ab") as sink:
        process = subprocess.Popen(command, cwd=CHECKOUT, pass_fds=passed, stderr=sink, stdout=sink)
    for end in passed:
        os.close(end)
    with os.fdopen(read_end) as ready:
        line = ready.readline()
    if not line:
        raise RuntimeError(f"naiad serve exited with {process.wait()} before it was ready; see {log}")
    at = json.loads(line)
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    server = Server(name, process.pid, at["http"], at["grpc"], at["metrics"], headers)
    try:
        _wait_ready(server, process, log)
        yield server
    finally:
        _stop(process)


def has_access_log() -> bool:
    """Whether this Naiad can write one."""
    command = [sys.executable, "-m", "naiad", "serve", "--help"]
    text = subprocess.run(command, cwd=CHECKOUT, check=True, capture_output=True, text=True).stdout
    return f"{ACCESS_LOG} " in text


@contextlib.contextmanager
def triton(peers: Peers, repository: Path, log: Path) -> Iterator[Server]:
    """The real tritonserver. It cannot pick its own ports, so a free one is found for it."""
    ports = _free_ports(3)
    home = peers.triton / "pytriton" / "tritonserver"
    command = [str(home / "bin" / "tritonserver"), f"--model-repository={repository}"]
    command += [f"--backend-directory={home / 'backends'}", "--disable-auto-complete-config"]
    command += ["--http-address=127.0.0.1", "--grpc-address=127.0.0.1", "--metrics-address=127.0.0.1"]
    command += [f"--http-port={ports[0]}", f"--grpc-port={ports[1]}", f"--metrics-port={ports[2]}"]
    with log.open("ab") as sink:
        process = subprocess.Popen(command, env=triton_environment(peers), stderr=sink, stdout=sink)
    server = Server("triton", process.pid, *(f"127.0.0.1:{port}" for port in ports), {})
    try:
        _wait_ready(server, process, log)
        yield server
    finally:
        _stop(process)


def _wait_ready(server: Server, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"{server.name} exited with {process.returncode} before it was ready; see {log}")
        with contextlib.suppress(OSError):
            with urllib.request.urlopen(f"http://{server.address}/v2/health/ready", timeout=1) as answer:
                if answer.status == 200:
                    return
        time.sleep(0.1)
    raise RuntimeError(f"{server.name} was not ready within 120 s; see {log}")


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
