"""Reloads and the end of a server under steady traffic: no request is lost."""

from __future__ import annotations

import signal

import pytest

from tests.support.server import Serve, serve
from tests.support.traffic import Traffic

EXPLICIT = ("--model-control-mode=explicit", "--load-model=m")
RELOADS = 50


def address(server: Serve, kind: str) -> str:
    return server.address if kind == "http" else server.grpc


@pytest.mark.parametrize("kind", ["http", "grpc"])
def test_fifty_reloads_under_500_requests_a_second_lose_none(repository, start, kind):
    repository.identity("m")
    server = start(*EXPLICIT).wait_ready()
    traffic = Traffic(address(server, kind), model="m", rate=500, clients=8, kind=kind)
    for number in range(RELOADS):
        repository.identity("m", max_batch=8 + number % 2)
        assert server.post("/v2/repository/models/m/load").status == 200
    outcome = traffic.finish()
    assert set(outcome["statuses"]) == {"200"}, outcome
    assert outcome["statuses"]["200"] > RELOADS, outcome
    assert outcome["moved"] == 0, "a connection ended"


@pytest.mark.parametrize("kind", ["http", "grpc"])
def test_a_server_that_is_stopped_under_load_loses_no_request(repository, start, tmp_path, kind):
    """The client asks another server where one refuses or ends a connection, as a load balancer does."""
    repository.identity("m")
    with serve(repository.root, tmp_path / "second.log", *EXPLICIT) as second:
        second.wait_ready()
        first = start(*EXPLICIT).wait_ready()
        addresses = (address(first, kind), address(second, kind))
        traffic = Traffic(*addresses, model="m", rate=500, clients=8, kind=kind)
        answered = "/v2/models/m/stats"
        stats = lambda server: server.get(answered).json["model_stats"][0]["inference_stats"]  # noqa: E731
        first.until(lambda: stats(first)["success"]["count"] > 100, 30, "there is no traffic")
        first.process.send_signal(signal.SIGTERM)
        assert first.process.wait(40) == 0
        before = stats(second)["success"]["count"]
        second.until(lambda: stats(second)["success"]["count"] > before + 100, 30, "nobody moved")
        outcome = traffic.finish()
    assert set(outcome["statuses"]) == {"200"}, outcome
    assert outcome["moved"] > 0, outcome
