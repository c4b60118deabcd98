"""Load, reload and unload by clients, rule by rule (W66 to W72)."""

from __future__ import annotations

import base64
import json
import shutil
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from urllib.parse import unquote

import pytest

from tests.support.repository import Repository

ROW = [0.5] * 16
EXPLICIT = "--model-control-mode=explicit"
SLOW = 'parameters { key: "execute_delay_ms" value { string_value: "%d" } }'
CREATION = 'parameters { key: "creation_delay_sec" value { string_value: "%s" } }'
MNIST = Path(__file__).resolve().parents[2] / "examples" / "mnist" / "model-repo" / "mnist-cnn" / "1" / "model.pt"
BROKEN = 'backend: "identity"\n'


def load(server, model: str, **parameters: str):
    return server.post(f"/v2/repository/models/{model}/load", {"parameters": parameters} if parameters else None)


def config(**more: object) -> str:
    tensor = {"data_type": "TYPE_FP32", "dims": [16]}
    fixed = {"backend": "identity", "max_batch_size": 3}
    tensors = {"input": [{"name": "INPUT0", **tensor}], "output": [{"name": "OUTPUT0", **tensor}]}
    return json.dumps({**fixed, **tensors, **more})


def rows(server, name: str, **body: object) -> list[dict]:
    return [row for row in server.post("/v2/repository/index", body).json if row["name"] == name]


def one_running(pool: ThreadPoolExecutor, server) -> Future:
    """A request to the slow model 'm' that runs: the one behind it, sent with it, has just been answered."""
    sent = [pool.submit(server.infer, "m", ROW) for _ in range(2)]
    done, running = wait(sent, 30, FIRST_COMPLETED)
    assert [answer.result().status for answer in done] == [200]
    return running.pop()


def test_w66_the_index_has_a_row_for_each_version_and_names_of_the_rest(repository, start):
    repository.identity("m", versions=(1, 3), extra="version_policy { all { } }")
    repository.identity("idle")
    server = start(EXPLICIT, "--load-model=m").wait_ready()
    ready = [{"name": "m", "version": "1", "state": "READY"}, {"name": "m", "version": "3", "state": "READY"}]
    assert server.post("/v2/repository/index").json == [{"name": "idle"}, *ready]
    assert server.post("/v2/repository/index", {"ready": True}).json == ready
    assert server.post("/v2/repository/index", {"ready": False}).json == [{"name": "idle"}, *ready]
    assert server.post("/v2/repository/any/index").json == [{"name": "idle"}, *ready]  # W49
    refused = server.post("/v2/repository/index", {"ready": 1})
    assert (refused.status, refused.error) == (400, "Invalid value for 'ready': expected a boolean")


def test_w66_the_index_follows_the_repository(repository, start):
    server = start(EXPLICIT).wait_ready()
    assert server.post("/v2/repository/index").json == []
    repository.identity("late")
    server.until(lambda: server.index() == {"late": {"name": "late"}}, 20, "the new model is not in the index")
    shutil.rmtree(repository.root / "late")
    server.until(lambda: server.index() == {}, 20, "the removed model is still in the index")


def test_w66_a_model_in_two_repositories_is_unavailable(repository, start, tmp_path):
    other = Repository(tmp_path / "other")
    for place in (repository, other):
        place.identity("twice")
    other.identity("once")
    server = start(EXPLICIT, f"--model-repository={other.root}", "--load-model=once").wait_ready()
    text = "model appears in two or more repositories"
    row = {"name": "twice", "state": "UNAVAILABLE", "reason": text}
    assert rows(server, "twice") == [row]
    assert server.infer("once", ROW).status == 200
    answer = load(server, "twice")
    assert (answer.status, answer.error) == (400, f"load failed for model 'twice': {text};\n")
    assert rows(server, "twice") == [row]
    assert server.infer("twice", ROW).status == 404
    shutil.rmtree(other.root / "twice")
    assert load(server, "twice").status == 200


def test_w67_a_configuration_of_ones_own_lasts_until_the_next_load(repository, start):
    repository.identity("m", versions=(1, 2))
    server = start(EXPLICIT, "--load-model=m").wait_ready()
    every = {"version_policy": {"all": {}}}
    assert load(server, "m", config=config(**every)).status == 200
    assert server.get("/v2/models/m").json["versions"] == ["1", "2"]
    assert server.get("/v2/models/m/config").json["max_batch_size"] == 3
    assert load(server, "m", config=config(version_policy={"specific": {"versions": [1]}})).status == 200
    assert server.get("/v2/models/m").json["versions"] == ["1"]
    assert server.infer("m", ROW).json["model_version"] == "1"
    assert load(server, "m").status == 200
    assert server.get("/v2/models/m").json["versions"] == ["2"]
    assert server.get("/v2/models/m/config").json["max_batch_size"] == 8


@pytest.mark.parametrize(
    ("parameters", "status", "text"),
    [
        ({"config": {}}, 500, "attempt to access JSON non-string as string"),
        ({"other": "x"}, 500, "unrecognized load parameter 'other'."),
        ({"config": "{"}, 400, "load parameter 'config':1:2"),
        ({"config": "[]"}, 400, "expected a JSON object"),
        ({"config": '{"max_batch_sice": 1}'}, 400, "max_batch_sice"),
        ({"config": config(name="n")}, 400, "expected the directory's name 'm', got 'n'"),
        ({"config": config(version_policy={"specific": {"versions": [7]}})}, 400, "at least one version must be"),
    ],
)
def test_w67_a_wrong_parameter_is_refused_and_the_old_version_serves_on(explicit, parameters, status, text):
    answer = explicit.post("/v2/repository/models/m/load", {"parameters": parameters})
    assert answer.status == status
    assert text in answer.error
    assert explicit.infer("m", ROW).status == 200


@pytest.fixture(scope="module")
def explicit(module_repository, tmp_path_factory):
    from tests.support.server import serve

    module_repository.identity("m")
    log = tmp_path_factory.mktemp("log") / "serve.log"
    options = (EXPLICIT, "--load-model=m", "--allow-file-override=true")
    with serve(module_repository.root, log, *options) as running:
        yield running.wait_ready()


def test_w68_files_replace_the_directory_and_go_with_the_next_load(repository, start, tmp_path):
    folder = tmp_path / "temporary"
    folder.mkdir()
    repository.identity("m", versions=(1,))
    options = (EXPLICIT, "--allow-file-override=true", "--load-model=m")
    server = start(*options, environment={"TMPDIR": str(folder)}).wait_ready()
    note = base64.b64encode(b"cat\ndog\n").decode()
    given = {"config": config(), "file:7/note.txt": note, "file:labels.txt": note}
    assert load(server, "m", **given).status == 200
    assert server.get("/v2/models/m").json["versions"] == ["7"]
    assert [path.read_bytes() for path in folder.glob("*/m/7/note.txt")] == [b"cat\ndog\n"]
    assert load(server, "new", **given).status == 200  # of which the repository knows nothing
    assert load(server, "m").status == 200
    assert server.get("/v2/models/m").json["versions"] == ["1"]
    server.until(lambda: [path.name for path in folder.glob("*/*")] == ["new"], 20, "its files are still there")
    assert server.post("/v2/repository/models/new/unload").status == 200
    server.until(lambda: not list(folder.iterdir()), 20, "its files are still there")


@pytest.mark.parametrize(
    "path", ["../x", "1/../../x", "/tmp/naiad-canary", "1\\..\\x", "C:x", "", "1/../..", "%2e%2e/x\0"]
)
def test_c1_w68_a_path_that_leaves_the_directory_is_refused(explicit, path):
    canary = Path("/tmp/naiad-canary")
    answer = load(explicit, "m", config=config(), **{f"file:{path}": "eA=="})
    assert answer.status == 400
    assert "expected a path inside the model's directory" in answer.error
    assert not canary.exists()
    assert explicit.infer("m", ROW).status == 200


def test_w68_files_need_a_configuration(explicit):
    answer = load(explicit, "m", **{"file:1/x": "eA=="})
    assert (answer.status, "config" in answer.error) == (400, True)


def test_w69_w9_a_failed_load_says_why_in_answer_index_and_readiness(repository, start):
    repository.identity("m")
    repository.identity("bad")
    (repository.root / "bad" / "config.pbtxt").write_text(BROKEN)
    server = start(EXPLICIT, "--load-model=m").wait_ready()
    answer = load(server, "bad")
    assert answer.status == 400
    assert answer.error.startswith("load failed for model 'bad': version 1 is at UNAVAILABLE state: Internal: ")
    assert answer.error.endswith(";\n")
    (row,) = rows(server, "bad")
    assert row["state"] == "UNAVAILABLE"
    assert row["reason"] in answer.error
    assert server.get("/v2/health/ready").status == 400
    assert server.get("/v2/models/bad/ready").status == 404  # W10
    assert server.get("/v2/models/bad/versions/1/ready").status == 503  # W10
    assert server.post("/v2/repository/models/bad/unload").status == 200
    assert server.get("/v2/health/ready").status == 200
    (record,) = [record for record in server.records() if record["message"] == "failed to load 'bad'"]
    assert {"model", "version", "stage", "cause"} <= set(record)


def test_w69_after_a_failed_reload_the_old_version_serves_and_the_index_says_why(repository, start):
    repository.identity("m", max_batch=4)
    server = start(EXPLICIT, "--load-model=m").wait_ready()
    good = (repository.root / "m" / "config.pbtxt").read_text()
    (repository.root / "m" / "config.pbtxt").write_text(BROKEN)
    assert load(server, "m").status == 400
    assert server.infer("m", ROW).status == 200
    assert server.get("/v2/models/m/config").json["max_batch_size"] == 4
    assert server.get("/v2/health/ready").status == 200
    (row,) = rows(server, "m")
    assert row["state"] == "READY"
    assert row["reason"].startswith("reload failed: configuration: ")
    (repository.root / "m" / "config.pbtxt").write_text(good)
    assert load(server, "m").status == 200
    assert rows(server, "m") == [{"name": "m", "version": "1", "state": "READY"}]


def test_w69_one_bad_version_keeps_all_old_ones(repository, start, torch):
    repository.file("m", MNIST.read_bytes())
    (repository.root / "m" / "config.pbtxt").write_text("version_policy { all { } }")
    server = start(EXPLICIT, "--load-model=m").wait_ready()
    (repository.root / "m" / "2").mkdir()
    (repository.root / "m" / "2" / "model.pt").write_bytes(b"no model")
    answer = load(server, "m")
    assert answer.status == 400
    assert "version 2 is at UNAVAILABLE state: Internal: signature: " in answer.error
    assert "version 1" not in answer.error
    states = {row["version"]: row["state"] for row in rows(server, "m")}
    assert states == {"1": "READY", "2": "UNAVAILABLE"}
    assert server.get("/v2/models/m/versions/1/ready").status == 200


def test_w70_unload_answers_at_once_and_running_requests_finish(repository, start):
    repository.identity("m", extra=SLOW % 1000)
    server = start(EXPLICIT, "--load-model=m").wait_ready()
    with ThreadPoolExecutor(2) as pool:
        running = one_running(pool, server)
        assert server.post("/v2/repository/models/m/unload").status == 200
        assert not running.done()
        assert rows(server, "m") == [{"name": "m", "version": "1", "state": "UNLOADING"}]
        assert server.infer("m", ROW).status == 404
        assert running.result(30).status == 200
    server.until(lambda: rows(server, "m")[0].get("reason") == "unloaded", 20, "it is still unloading")
    assert rows(server, "m")[0]["state"] == "UNAVAILABLE"


def test_w70_a_model_can_be_loaded_again_while_it_unloads(repository, start):
    repository.identity("m", extra=SLOW % 1000)
    server = start(EXPLICIT, "--load-model=m").wait_ready()
    with ThreadPoolExecutor(2) as pool:
        running = one_running(pool, server)
        assert server.post("/v2/repository/models/m/unload").status == 200
        assert load(server, "m", config=config()).status == 200
        assert server.infer("m", ROW).status == 200
        assert not running.done()
        assert running.result(30).status == 200
    assert rows(server, "m") == [{"name": "m", "version": "1", "state": "READY"}]


def test_w71_unload_takes_the_flag(explicit):
    body = {"parameters": {"unload_dependents": True}}
    assert explicit.post("/v2/repository/models/nope/unload", body).status == 200
    wrong = explicit.post("/v2/repository/models/nope/unload", {"parameters": {"unload_dependents": 1}})
    assert wrong.status == 500


@pytest.mark.parametrize("name", ["..", "..%2Fx", "%2Ftmp", "a%2Fb", ".hidden", "a%5Cb", "a..b"])
def test_w72_c1_a_bad_name_is_refused(explicit, name):
    for verb in ("load", "unload"):
        answer = explicit.post(f"/v2/repository/models/{name}/{verb}")
        text = f"invalid model name '{unquote(name)}', model name must not contain path traversal characters"
        assert (answer.status, answer.error) == (400, text)


def test_loads_of_different_models_run_side_by_side_and_those_of_one_in_order(repository, start):
    for name in ("one", "two"):
        repository.identity(name, extra=CREATION % 2)
    repository.identity("quick")
    server = start(EXPLICIT, "--model-load-thread-count=2").wait_ready()
    done: list[str] = []

    def run(name: str) -> int:
        status = load(server, name).status
        done.append(name)
        return status

    with ThreadPoolExecutor(4) as pool:
        slow = [pool.submit(run, name) for name in ("one", "one", "one")]
        server.until(lambda: rows(server, "one")[0].get("state") == "LOADING", 20, "it does not load")
        assert pool.submit(run, "quick").result(30) == 200
        assert done == ["quick"]
        assert [result.result(60) for result in slow] == [200, 200, 200]
    loaded = [r for r in server.records() if r["message"] == "successfully loaded 'one' version 1"]
    assert len(loaded) == 3


def test_a_load_is_tried_again_as_often_as_asked(repository, start):
    repository.identity("m")
    (repository.root / "m" / "config.pbtxt").write_text(BROKEN)
    server = start(EXPLICIT, "--model-load-retry-count=2").wait_ready()
    assert load(server, "m").status == 400
    again = [r for r in server.records() if r["message"] == "a load failed and is tried again"]
    assert [record["attempts_left"] for record in again] == [2, 1]
