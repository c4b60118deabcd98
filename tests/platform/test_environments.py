"""Environments over the API: built by the loop, used by services, refused where they cannot be."""

from __future__ import annotations

import functools
import json
import os
import socket
import subprocess
import sys
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from naiad.runtimes.local import LocalOptions
from tests.platform.conftest import Ups, until
from tests.support.slow_index import SlowIndex

SERVICE = {"name": "digits", "model": {"path": "repo/digits/1/model.pt"}}
CONFIG = (
    'backend: "identity"\nmax_batch_size: 8\n'
    'input { name: "INPUT0" data_type: TYPE_FP32 dims: [ 4 ] }\n'
    'output { name: "OUTPUT0" data_type: TYPE_FP32 dims: [ 4 ] }\n'
)


@pytest.fixture
def packages(models: Path, wheelhouse: Path) -> str:
    """The wheels under a folder that the platform may read."""
    return linked(wheelhouse, models / "wheels")


def linked(wheelhouse: Path, folder: Path) -> str:
    folder.mkdir()
    for wheel in wheelhouse.iterdir():
        os.link(wheel, folder / wheel.name)
    return str(folder)


@pytest.fixture
def wanted(packages: str, uv_cache: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> dict:
    """The fields of an environment that needs no network."""
    monkeypatch.setenv("UV_CACHE_DIR", uv_cache["UV_CACHE_DIR"])
    return {"name": "small", "spec": "tiny<2\n", "find_links": [packages], "offline": True}


def settled(client: httpx.Client, name: str) -> dict:
    """The environment once the loop is done with it."""

    def reached() -> dict | None:
        document = client.get(f"/api/v1/environments/{name}").json()
        return document if document["observed_generation"] == document["generation"] else None

    return until(reached, 60, lambda: f"'{name}' is not settled: {client.get(f'/api/v1/environments/{name}').text}")


def gone(client: httpx.Client, name: str) -> None:
    until(lambda: client.get(f"/api/v1/environments/{name}").status_code == 404, 30, lambda: f"'{name}' is not gone")


def test_an_environment_is_built(platform, wanted):
    client = platform.client()
    answer = client.post("/api/v1/environments", json=wanted)
    assert answer.status_code == 201
    assert answer.json()["status"]["state"] == "PENDING"
    with client.stream("GET", "/api/v1/environments/small/logs", params={"follow": "true"}) as log:
        lines = [line for line in log.iter_lines() if line]
    assert lines[0] == "==> resolving"
    assert lines[-1] == "READY"
    assert str(platform.state.root) not in "\n".join(lines)
    document = settled(client, "small")
    status = document["status"]
    assert (status["state"], status["title_zh"], status["problem"]) == ("READY", "正常", None)
    assert {"name": "tiny", "version": "1.0"} in status["packages"]
    lock = client.get("/api/v1/environments/small/lock").text
    assert "tiny==1.0" in lock
    assert [row["name"] for row in client.get("/api/v1/environments").json()["items"]] == ["small"]
    assert client.post("/api/v1/environments", json=wanted).status_code == 200
    assert client.post("/api/v1/environments", json=wanted | {"spec": "tiny\n"}).status_code == 409
    assert client.post("/api/v1/environments/small/rebuild").status_code == 202
    with client.stream("GET", "/api/v1/environments/small/logs", params={"follow": "true"}) as log:
        again = [line for line in log.iter_lines() if line]
    assert again == ["==> resolving", "the lock is unchanged: the build that is there is taken", "READY"]
    assert settled(client, "small")["status"]["digest"] == status["digest"]
    assert client.delete("/api/v1/environments/small").status_code == 202
    gone(client, "small")
    assert not list((platform.state.environments / "builds").glob("*/"))


def test_a_failed_build_says_why_and_a_good_one_before_stays(platform, wanted):
    client = platform.client()
    client.post("/api/v1/environments", json=wanted | {"spec": "nosuch-zz\n"})
    failed = settled(client, "small")["status"]
    assert (failed["state"], failed["title_zh"], failed["digest"]) == ("FAILED", "失败", None)
    assert "nosuch-zz" in failed["problem"]
    assert str(platform.state.root) not in failed["problem"]
    assert client.get("/api/v1/environments/small/lock").status_code == 404
    assert client.put("/api/v1/environments/small", json=wanted).status_code == 200
    good = settled(client, "small")["status"]
    assert (good["state"], good["problem"]) == ("READY", None)
    client.put("/api/v1/environments/small", json=wanted | {"spec": "needy\ntiny>=2\n"})
    kept = settled(client, "small")["status"]
    assert (kept["state"], kept["digest"]) == ("READY", good["digest"])
    assert "unsatisfiable" in kept["problem"]


def test_h1_a_tools_words_say_nothing_of_where_the_store_lies(platform, wanted):
    client = platform.client()
    client.post("/api/v1/environments", json=wanted)
    settled(client, "small")
    (build,) = (platform.state.environments / "builds").glob("*/")
    client.delete("/api/v1/environments/small")
    gone(client, "small")
    build.with_name(f"{build.name}.part").write_text("where uv would make its folder")
    client.post("/api/v1/environments", json=wanted)
    status = settled(client, "small")["status"]
    assert (status["state"], build.name in status["problem"]) == ("FAILED", True)
    for words in (status["problem"], client.get("/api/v1/environments/small/logs").text):
        assert "virtual environment" in words
        assert str(platform.state.root) not in words


def test_what_cannot_be_is_refused_and_named(platform, wanted):
    client = platform.client()
    for change, path, says in (
        ({"name": "Small"}, "name", "small"),
        ({"spec": "six\n-r /etc/passwd\n"}, "spec", "line 2: option '-r' is not taken"),
        ({"spec": "six @ file:///etc/passwd"}, "spec", "names a file or URL"),
        ({"find_links": ["/etc"]}, "find_links[0]", "is not under a folder"),
        ({"python": "/usr/bin/python3"}, "python", "3"),
        ({"python": "3.8"}, "python", "expected 3.9 or newer"),
        ({"index_url": "https://u:p@x.test/"}, "index_url", "~/.netrc"),
        ({"manager": "CONDA", "channels": ["defaults"], "spec": ""}, "channels", "licence"),
        ({"manager": "CONDA", "spec": "channels: [ 'file:///etc' ]\n"}, "spec", "named by the field 'channels'"),
        ({"manager": "CONDA", "channels": ["file:///etc"], "spec": ""}, "channels[0]", "is not under a folder"),
        ({"index_url": "https://169.254.169.254/latest"}, "index_url", "is no public one"),
        ({"find_links": ["http://127.0.0.1:9/"]}, "find_links", "naiad up --fetch-allow HOST"),
        ({"channels": ["https://[::1]/x"], "manager": "CONDA", "spec": ""}, "channels", "is no public one"),
        ({"manager": "CONDA", "spec": "dependencies: [ 'file:///etc/x-1-0.conda' ]"}, "spec", "expected a package"),
        ({"pyhton": "3.12"}, "pyhton", "did you mean 'python'?"),
    ):
        answer = client.post("/api/v1/environments", json=wanted | change)
        assert answer.status_code == 422, (change, answer.text)
        field = answer.json()["fields"][0]
        assert field["path"] == path, answer.text
        assert says in field["message"] + field["fix"], answer.text
    answer = client.get("/api/v1/environments/smal")
    assert answer.status_code == 404
    assert client.put("/api/v1/environments/other", json=wanted).status_code == 422


def test_what_reaches_further_needs_an_administrator(platform, wanted):
    manage = platform.client().post("/api/v1/keys", json={"name": "boss", "scopes": ["manage"]}).json()["key"]
    client = platform.client(manage)
    plain = {"name": "plain", "spec": "six\n", "offline": True}
    for change in (
        {"index_url": "https://x.test/simple"},
        {"extra_index_urls": ["https://x.test/simple"]},
        {"find_links": wanted["find_links"]},
        {"allow_sdist": True},
        {"channels": ["https://x.test/channel"]},
        {"manager": "CONDA", "spec": "channels:\n  - https://x.test/channel\n"},
    ):
        answer = client.post("/api/v1/environments", json=plain | change)
        assert answer.status_code == 403, (change, answer.text)
    assert client.post("/api/v1/environments", json=plain).status_code == 201


def test_g1_no_build_is_sent_to_a_host_that_is_not_public(make_platform, wanted):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        port = listener.getsockname()[1]
        client = make_platform().client()
        refused = client.post("/api/v1/environments", json=wanted | {"index_url": f"https://127.0.0.1:{port}/simple"})
        assert (refused.status_code, refused.json()["code"]) == (422, "SOURCE_NOT_ALLOWED")
        # Text does not tell of this one that it is an address; the build asks the resolver.
        fields = {"index_url": f"https://2130706433:{port}/simple", "offline": False}
        assert client.post("/api/v1/environments", json=wanted | fields).status_code == 201
        status = settled(client, "small")["status"]
        assert (status["state"], status["problem"]) == ("FAILED", "index_url: host '2130706433' is no public one")
        assert status["problem"] in client.get("/api/v1/environments/small/logs").text
        with pytest.raises(BlockingIOError):
            listener.accept()


def test_a_listed_host_is_an_index(make_platform, wanted, wheelhouse):
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(wheelhouse))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as index:
        threading.Thread(target=index.serve_forever, daemon=True).start()
        place = f"http://127.0.0.1:{index.server_port}/"
        fields = {"find_links": [place], "index_url": place, "offline": False, "spec": "tiny<2\nnumpy\n"}
        client = make_platform(fetch_allow=("127.0.0.0/8",)).client()
        assert client.post("/api/v1/environments", json=wanted | fields).status_code == 201
        assert settled(client, "small")["status"]["state"] == "READY"
        index.shutdown()


def test_a_service_waits_for_its_environment(platform, wanted):
    client = platform.client()
    unknown = client.post("/api/v1/services", json=SERVICE | {"environment": "small"})
    assert unknown.status_code == 422
    assert unknown.json()["fields"][0]["path"] == "environment"
    client.post("/api/v1/environments", json=wanted | {"spec": "nosuch-zz\n"})
    settled(client, "small")
    assert client.post("/api/v1/services", json=SERVICE | {"environment": "small"}).status_code == 201
    waiting = platform.wait("digits", "Preparing")["status"]
    assert waiting["diagnosis"]["code"] == "ENV_NOT_READY"
    assert waiting["diagnosis"]["title_zh"] == "环境未就绪"
    assert "environment 'small' is FAILED" in waiting["diagnosis"]["evidence"][0]
    client.put("/api/v1/environments/small", json=wanted)
    ready = platform.wait("digits", "Ready", seconds=60)["status"]
    assert ready["diagnosis"] is None
    status = client.get("/api/v1/environments/small").json()["status"]
    assert status["used_by"] == ["digits"]
    text = client.get("/api/v1/services/digits/config.pbtxt").text
    assert f'key: "naiad.environment" value {{ string_value: "small@{status["digest"][:32]}" }}' in text
    refused = client.delete("/api/v1/environments/small")
    assert (refused.status_code, refused.json()["code"]) == (409, "IN_USE")
    assert "digits" in refused.json()["detail"]
    client.delete("/api/v1/services/digits")
    platform.wait_gone("digits")
    assert client.delete("/api/v1/environments/small").status_code == 202
    gone(client, "small")


def test_a_build_that_is_cut_off_is_done_by_the_next_platform(make_platform, wanted):
    first = make_platform()
    client = first.client()
    first.platform._builds.stop()  # as the platform does at its end: whatever begins is ended at once
    client.post("/api/v1/environments", json=wanted)

    def begun() -> bool:
        return client.get("/api/v1/environments/small").json()["status"]["state"] == "BUILDING"

    until(begun, 30, lambda: "the build did not begin")
    assert client.get("/api/v1/environments/small").json()["observed_generation"] == 0
    first.platform.ask_to_stop()
    first.platform.stop()
    second = make_platform()
    assert settled(second.client(), "small")["status"]["state"] == "READY"


def test_a_build_that_nobody_wants_any_more_is_ended(make_platform, wanted):
    index = SlowIndex()
    try:
        client = make_platform(fetch_allow=("127.0.0.1",)).client()
        slow = wanted | {"spec": "slow\n", "index_url": index.url, "offline": False}
        client.post("/api/v1/environments", json=slow)
        assert index.asked.wait(60)
        assert client.put("/api/v1/environments/small", json=wanted).status_code == 200
        assert settled(client, "small")["status"]["state"] == "READY"
        index.asked.clear()
        client.put("/api/v1/environments/small", json=slow)
        assert index.asked.wait(60)
        assert client.delete("/api/v1/environments/small").status_code == 202
        gone(client, "small")
    finally:
        index.close()


def test_a_model_runs_in_the_environment_of_its_service(make_platform, wanted, models, real_wheelhouse):
    wanted |= {"find_links": [linked(real_wheelhouse, models / "real-wheels")]}
    folder = models / "repo" / "plain"
    (folder / "1").mkdir(parents=True)
    (folder / "config.pbtxt").write_text(CONFIG)
    (folder / "1" / "note").write_text("a version folder holds something")
    platform = make_platform(command=tuple(LocalOptions(models=models, logs=models).command))
    client = platform.client()
    client.post("/api/v1/environments", json=wanted)
    settled(client, "small")
    made = client.post(
        "/api/v1/services", json={"name": "plain", "model": {"path": "repo/plain"}, "environment": "small"}
    )
    assert made.status_code == 201, made.text
    service = platform.wait("plain", "Ready", "Failed", seconds=60)
    assert service["status"]["state"] == "Ready", service["status"]
    tensor = {"name": "INPUT0", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}
    key = {"X-API-Key": made.json()["key"]["key"]}
    answer = httpx.post(
        service["status"]["access"]["infer"], json={"inputs": [tensor]}, headers=key, trust_env=False, timeout=30
    )
    assert answer.json()["outputs"][0]["data"] == [1, 2, 3, 4], answer.text
    builds = platform.state.environments / "builds"
    commands = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if os.access(path, os.R_OK)]
    assert any(command.startswith(f"{builds}/".encode()) for command in commands)


# -- the command line --------------------------------------------------------------------------------------------------


@pytest.fixture
def naiad(environment: dict[str, str], uv_cache: dict[str, str]):
    def run(*arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        variables = environment | {"UV_CACHE_DIR": uv_cache["UV_CACHE_DIR"]}
        done = subprocess.run(
            [sys.executable, "-m", "naiad", *arguments],
            env=variables,
            capture_output=True,
            text=True,
            check=False,
            timeout=100,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done

    return run


def whole_life(naiad, where: list[str], wheelhouse: str, folder: Path) -> None:
    """The commands in the order in which somebody would use them."""
    (folder / "good.txt").write_text("tiny<2\n")
    (folder / "bad.txt").write_text("nosuch-zz\n")
    offline = ["--find-links", wheelhouse, "--offline"]
    wrong = naiad("env", "create", "small", "-r", str(folder / "bad.txt"), *offline, *where, code=3)
    assert wrong.stderr.count("No solution found") == 1
    made = naiad("env", "create", "small", "-r", str(folder / "good.txt"), *offline, *where)  # the file was mended
    assert "==> installing" in made.stderr
    assert made.stdout.startswith("ready     small  Python ")
    assert "small" in naiad("env", "ls", *where).stdout
    shown = json.loads(naiad("env", "show", "small", "-o", "json", *where).stdout)
    assert (shown["state"], shown["problem"]) == ("READY", None)
    assert "tiny==1.0" in naiad("env", "lock", "small", *where).stdout
    failed = naiad("env", "rebuild", "small", "-r", str(folder / "bad.txt"), "--offline", *where, code=3)
    assert "nosuch-zz" in failed.stderr
    assert "the last good build stays in use" in failed.stderr
    assert "last build failed" in naiad("env", "ls", *where).stdout
    assert "FAILED" in naiad("env", "logs", "small", *where).stdout
    again = naiad("env", "rebuild", "small", "-r", str(folder / "good.txt"), "--offline", *where)
    assert "the build that is there is taken" in again.stderr
    assert naiad("env", "rm", "small", *where).stdout == "removed   small\n"
    assert "there is no environment 'small'" in naiad("env", "show", "small", *where, code=5).stderr


def test_the_commands_on_a_folder(naiad, wheelhouse, tmp_path):
    whole_life(naiad, ["--environments", str(tmp_path / "envs")], str(wheelhouse), tmp_path)
    assert "no environments yet" in naiad("env", "ls", "--environments", str(tmp_path / "envs")).stderr


def test_the_commands_on_a_platform(naiad, packages, tmp_path, models, environment, uv_cache):
    ups = Ups(tmp_path / "state", models, environment | {"UV_CACHE_DIR": uv_cache["UV_CACHE_DIR"]})
    process = ups.start("--port", "0", "--http-port", "0")
    drained = threading.Thread(target=process.stderr.read)
    drained.start()
    try:
        whole_life(naiad, ["--state", str(tmp_path / "state")], packages, tmp_path)
    finally:
        process.terminate()
        process.wait(30)
        drained.join(10)
        process.stderr.close()


def test_wrong_commands_say_what_to_write(naiad, tmp_path):
    folder = ["--environments", str(tmp_path / "envs")]
    assert "expected -r requirements.txt or -f environment.yaml" in naiad("env", "create", "x1", *folder, code=2).stderr
    (tmp_path / "r.txt").write_text("six\n")
    wrong = naiad("env", "create", "x1", "-r", str(tmp_path / "r.txt"), "--python", "2.7", *folder, code=2)
    assert "python: expected a version such as 3.12" in wrong.stderr
    lost = naiad("env", "create", "x1", "-r", str(tmp_path / "r.txt"), "--state", str(tmp_path / "none"), code=1)
    assert "naiad up --detach" in lost.stderr
    for command in ("create", "ls", "show", "logs", "lock", "rebuild", "rm"):
        assert "--environments" in naiad("env", command, "--help").stdout
