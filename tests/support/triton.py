"""The real Triton server, from the benches' cache, on the same repository as a Naiad."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from benches import peers
from benches.servers import _free_ports
from tests.support.server import Serve

# Triton's wheel brings the Python backend alone, so its models give their inputs back in Python.
ECHO = """import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        return [pb_utils.InferenceResponse(self.echo(each.inputs())) for each in requests]

    def echo(self, tensors):
        tensors = sorted(tensors, key=lambda tensor: tensor.name())
        return [pb_utils.Tensor(each.name().replace("INPUT", "OUTPUT"), each.as_numpy()) for each in tensors]
"""


def fetch() -> peers.Peers:
    """What Triton needs; 3 GB are downloaded only where FETCH_TRITON asks for it."""
    if not (peers.CACHE / "triton" / ".complete").exists() and not os.environ.get("FETCH_TRITON"):
        pytest.skip("the real Triton is not here; FETCH_TRITON=1 downloads it (3 GB), as `make bench` does")
    try:
        return peers.fetch()
    except peers.Missing as missing:
        pytest.skip(str(missing))


def translate(repository: Path, folder: Path) -> Path:
    """The same models for Triton."""
    shutil.copytree(repository, folder)
    for config in folder.glob("*/config.pbtxt"):
        text = config.read_text().replace('backend: "identity"', 'backend: "python"')
        config.write_text(f"{text}\ninstance_group {{ kind: KIND_CPU }}\n")
        for version in config.parent.iterdir():
            if version.is_dir():
                (version / "model.py").write_text(ECHO)
    return folder


@contextlib.contextmanager
def triton(repository: Path, log: Path, *options: str, own: bool = False) -> Iterator[Serve]:
    """Starts the server on free ports; it cannot choose them itself. `own`: the models are Python models already."""
    found = fetch()
    ports = dict(zip(("http", "grpc", "metrics"), _free_ports(3), strict=True))
    home = found.triton / "pytriton" / "tritonserver"
    command = [str(home / "bin" / "tritonserver"), f"--backend-directory={home / 'backends'}"]
    if own:
        command += [f"--model-repository={repository}", *options]
    else:
        command += [f"--model-repository={translate(repository, repository.with_name('triton-models'))}", *options]
        command += ["--disable-auto-complete-config"]
    for name, port in ports.items():
        command += [f"--{name}-port={port}", f"--{name}-address=127.0.0.1"]
    with log.open("ab") as sink:
        process = subprocess.Popen(command, env=peers.triton_environment(found), stdout=sink, stderr=sink)
    server = Serve(process, f"127.0.0.1:{ports['http']}", log, {})
    server.grpc = f"127.0.0.1:{ports['grpc']}"  # type: ignore[attr-defined]
    server.metrics = f"127.0.0.1:{ports['metrics']}"

    def answers() -> bool:
        assert process.poll() is None, log.read_text()[-3000:]
        with contextlib.suppress(OSError):
            return server.get("/v2/health/ready").status == 200
        return False

    try:
        server.until(answers, 60, "the real Triton was not ready")
        yield server
    finally:
        server.stop()
