"""A server with keys of every kind, and one that has to outlive its tests."""

from __future__ import annotations

import json

import pytest

from naiad import keys
from tests.support.keys import GRANTS


@pytest.fixture(scope="module")
def secured(module_repository, tmp_path_factory):
    from tests.support.server import serve

    folder = tmp_path_factory.mktemp("keys")
    made, rows = {}, []
    for name, (scopes, services) in GRANTS.items():
        key = keys.make_key()
        made[name] = key.reveal()
        rows.append(keys.row(key, scopes=scopes, services=services))
    expired = keys.make_key()
    made["expired"] = expired.reveal()
    rows.append(keys.row(expired, scopes=["admin"], services=["*"], expires=1))
    made["forged"] = made["admin"][:-1] + ("a" if made["admin"][-1] != "a" else "b")
    (folder / "keys.json").write_text(json.dumps({"keys": rows}))
    for name in ("mine", "other"):
        module_repository.identity(name)
    options = ["--model-control-mode=explicit", "--load-model=*", "--keys-file", str(folder / "keys.json")]
    with serve(module_repository.root, folder / "serve.log", *options) as server:
        yield server.wait_ready(), made


@pytest.fixture(scope="module")
def server(module_repository, tmp_path_factory):
    """One that is attacked by a whole file of tests and has to be the same process at the end."""
    from tests.support.server import serve

    module_repository.identity("m")
    log = tmp_path_factory.mktemp("log") / "serve.log"
    with serve(module_repository.root, log) as running:
        running.wait_ready()
        pid = running.pid
        yield running
        assert running.process.poll() is None and running.pid == pid, "the server died"
        assert running.infer("m", [0.0] * 16).status == 200


@pytest.fixture(scope="module")
def fenced(module_repository, tmp_path_factory):
    """One that takes files from clients, and beside whose repository nothing may change."""
    from tests.support.server import serve

    module_repository.identity("m")
    canary = module_repository.root.parent / "canary"
    canary.write_text("sings")
    log = tmp_path_factory.mktemp("log") / "serve.log"
    options = ["--model-control-mode=explicit", "--load-model=m", "--allow-file-override=true"]
    with serve(module_repository.root, log, *options) as running:
        running.wait_ready()
        before = _listing(module_repository.root.parent)
        yield running
        assert running.process.poll() is None, "the server died"
        assert running.infer("m", [0.0] * 16).status == 200
        assert canary.read_text() == "sings"
        assert _listing(module_repository.root.parent) == before


def _listing(folder) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))
