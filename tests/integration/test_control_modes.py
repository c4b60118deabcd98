"""Explicit and none: who loads, and what the index says."""

from __future__ import annotations

import base64
import json

REFUSED = "explicit model load / unload is not allowed if polling is enabled"
ROW = [0.5] * 16


def test_explicit_loads_and_unloads(repository, start):
    repository.identity("a")
    repository.identity("b")
    server = start("--model-control-mode=explicit", "--load-model=a").wait_ready()
    assert server.infer("a", ROW).status == 200
    assert server.infer("b", ROW).status == 404
    assert server.index()["b"] == {"name": "b"}
    loaded = server.post("/v2/repository/models/b/load")
    assert (loaded.status, loaded.body) == (200, b"")
    assert server.infer("b", ROW).status == 200
    assert server.post("/v2/repository/models/b/unload").status == 200
    gone = server.infer("b", ROW)
    assert (gone.status, gone.error) == (404, "Request for unknown model: 'b' has no available versions")
    server.until(lambda: server.index()["b"].get("reason") == "unloaded", 20, "its worker did not end")
    assert server.index()["b"]["state"] == "UNAVAILABLE"
    assert server.post("/v2/repository/models/nope/unload").status == 200


def test_a_model_of_the_start_that_is_nowhere_is_in_the_log(repository, start):
    """It is in no index, so nothing else would say why the server is not ready."""
    repository.identity("digits")
    server = start("--model-control-mode=explicit", "--load-model=digit", "--exit-on-error=true")
    assert server.process.wait(60) == 1
    (record,) = [record for record in server.records() if record["level"] == "error"]
    assert (record["message"], record["code"]) == ("failed to load 'digit'", "PATH_NOT_FOUND")
    assert record["fix"] == "there is digits"


def test_w8_an_unknown_model_cannot_be_loaded(start, repository):
    server = start("--model-control-mode=explicit")
    answer = server.post("/v2/repository/models/nope/load")
    assert answer.status == 500
    assert answer.error == "failed to load 'nope', failed to poll from model repository"


def test_w69_a_failed_reload_keeps_the_old_version(repository, start):
    repository.identity("m")
    server = start("--model-control-mode=explicit", "--load-model=m").wait_ready()
    (repository.root / "m" / "config.pbtxt").write_text('backend: "identity"\n')
    answer = server.post("/v2/repository/models/m/load")
    assert answer.status == 400
    assert answer.error.startswith("load failed for model 'm': version 1 is at UNAVAILABLE state: Internal: ")
    assert answer.error.endswith(";\n")
    assert server.infer("m", ROW).status == 200


def test_w67_w68_a_load_may_bring_its_own_configuration(repository, start):
    repository.identity("m")
    server = start("--model-control-mode=explicit", "--allow-file-override=true").wait_ready()
    config = {
        "backend": "identity",
        "max_batch_size": 3,
        "input": [{"name": "INPUT0", "data_type": "TYPE_FP32", "dims": [16]}],
        "output": [{"name": "OUTPUT0", "data_type": "TYPE_FP32", "dims": [16]}],
    }
    as_object = server.post("/v2/repository/models/m/load", {"parameters": {"config": config}})
    assert (as_object.status, as_object.error) == (500, "attempt to access JSON non-string as string")
    body = {"parameters": {"config": json.dumps(config)}}
    assert server.post("/v2/repository/models/m/load", body).status == 200
    assert server.get("/v2/models/m/config").json["max_batch_size"] == 3
    body["parameters"]["file:1/note.txt"] = base64.b64encode(b"x").decode()
    assert server.post("/v2/repository/models/m/load", body).status == 200
    climbing = {"parameters": {"config": json.dumps(config), "file:../../x": "eA=="}}
    refused = server.post("/v2/repository/models/m/load", climbing)
    assert refused.status == 400
    assert "expected a path inside the model's directory" in refused.error


def test_file_content_needs_a_key(repository, start):
    repository.identity("m")
    server = start("--model-control-mode=explicit").wait_ready()
    body = {"parameters": {"config": "{}", "file:1/model.pt": "eA=="}}
    assert server.post("/v2/repository/models/m/load", body).status == 403


def test_loading_outside_explicit_mode_is_refused(repository, start):
    repository.identity("m")
    server = start().wait_ready()
    for verb in ("load", "unload"):
        answer = server.post(f"/v2/repository/models/m/{verb}")
        assert (answer.status, answer.error) == (503, REFUSED)


def test_version_policy(repository, start):
    repository.identity("m", versions=(1, 2, 10), extra="version_policy { specific { versions: [1, 10] } }")
    server = start().wait_ready()
    assert server.get("/v2/models/m").json["versions"] == ["1", "10"]
    assert server.infer("m", ROW).json["model_version"] == "10"
    assert server.post("/v2/models/m/versions/1/infer", _body()).json["model_version"] == "1"
    missing = server.post("/v2/models/m/versions/2/infer", _body())
    assert (missing.status, missing.error) == (404, "Request for unknown model: 'm' version 2 is not found")


def _body() -> dict:
    return {"inputs": [{"name": "INPUT0", "shape": [1, 16], "datatype": "FP32", "data": ROW}]}
