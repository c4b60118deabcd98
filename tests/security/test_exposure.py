"""F1, F2: closed to others by default, browsers included."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

BODY = {"inputs": [{"name": "INPUT0", "shape": [1, 16], "datatype": "FP32", "data": [0.0] * 16}]}


@pytest.fixture
def server(repository, start):
    repository.identity("m")
    return start().wait_ready()


def _listening(pid: int) -> list[str]:
    """Local addresses on which a process listens, in the kernel's hexadecimal."""
    inodes = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            target = str(link.readlink())
            if target.startswith("socket:["):
                inodes.add(target[8:-1])
    found = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                found.append(fields[1].split(":")[0])
    return found


def test_only_loopback_listens(server):
    assert set(_listening(server.pid)) == {"0100007F"}


@pytest.mark.parametrize("host", ["evil.test", "evil.test:8000", "127.0.0.1.evil.test"])
def test_f2_a_foreign_host_is_misdirected(server, host):
    assert server.get("/v2/health/ready", Host=host).status == 421


def test_a2_a_host_that_is_none_is_refused(server):
    assert server.get("/v2/models/m", Host="a/health?x=").status in (400, 421)


@pytest.mark.parametrize("headers", [{"Origin": "http://evil.test"}, {"Sec_Fetch_Site": "cross-site"}])
def test_f2_a_web_page_cannot_post(server, headers):
    assert server.post("/v2/models/m/infer", BODY, **headers).status == 403
    assert server.post("/v2/models/m/infer", BODY).status == 200


def test_c1_names_do_not_climb(server):
    for name in ("..%2f..%2fetc", "%2e%2e", "a%5cb", "%00", "m%0a"):
        answer = server.get(f"/v2/models/{name}")
        assert answer.status in (400, 404), name
        assert b"root:" not in answer.body
