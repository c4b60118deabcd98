"""A hundred times load, infer, unload: memory, descriptors, threads and processes are given back."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.server import Serve, descendants

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "mnist"
ROUNDS, WARM_UP = 100, 10


def _rss(pid: int) -> int:
    """Resident bytes. (PSS would move with other processes that map the same libraries.)"""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Rss:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("the kernel does not tell RSS")


def _figures(server: Serve) -> dict[str, int]:
    zygotes = descendants(server.pid)
    return {
        "bytes": _rss(server.pid) + sum(map(_rss, zygotes)),
        "descriptors": len(os.listdir(f"/proc/{server.pid}/fd")),
        "threads": len(os.listdir(f"/proc/{server.pid}/task")),
        "processes": len(zygotes),
    }


@pytest.mark.timeout(600)
def test_load_infer_unload_gives_everything_back(repository, start, torch, capsys):
    target = repository.root / "mnist-cnn" / "1"
    target.mkdir(parents=True)
    (target / "model.pt").write_bytes((EXAMPLE / "model-repo" / "mnist-cnn" / "1" / "model.pt").read_bytes())
    server = start("--model-control-mode=explicit", "--model-load-thread-count=1").wait_ready()
    body = (EXAMPLE / "request.json").read_bytes()
    before: dict[str, int] = {}
    for number in range(ROUNDS + WARM_UP):
        if number == WARM_UP:
            before = _settled(server)
        assert server.post("/v2/repository/models/mnist-cnn/load").status == 200
        assert server.post("/v2/models/mnist-cnn/infer", body).status == 200
        assert server.post("/v2/repository/models/mnist-cnn/unload").status == 200
    after = _settled(server)
    with capsys.disabled():
        print(f"\nload, infer, unload {ROUNDS} times: before {before}, after {after}")
    assert after["bytes"] - before["bytes"] < 5_000_000
    for name in ("descriptors", "threads", "processes"):
        assert after[name] == before[name], name


def _settled(server: Serve) -> dict[str, int]:
    """The figures once the last worker is gone, and what the server held of it, which it closes just afterwards."""
    server.until(lambda: len(descendants(server.pid)) == 1, 20, "workers are left")
    seen: list[int] = []

    def steady() -> bool:
        seen.append(_figures(server)["descriptors"])
        return len(seen) > 5 and len(set(seen[-5:])) == 1

    server.until(steady, 20, "the number of descriptors changes without end")
    return _figures(server)
