"""A server with keys of every kind."""

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
