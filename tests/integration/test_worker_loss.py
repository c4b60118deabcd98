"""Workers and servers that are killed: what fails, what goes on, what is left behind."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

from tests.support.server import Serve, alive, descendants, until

ROW = [1.0] * 16


class Load:
    """Requests to one model from a few threads; every status with the time at which it came."""

    def __init__(self, server: Serve, model: str, threads: int = 2) -> None:
        self.answers: list[tuple[float, int]] = []
        self._stop = threading.Event()
        self._server = server
        self._model = model
        self._threads = [threading.Thread(target=self._run) for _ in range(threads)]
        for thread in self._threads:
            thread.start()

    def _run(self) -> None:
        while not self._stop.is_set():
            status = self._server.infer(self._model, ROW).status
            self.answers.append((time.monotonic(), status))

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(30)


def worker_of(server: Serve, model: str) -> int:
    """The pid of a model's worker, from the log of its output's labels: workers hold the arena of their model."""
    before = set(descendants(server.pid))
    assert before, "the server has no workers"
    record = next(r for r in server.records() if r["message"] == "worker ready" and r["model"] == model)
    return int(record["pid"])


def test_a_killed_worker_comes_back_and_others_do_not_notice(repository, start):
    repository.identity("victim")
    repository.identity("other")
    server = start().wait_ready()
    victim, other = Load(server, "victim"), Load(server, "other")
    server.until(lambda: len(victim.answers) > 20 and len(other.answers) > 20, 20, "no load")
    killed = worker_of(server, "victim")
    at = time.monotonic()
    os.kill(killed, signal.SIGKILL)
    back = "the model did not answer again"
    server.until(lambda: any(t > at and s == 200 for t, s in list(victim.answers)), 20, back)
    server.until(lambda: server.index()["victim"]["state"] == "READY", 20, "the index did not recover")
    for load in (victim, other):
        load.stop()
    assert {status for _, status in other.answers} == {200}
    statuses = [status for _, status in victim.answers]
    assert set(statuses) <= {200, 503}
    # At most what the worker had started when it died: two frames of one request a thread.
    assert statuses.count(503) <= 2
    first_after = min(t for t, s in victim.answers if t > at and s == 200)
    assert first_after - at < 5
    assert alive(server.pid) and not alive(killed)


def test_the_index_tells_of_lost_workers_while_the_others_serve(repository, start):
    slow = 'parameters { key: "creation_delay_sec" value { string_value: "2" } }'
    repository.identity("m", extra=slow + "instance_group { count: 2 }")
    server = start().wait_ready()
    os.kill(worker_of(server, "m"), signal.SIGKILL)
    reason = server.until(lambda: server.index()["m"].get("reason"), 20, "the index does not tell")
    assert reason.startswith("1 of 2 workers are lost: the worker process ended: signal 9")
    assert server.index()["m"]["state"] == "READY"
    assert server.infer("m", ROW).status == 200
    assert server.get("/v2/health/ready").status == 200
    server.until(lambda: "reason" not in server.index()["m"], 20, "the index does not tell that it is whole again")


def test_w9_w10_a_model_without_workers_is_not_ready(repository, start):
    slow = 'parameters { key: "creation_delay_sec" value { string_value: "2" } }'
    repository.identity("m", extra=slow)
    server = start().wait_ready()
    os.kill(worker_of(server, "m"), signal.SIGKILL)
    server.until(lambda: server.index()["m"]["state"] == "UNAVAILABLE", 20, "the index does not tell")
    assert server.get("/v2/health/ready").status == 400
    down = server.get("/v2/models/m/ready")
    assert (down.status, down.error) == (400, "Model version not ready")
    server.wait_ready(20)
    assert server.get("/v2/models/m/ready").status == 200


def test_a_killed_zygote_takes_no_worker_with_it(repository, start):
    repository.identity("m")
    server = start("--model-control-mode=explicit", "--load-model=m").wait_ready()
    worker = worker_of(server, "m")
    zygotes = [
        pid for pid in descendants(server.pid) if b"naiad_worker_start.py\0zygote" in _command(pid) and pid != worker
    ]
    for zygote in zygotes:
        os.kill(zygote, signal.SIGKILL)
    assert server.infer("m", ROW).status == 200
    assert alive(worker)
    repository.identity("n")
    assert server.post("/v2/repository/models/n/load").status == 200
    assert server.infer("n", ROW).status == 200


def test_a_killed_server_leaves_nothing_behind(repository, start):
    repository.identity("m")
    server = start().wait_ready()
    tree = descendants(server.pid)
    assert len(tree) >= 2
    server.process.kill()
    server.process.wait(10)
    until(lambda: not any(map(alive, tree)), 10, lambda: f"still alive: {[pid for pid in tree if alive(pid)]}")


def test_a_worker_inherits_listed_things_only(repository, start):
    secrets = {"AWS_SECRET_ACCESS_KEY": "geheim", "DATABASE_URL": "postgresql://x", "HF_TOKEN": "geheim"}
    repository.identity("m")
    server = start(environment=secrets).wait_ready()
    for pid in descendants(server.pid):
        environment = Path(f"/proc/{pid}/environ").read_bytes()
        assert b"geheim" not in environment and b"postgresql" not in environment
    worker = worker_of(server, "m")
    kinds = [os.readlink(f"/proc/{worker}/fd/{name}") for name in os.listdir(f"/proc/{worker}/fd")]
    sockets = [kind for kind in kinds if kind.startswith("socket:")]
    assert len(sockets) == 2, f"expected the control and the data channel, got {kinds}"
    assert not any("naiad.db" in kind or "/serve.log" in kind for kind in kinds)


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
