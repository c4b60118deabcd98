"""The response cache of a real server."""

from __future__ import annotations

from pathlib import Path

from tests.support.repository import Repository
from tests.support.server import serve

ENABLED = "response_cache { enable: true }"


def test_a_known_request_is_answered_without_a_run(tmp_path: Path) -> None:
    """W65: hits count as success and not as a run."""
    repository = Repository(tmp_path / "models")
    repository.identity("cached", extra=ENABLED)
    repository.identity("plain")
    with serve(repository.root, tmp_path / "log", "--cache-config=local,size=1048576") as server:
        server.wait_ready()
        row = [float(number) for number in range(16)]
        for model in ("cached", "plain"):
            answers = [server.infer(model, row) for _ in range(3)]
            assert {answer.status for answer in answers} == {200}
            assert len({answer.body for answer in answers}) == 1
        stats = {model: server.get(f"/v2/models/{model}/stats").json["model_stats"][0] for model in ("cached", "plain")}
    counts = {
        model: (
            one["execution_count"],
            one["inference_stats"]["success"]["count"],
            one["inference_stats"]["cache_hit"]["count"],
            one["inference_stats"]["cache_miss"]["count"],
        )
        for model, one in stats.items()
    }
    assert counts == {"cached": (1, 3, 2, 1), "plain": (3, 3, 0, 0)}
