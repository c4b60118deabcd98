"""Each client of examples/clients, by its one command, against a server that wants a key."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import pytest

from naiad import keys
from scripts import debian
from tests.support.server import serve

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples" / "clients"
COMPILED = tuple(debian.COMPILERS)
NO_REGISTRY = re.compile(
    r"no such host|dial tcp|i/o timeout|Could not transfer artifact|Unknown host|"
    r"ENOTFOUND|ECONNREFUSED|EAI_AGAIN|ETIMEDOUT"
)

# The first run compiles stubs and fetches packages.
pytestmark = pytest.mark.timeout(900)


def skip(reason: str) -> NoReturn:
    """`make test-clients` sets the variable where it could install everything: there a skip is a failure."""
    if os.environ.get("CLIENTS_MUST_RUN"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="module")
def server(tmp_path_factory, torch):
    folder = tmp_path_factory.mktemp("clients")
    shutil.copytree(ROOT / "examples" / "mnist" / "model-repo", folder / "models")
    key = keys.make_key()
    rows = [keys.row(key, scopes=["infer"], services=["mnist-cnn"])]
    (folder / "keys.json").write_text(json.dumps({"keys": rows}))
    options = ["--grpc-port=0", "--keys-file", str(folder / "keys.json")]
    with serve(folder / "models", folder / "serve.log", *options) as running:
        yield running.wait_ready(), key.reveal()


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch", reason="torch is not installed: pip install 'naiad[torch]'")


def run(language: str, server, *variables: str) -> str:
    """What the example prints; the build's own words are not part of it."""
    running, key = server
    command = ["make", "--silent", "--no-print-directory", "-C", str(EXAMPLES / language), "run", *variables]
    addresses = {"URL": f"http://{running.address}", "GRPC": running.grpc, "MODEL": "mnist-cnn", "KEY": key}
    environment = {**os.environ, **addresses}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=800)
    if done.returncode and NO_REGISTRY.search(done.stdout + done.stderr):
        skip(f"the packages of the {language} example could not be fetched:\n{(done.stdout + done.stderr)[-500:]}")
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def printed() -> str:
    """What all five print, as their page shows it."""
    return re.search(r"```text\n(.*?)```", (EXAMPLES / "README.md").read_text(), re.DOTALL)[1]


def test_python(server):
    assert run("python", server, f"PYTHON={sys.executable}") == printed()


@pytest.mark.parametrize("language", COMPILED)
def test_compiled(server, language):
    packages = debian.toolchain(language)
    if packages:
        skip(f"the {language} example needs: {' '.join(debian.install_line(packages))}")
    assert run(language, server) == printed()


def test_every_example_is_run_and_described():
    folders = {path.name for path in EXAMPLES.iterdir() if (path / "Makefile").exists()}
    assert folders == {"python", *COMPILED}
    page = (EXAMPLES / "README.md").read_text()
    for name in folders:
        assert f"`make -C examples/clients/{name} run`" in page
        assert f"make -C examples/clients/{name} run" in (EXAMPLES / name / "README.md").read_text()
