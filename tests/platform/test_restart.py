"""What a crash, a restart and a second start do to the state: nothing is lost, nothing is left behind."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.platform.conftest import UP, Ups, until


@pytest.fixture
def ups(tmp_path: Path, models: Path, environment: dict[str, str]) -> Iterator[Ups]:
    made = Ups(tmp_path / "state", models, environment)
    yield made
    for process in made.processes:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=20)


def end(process: subprocess.Popen, number: int) -> int:
    process.send_signal(number)
    process.communicate(timeout=30)
    return process.returncode


def test_services_come_back_with_their_ports_and_keys(ups):
    process = ups.start("--port", "0", "--http-port", "0")
    with ups.client() as client:
        created = client.post("/api/v1/services", json={"name": "digits", "model": {"path": "repo"}}).json()
        ups.wait_ready("digits")
        before = client.get("/api/v1/services/digits").json()
    first = ups.address
    assert end(process, signal.SIGTERM) == 0

    ups.start()
    assert ups.address == first
    ups.wait_ready("digits")
    with ups.client() as client:
        after = client.get("/api/v1/services/digits").json()
        keys = client.get("/api/v1/keys").json()["items"]
    assert after["status"]["access"] == before["status"]["access"]
    assert after["generation"] == before["generation"]
    assert {key["name"] for key in keys} == {"admin", created["key"]["name"]}


def test_services_come_back_without_their_source(ups, models):
    process = ups.start("--port", "0", "--http-port", "0")
    with ups.client() as client:
        client.post("/api/v1/services", json={"name": "digits", "model": {"path": "repo"}})
    ups.wait_ready("digits")
    end(process, signal.SIGKILL)
    (models / "repo/digits/1/model.pt").unlink()
    ups.start()
    ups.wait_ready("digits")


@pytest.mark.parametrize("after", [1, 2, 5])
def test_a_kill_during_create_loses_nothing(ups, models, after):
    """Each create that was answered is there afterwards; the others are there whole or not at all."""
    process = ups.start("--port", "0", "--http-port", "0")
    (models / "repo/digits/1/model.pt").write_bytes(b"w" * (4 << 20))
    answered: list[str] = []
    enough = threading.Event()

    def create(worker: int) -> None:
        with ups.client() as client:
            for number in range(100):
                name = f"s{worker}-{number}"
                try:
                    answer = client.post("/api/v1/services", json={"name": name, "model": {"path": "repo"}})
                except httpx.HTTPError:
                    return
                assert answer.status_code == 201
                answered.append(name)
                if len(answered) >= after:
                    enough.set()

    threads = [threading.Thread(target=create, args=(worker,)) for worker in range(3)]
    for thread in threads:
        thread.start()
    assert enough.wait(20)
    end(process, signal.SIGKILL)
    for thread in threads:
        thread.join(20)

    ups.start()
    with ups.client() as client:
        names = [item["name"] for item in client.get("/api/v1/services").json()["items"]]
        assert set(answered) <= set(names)
        ups.wait_ready(*names)
        keys = {key["name"] for key in client.get("/api/v1/keys").json()["items"]}
    assert keys == {"admin", *(f"{name}-default" for name in names)}
    assert {path.name for path in (ups.state / "models").iterdir()} == {f"{name}.v1" for name in names}
    assert list((ups.state / "snapshots").iterdir()) == []


def test_a_kill_during_delete_is_finished_by_the_next_start(ups):
    process = ups.start("--port", "0", "--http-port", "0")
    with ups.client() as client:
        client.post("/api/v1/services", json={"name": "digits", "model": {"path": "repo"}})
        ups.wait_ready("digits")
        client.delete("/api/v1/services/digits")
    end(process, signal.SIGKILL)
    ups.start()
    with ups.client() as client:
        until(lambda: client.get("/api/v1/services/digits").status_code == 404, 20, lambda: "'digits' is not gone")
    assert list((ups.state / "models").iterdir()) == []


def test_a_second_start_on_the_same_folder_is_refused(ups, environment):
    process = ups.start("--port", "0", "--http-port", "0")
    second = subprocess.run(
        [*UP, "--state", str(ups.state)], env=environment, capture_output=True, text=True, timeout=30, check=False
    )
    assert second.returncode == 1
    assert f"already running on '{ups.state}' (process {process.pid})" in second.stderr
    assert second.stderr.count("\n") == 1


def test_an_occupied_port_is_named(ups, environment):
    ups.start("--port", "0", "--http-port", "0")
    port = ups.address.rpartition(":")[2]
    other = subprocess.run(
        [*UP, "--state", str(ups.state.parent / "other"), "--port", port, "--http-port", "0"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert other.returncode == 1
    assert f"127.0.0.1:{port}" in other.stderr
    assert "--port" in other.stderr


def test_a_state_folder_that_cannot_be_written_is_named(environment, tmp_path):
    (tmp_path / "file").write_text("x")
    ended = subprocess.run(
        [*UP, "--state", str(tmp_path / "file/state")],
        env=environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert ended.returncode == 1
    assert "cannot be written" in ended.stderr
    assert "--state" in ended.stderr


def test_the_kernel_ends_the_server_with_the_platform(ups):
    process = ups.start("--port", "0", "--http-port", "0")
    server = json.loads((ups.state / "run/addresses.json").read_text())["http"]
    end(process, signal.SIGKILL)

    def gone() -> bool:
        try:
            httpx.get(f"http://{server}/", timeout=5, trust_env=False)
        except httpx.HTTPError:
            return True
        return False

    until(gone, 20, lambda: "the server outlived the platform")


def test_a_state_folder_is_private(ups):  # C6
    ups.start("--port", "0", "--http-port", "0")
    assert ups.state.stat().st_mode & 0o777 == 0o700
    assert (ups.state / "keys/admin").stat().st_mode & 0o777 == 0o600
