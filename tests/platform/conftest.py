from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from naiad.control.platform import Platform, PlatformOptions
from naiad.control.state import StateFolder
from naiad.runtimes.local import LocalOptions, LocalRuntime

UP = [sys.executable, str(Path(__file__).with_name("up_with_fake.py")), "up"]
FAKE_SERVE = (sys.executable, str(Path(__file__).with_name("fake_serve.py")))


@dataclass
class Running:
    """A platform in this process, behind a real ASGI server on a real port."""

    platform: Platform
    runtime: LocalRuntime
    state: StateFolder
    models: Path
    admin: str
    url: str
    server_url: str
    clients: list[httpx.Client] = field(default_factory=list)

    def client(self, key: str | None = "admin", **headers: str) -> httpx.Client:
        chosen = self.admin if key == "admin" else key
        sent = headers | ({"X-API-Key": chosen} if chosen else {})
        client = httpx.Client(base_url=self.url, headers=sent, timeout=20, trust_env=False)
        self.clients.append(client)
        return client

    def server_view(self) -> dict:
        """What the fake server was last told, and what it has loaded."""
        return httpx.get(self.server_url, trust_env=False).json()

    def wait(self, name: str, *states: str, seconds: float = 20) -> dict:
        """The service once it is in one of these states; fails if that takes too long."""
        client = self.client()
        seen: list[str] = []

        def reached() -> dict | None:
            document = client.get(f"/api/v1/services/{name}").json()
            seen.append(document["status"]["state"])
            return document if document["status"]["state"] in states else None

        return until(reached, seconds, lambda: f"service '{name}' never was {states}; it was {seen[-1]}")

    def wait_gone(self, name: str, seconds: float = 20) -> None:
        client = self.client()
        until(
            lambda: client.get(f"/api/v1/services/{name}").status_code == 404, seconds, lambda: f"'{name}' is not gone"
        )


def until(probe: Callable, seconds: float, message: Callable[[], str]):
    """Asks until there is an answer; each question is a real request, so no pause is needed."""
    tick = threading.Event()
    for _ in range(int(seconds / 0.05)):
        found = probe()
        if found:
            return found
        tick.wait(0.05)
    raise TimeoutError(message())


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A folder with one model, laid out as the documentation says."""
    root = tmp_path / "files"
    version = root / "repo" / "digits" / "1"
    version.mkdir(parents=True)
    (version / "model.pt").write_bytes(b"weights")
    return root


@pytest.fixture
def make_platform(tmp_path: Path, models: Path) -> Iterator[Callable[..., Running]]:
    """Starts platforms; each is stopped at the end."""
    ends: list[Callable[[], None]] = []

    def make(*, host: str = "127.0.0.1", command: tuple[str, ...] = FAKE_SERVE, **options: object) -> Running:
        state = StateFolder(tmp_path / "state")
        state.make()
        local = LocalOptions(
            models=state.models,
            logs=state.logs,
            environments=state.environments,
            http_port=0,
            command=command,
            stop_seconds=10,
        )
        runtime = LocalRuntime(local)
        settings = PlatformOptions(state=state, host=host, port=0, roots=(models,), **options)
        platform = Platform(settings, runtime)
        platform.start()
        ready = threading.Event()
        thread = threading.Thread(target=lambda: platform.serve(ready=ready.set), daemon=True)
        thread.start()
        assert ready.wait(20), "the API never accepted connections"
        addresses = platform.addresses()
        running = Running(
            platform,
            runtime,
            state,
            models,
            state.admin_key.read_text().strip(),
            addresses["api_url"],
            addresses["http_url"],
        )

        def end() -> None:
            for client in running.clients:
                client.close()
            platform.ask_to_stop()
            thread.join(20)
            platform.stop()

        ends.append(end)
        return running

    yield make
    for end in reversed(ends):
        end()


@pytest.fixture
def platform(make_platform: Callable[..., Running]) -> Running:
    """One platform with a fake server at its edge."""
    return make_platform()


class Ups:
    """Starts `naiad up` processes on one state folder."""

    def __init__(self, state: Path, root: Path, environment: dict[str, str]) -> None:
        self.state, self._root, self._environment = state, root, environment
        self.processes: list[subprocess.Popen] = []
        self.address = ""

    def start(self, *arguments: str) -> subprocess.Popen:
        read, write = os.pipe()
        command = [*UP, "--state", str(self.state), "--root", str(self._root), "--ready-fd", str(write), *arguments]
        process = subprocess.Popen(
            command, pass_fds=[write], env=self._environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
        )
        self.processes.append(process)
        os.close(write)
        with os.fdopen(read) as stream:
            line = stream.readline()
        assert line, process.communicate(timeout=20)[1].decode()
        self.address = json.loads(line)["api_url"]
        return process

    def client(self) -> httpx.Client:
        key = (self.state / "keys" / "admin").read_text().strip()
        return httpx.Client(base_url=self.address, headers={"X-API-Key": key}, timeout=20, trust_env=False)

    def wait_ready(self, *names: str) -> None:
        with self.client() as client:
            for name in names:
                until(
                    lambda name=name: client.get(f"/api/v1/services/{name}").json()["status"]["state"] == "Ready",
                    20,
                    lambda name=name: f"'{name}' is not ready",
                )


def clean_environment(folder: Path) -> dict[str, str]:
    """The environment of a command: this checkout, a context file of its own, no colours."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "PYTHONPATH", "LD_LIBRARY_PATH") if name in os.environ}
    root = str(Path(__file__).parents[2])
    return kept | {
        "PYTHONPATH": os.pathsep.join([root, kept.get("PYTHONPATH", "")]).strip(os.pathsep),
        "XDG_CONFIG_HOME": str(folder / "config"),
        "XDG_STATE_HOME": str(folder / "xdg-state"),
        "NO_COLOR": "1",
        "COLUMNS": "200",
    }


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """The environment of a command."""
    return clean_environment(tmp_path)
