"""Runs a real `naiad serve` that says where it is, and talks to it over real sockets."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

COMMAND = [sys.executable, "-m", "naiad", "serve"]


@dataclass
class Answer:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        return self.json["error"]


@dataclass
class Serve:
    """A running server."""

    process: subprocess.Popen[bytes]
    address: str
    log: Path
    headers: dict[str, str]
    grpc: str = ""
    """`host:port` of the gRPC listener."""
    metrics: str | None = None

    @property
    def pid(self) -> int:
        return self.process.pid

    def send(self, verb: str, path: str, body: Any = None, *, at: str | None = None, **headers: str) -> Answer:
        """One request on a connection of its own; `body` is bytes or becomes JSON; `at` is another listener."""
        sent = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        connection = http.client.HTTPConnection(at or self.address, timeout=60)
        try:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(verb, path, sent, {**self.headers, **named})
            answer = connection.getresponse()
            return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Answer:
        return self.send("GET", path, **headers)

    def post(self, path: str, body: Any = None, **headers: str) -> Answer:
        return self.send("POST", path, body, **headers)

    def infer(self, model: str, *rows: list[float], name: str = "INPUT0", datatype: str = "FP32") -> Answer:
        """An infer request with one input of these rows."""
        data = [value for row in rows for value in row]
        tensor = {"name": name, "shape": [len(rows), len(rows[0])], "datatype": datatype, "data": data}
        return self.post(f"/v2/models/{model}/infer", {"inputs": [tensor]})

    def scrape(self, **headers: str) -> str:
        """The metrics as text."""
        answer = self.send("GET", "/metrics", at=self.metrics, **headers)
        assert answer.status == 200, answer
        return answer.body.decode()

    def index(self) -> dict[str, dict[str, Any]]:
        """The repository index by model name (the newest version's row)."""
        return {row["name"]: row for row in self.post("/v2/repository/index").json}

    def wait_ready(self, seconds: float = 60) -> Serve:
        self.until(lambda: self.get("/v2/health/ready").status == 200, seconds, "the server was not ready")
        return self

    def wait_settled(self, *models: str, seconds: float = 60) -> Serve:
        """Until each model is READY or UNAVAILABLE."""

        def settled() -> bool:
            index = self.index()
            return all(index.get(name, {}).get("state") in ("READY", "UNAVAILABLE") for name in models)

        self.until(settled, seconds, f"{models} did not settle")
        return self

    def until(self, probe: Callable[[], Any], seconds: float, message: str) -> Any:
        return until(probe, seconds, lambda: f"{message}\n{self.log.read_text()[-3000:]}")

    def records(self) -> list[dict[str, Any]]:
        """The log so far."""
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]

    def stop(self, seconds: float = 40) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)


def until(probe: Callable[[], Any], seconds: float, message: Callable[[], str]) -> Any:
    """Asks until there is an answer that is true; the deadline is the failure."""
    tick = threading.Event()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = probe()
        if found:
            return found
        tick.wait(0.05)
    raise AssertionError(message())


@contextlib.contextmanager
def serve(repository: Path, log: Path, *options: str, environment: dict[str, str] | None = None) -> Iterator[Serve]:
    """Starts a server on a free port; end-of-file on the ready pipe means that it died."""
    read_end, write_end = os.pipe()
    command = [*COMMAND, "--model-repository", str(repository), "--http-port", "0", "--grpc-port", "0"]
    command += ["--metrics-port", "0", "--ready-fd", str(write_end)]
    with log.open("ab") as sink:
        process = subprocess.Popen(
            [*command, *options],
            pass_fds=[write_end],
            stdout=sink,
            stderr=sink,
            env={**os.environ, **(environment or {})},
        )
    os.close(write_end)
    with os.fdopen(read_end) as ready:
        line = ready.readline()
    assert line, f"the server exited with {process.wait()} before it was ready:\n{log.read_text()}"
    addresses = json.loads(line)
    server = Serve(process, addresses["http"], log, {}, addresses["grpc"] or "", addresses["metrics"])
    try:
        yield server
    finally:
        try:
            server.stop()
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise


def descendants(pid: int) -> list[int]:
    """All living descendants of a process."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                if fields[0] != "Z":
                    children.setdefault(int(fields[1]), []).append(int(entry.name))
    found, waiting = [], [pid]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def alive(pid: int) -> bool:
    """Whether a process lives (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
