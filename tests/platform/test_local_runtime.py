from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from naiad.runtimes.local import LocalOptions, LocalRuntime, ServerFailed
from tests.platform.conftest import FAKE_SERVE, until

BODY = {"name": "digits", "model": {"path": "repo"}}


def options(tmp_path: Path, command: tuple[str, ...] = FAKE_SERVE) -> LocalOptions:
    for name in ("models", "logs"):
        (tmp_path / name).mkdir()
    return LocalOptions(models=tmp_path / "models", logs=tmp_path / "logs", http_port=0, command=command)


def test_a_server_that_dies_at_start_is_quoted(tmp_path):
    command = (sys.executable, "-c", "import sys; sys.exit('port 8000 is taken by process 7')")
    with pytest.raises(ServerFailed, match="port 8000 is taken by process 7"):
        LocalRuntime(options(tmp_path, command)).start()


def test_a_server_that_ends_comes_back_on_its_port_and_learns_everything_again(platform):
    platform.client().post("/api/v1/services", json=BODY)
    platform.wait("digits", "Ready")
    first = platform.runtime.running()
    os.kill(first.pid, signal.SIGKILL)
    until(lambda: (now := platform.runtime.running()) and now.boot_id != first.boot_id, 20, lambda: "no new server")
    assert platform.runtime.running().http == first.http
    until(lambda: platform.server_view()["loaded"] == ["digits.v1"], 20, lambda: "the model is not loaded again")
    assert "digits" in platform.server_view()["access"]["aliases"]
    platform.wait("digits", "Ready")


def test_the_server_gets_no_setting_and_no_key_in_its_environment(tmp_path, monkeypatch):  # E6
    monkeypatch.setenv("NAIAD_KEY", "nk_secret")
    runtime = LocalRuntime(options(tmp_path))
    runtime.start()
    running = runtime.running()
    environ = Path(f"/proc/{running.pid}/environ").read_bytes()
    command = Path(f"/proc/{running.pid}/cmdline").read_bytes()
    runtime.stop()
    assert b"NAIAD_" not in environ
    assert running.key.reveal().encode() not in environ + command
    assert not Path(f"/proc/{running.pid}").exists()
