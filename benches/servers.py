"""Starts and stops the two servers under test, each on free ports, and asks them for their own counts."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benches.peers import CHECKOUT, Peers, triton_environment


@dataclass(frozen=True, slots=True)
class Server:
    """A running server: its name in the table, its process and its HTTP address."""

    name: str
    pid: int
    address: str

    def get(self, path: str) -> Any:
        """The JSON body of a GET."""
        with urllib.request.urlopen(f"http://{self.address}{path}", timeout=10) as answer:
            return json.load(answer)

    def post(self, path: str, body: bytes) -> Any:
        """The JSON body of a POST."""
        request = urllib.request.Request(f"http://{self.address}{path}", data=body)
        with urllib.request.urlopen(request, timeout=10) as answer:
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
def naiad(repository: Path, log: Path) -> Iterator[Server]:
    """`naiad serve` of this checkout."""
    read_end, write_end = os.pipe()
    command = [str(CHECKOUT / ".venv" / "bin" / "naiad"), "serve", "--model-repository", str(repository)]
    command += ["--http-port", "0", "--grpc-port", "0", "--metrics-port", "0"]
    command += ["--ready-fd", str(write_end), "--exit-on-error", "true"]
    with log.open("ab") as sink:
        process = subprocess.Popen(command, pass_fds=[write_end], stderr=sink, stdout=sink)
    os.close(write_end)
    with os.fdopen(read_end) as ready:
        line = ready.readline()
    if not line:
        raise RuntimeError(f"naiad serve exited with {process.wait()} before it was ready; see {log}")
    server = Server("naiad", process.pid, json.loads(line)["http"])
    try:
        _wait_ready(server, process, log)
        yield server
    finally:
        _stop(process)


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
    server = Server("triton", process.pid, f"127.0.0.1:{ports[0]}")
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
