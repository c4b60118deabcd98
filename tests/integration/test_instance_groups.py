"""A reload that changes the instance groups only keeps the workers that stay, their counters and every request."""

from __future__ import annotations

from tests.support.server import Serve
from tests.support.traffic import Traffic

ROW = [0.5] * 16
EXPLICIT = ("--model-control-mode=explicit", "--load-model=m")


def started(server: Serve, expected: int) -> int:
    """How many workers have started so far; records may come a little after the answer of a load."""

    def ready() -> int:
        return sum(record["message"] == "worker ready" for record in server.records())

    server.until(lambda: ready() >= expected, 10, f"{expected} workers are not ready")
    return ready()


def groups(server: Serve) -> list[int]:
    return [group["count"] for group in server.get("/v2/models/m/config").json["instance_group"]]


def scale(repository, server: Serve, count: int, extra: str = "") -> None:
    repository.identity("m", extra=f"instance_group {{ count: {count} }} {extra}")
    assert server.post("/v2/repository/models/m/load").status == 200


def test_instances_come_and_go_beside_those_that_stay(repository, start):
    repository.identity("m")
    server = start(*EXPLICIT).wait_ready()
    assert server.infer("m", ROW).status == 200
    traffic = Traffic(server.address, model="m", rate=300, clients=6)
    scale(repository, server, 3)
    assert (started(server, 3), groups(server)) == (3, [3])
    scale(repository, server, 1)
    assert (started(server, 3), groups(server)) == (3, [1])
    scale(repository, server, 2)
    assert (started(server, 4), groups(server)) == (4, [2])
    outcome = traffic.finish()
    assert set(outcome["statuses"]) == {"200"}, outcome
    sent = outcome["statuses"]["200"] + 1
    (stats,) = server.get("/v2/models/m/stats").json["model_stats"]
    assert stats["inference_stats"]["success"]["count"] == sent, "the counters go on"
    said = [(r["before"], r["after"]) for r in server.records() if r["message"].startswith("changed the instances")]
    assert said == [(1, 3), (3, 1), (1, 2)]
    assert server.index()["m"] == {"name": "m", "version": "1", "state": "READY"}


def test_whatever_else_changes_is_a_whole_load(repository, start):
    repository.identity("m")
    server = start(*EXPLICIT).wait_ready()
    scale(repository, server, 2, "dynamic_batching { }")
    assert (started(server, 3), groups(server)) == (3, [2])
    (repository.root / "m" / "1" / "weights").write_text("new")
    scale(repository, server, 3, "dynamic_batching { }")
    assert started(server, 6) == 6
    assert server.post("/v2/repository/models/m/load").status == 200  # nothing changed: a reload was asked for
    assert started(server, 9) == 9


def test_an_instance_that_cannot_be_added_changes_nothing(repository, start):
    sample = """model_warmup { name: "w" inputs { key: "INPUT0" value {
        data_type: TYPE_FP32 dims: [ 16 ] input_data_file: "row" } } }"""
    folder = repository.root / "m" / "warmup"
    folder.mkdir(parents=True)
    (folder / "row").write_bytes(bytes(64))
    repository.identity("m", extra=sample)
    server = start(*EXPLICIT).wait_ready()
    (repository.root / "m" / "config.pbtxt").write_text(
        (repository.root / "m" / "config.pbtxt").read_text() + "instance_group { kind: KIND_GPU gpus: [ 99 ] }"
    )
    answer = server.post("/v2/repository/models/m/load")
    assert answer.status == 400
    assert answer.error.startswith("load failed for model 'm': version 1 is at UNAVAILABLE state: Internal: ")
    assert server.infer("m", ROW).status == 200
    assert server.index()["m"]["state"] == "READY"
    assert server.index()["m"]["reason"].startswith("reload failed: configuration: ")
