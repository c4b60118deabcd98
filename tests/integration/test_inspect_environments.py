"""`naiad inspect --run` under the environment of a model, which is behind the fence from its first instruction on."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path

import pytest

from tests.integration.test_environments import brought, packed, parameter
from tests.integration.test_inspect_run import NO_FILTERS, inspect
from tests.support.environments import wish
from tests.support.repository import Repository

TELLS = """
import sys

@staticmethod
def auto_complete_config(config):
    import tiny
    config.add_output({"name": f"TINY_{tiny.version}", "data_type": "TYPE_FP32", "dims": [1]})
    config.add_input({"name": "IN", "data_type": "TYPE_FP32", "dims": [1]})
    return config

def execute(self, requests): ...
"""
BACKEND = 'backend: "python"\n'


@pytest.fixture
def store(environments, real_wheelhouse):
    for name, text in (("older", "tiny<2\n"), ("newer", "tiny>=2\n")):
        environments.create(name, wish(real_wheelhouse, text))
        environments.build(name, offline=True)
    return environments


@pytest.fixture
def root(tmp_path: Path) -> str:
    return f"--environments={tmp_path / 'environments'}"


def outputs(*words: object) -> list[str]:
    ended = inspect("--run", *words)
    assert ended.returncode == 0, ended.stderr
    return [line.split()[0] for line in ended.stdout.splitlines() if line.strip().startswith("output.")]


def test_a_named_environment_counts_and_an_option_instead_of_it(store, root, repository):
    repository.python("m", TELLS, config=BACKEND + parameter("naiad.environment", "older"))
    folder = repository.root / "m"
    assert outputs(folder, root) == ["output.TINY_1.0"]
    assert outputs(folder, root, "--environment", "newer") == ["output.TINY_2.0"]
    printed = inspect("--run", folder, root, "--environment", "newer", "-o", "pbtxt").stdout
    (folder / "config.pbtxt").write_text(printed)  # says where it was seen to run
    assert outputs(folder, root) == ["output.TINY_2.0"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (
            ["--environment", "elsewhere"],
            "there is no environment 'elsewhere'; there is 'newer', 'older'",
        ),
        (["--environment", "../x"], "expected the name of an environment, got '../x'"),
        ([], "No module named 'tiny'"),
    ],
)
def test_an_environment_that_does_not_do_is_said(words, says, store, root, repository):
    repository.python("m", TELLS, config=BACKEND)
    ended = inspect("--run", repository.root / "m", root, *words)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert says in ended.stderr


def test_a_module_that_it_lacks_is_named_with_its_line(store, root, repository):
    repository.python("m", TELLS.replace("import tiny", "import sklearn as tiny"), config=BACKEND)
    ended = inspect("--run", repository.root / "m", root, "--environment", "older")
    assert "No module named 'sklearn'" in ended.stderr
    assert "fix: add the line 'scikit-learn' to its requirements and build it again" in ended.stderr


def test_an_environment_without_a_run_is_a_usage_error(repository):
    repository.identity("echo")
    ended = inspect(repository.root / "echo", "--environment", "x")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "add --run" in ended.stderr


UNPACK = """
import pathlib, socket, sys
try:
    socket.create_connection(("127.0.0.1", {port}), 5)
    said = "got through"
except OSError as error:
    said = str(error).split("]")[-1].strip().replace(" ", "_")
pathlib.Path(sys.prefix, "lib", "python3.9", "tiny.py").write_text(f"version = {said!r}")
"""


@pytest.fixture
def archived(python39, repository: Repository, tmp_path: Path):
    """A model with a packed Python 3.9 whose conda-unpack calls somebody."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        environment = tmp_path / "old"
        shutil.copytree(python39, environment, symlinks=True)
        script = environment / "bin" / "conda-unpack"
        script.write_text(UNPACK.replace("{port}", str(listener.getsockname()[1])))
        repository.python("m", TELLS, config=BACKEND + brought("$$TRITON_MODEL_DIRECTORY/env.tar.gz"))
        packed(environment, repository.root / "m" / "env.tar.gz")
        yield repository.root / "m"
        with pytest.raises(BlockingIOError):
            listener.accept()


def test_what_an_archive_runs_when_it_is_extracted_calls_nobody(archived, root):
    assert outputs(archived, root) == ["output.TINY_Operation_not_permitted"]


def test_nothing_of_an_archive_is_kept_where_there_is_no_fence(archived, root, tmp_path):
    ended = inspect("--run", archived, root, before=NO_FILTERS)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert "it cannot be restricted here: the kernel takes no filter of system calls" in ended.stderr
    assert not (tmp_path / "environments" / "archives").exists()
