"""A fresh clone in a new folder: `make up`, the printed call, who may call, `make up` again, `make down`."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PUBLISHED = """
  curl -X POST "http://<ip>:<port>/v2/models/<inference-name>/infer" \\
  -H "Content-Type: application/json" \\
  -d '{
    "inputs": [
      {
        "name": "model_input",
        "shape": [1, 1, 32, 32],
        "datatype": "FP32",
        "data": [
          [0.1234, 0.5678, 0.9101, ... ]
        ]
      }
    ]
  }'
"""

pytestmark = [
    pytest.mark.timeout(1500),
    pytest.mark.skipif(not shutil.which("curl"), reason="needs curl; install: sudo apt-get install curl"),
]


@dataclass(frozen=True)
class Answer:
    """What curl printed."""

    status: int
    headers: str
    body: str

    def digit(self) -> int:
        scores = json.loads(self.body)["outputs"][0]["data"]
        assert len(scores) == 10
        return int(max(range(10), key=scores.__getitem__))


class Clone:
    """A fresh clone, brought up once for all tests of this file."""

    def __init__(self, folder: Path, elsewhere: Path) -> None:
        self.folder = folder
        self.elsewhere = elsewhere
        self.first = ""
        subprocess.run(["git", "clone", "--quiet", ROOT, folder], check=True)

    def make(self, *arguments: str) -> str:
        """Run make as a user would, without this environment's Python in the way."""
        env = {name: value for name, value in os.environ.items() if not name.startswith(("NAIAD", "MAKE", "MFLAGS"))}
        env["PATH"] = os.pathsep.join(p for p in env["PATH"].split(os.pathsep) if not p.startswith(f"{ROOT}{os.sep}"))
        for name in ("VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME"):
            env.pop(name, None)
        env["XDG_CONFIG_HOME"] = str(self.elsewhere)  # the user's own context stays as it is
        done = subprocess.run(
            ["make", *arguments], cwd=self.folder, env=env, stdout=subprocess.PIPE, text=True, check=False
        )
        assert done.returncode == 0, f"make {arguments} ended with {done.returncode}"
        return done.stdout

    def naiad(self, *arguments: str) -> str:
        """Run one command of the clone's CLI."""
        command = [self.folder / ".venv/bin/naiad", *arguments, "--state", self.folder / ".naiad"]
        return subprocess.run(command, cwd=self.elsewhere, stdout=subprocess.PIPE, text=True, check=True).stdout

    @property
    def call(self) -> str:
        """The printed curl line."""
        (line,) = (line for line in self.first.splitlines() if line.startswith("curl "))
        return line

    @property
    def infer(self) -> str:
        """The URL in the printed line."""
        return re.findall(r"http://\S+/infer", self.call)[0]

    @property
    def body(self) -> str:
        """An argument that sends the example's request."""
        return f"-H 'Content-Type: application/json' -d '@{self.folder}/examples/mnist/request.json'"

    def paste(self, command: str) -> Answer:
        """Run a shell line from another folder, asking curl for status and headers too."""
        line = command.strip().replace("curl ", "curl --silent --show-error --include --max-time 20 ", 1)
        done = subprocess.run(["bash", "-c", line], cwd=self.elsewhere, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        head, _, body = done.stdout.replace("\r\n", "\n").partition("\n\n")
        return Answer(int(head.split()[1]), head.lower(), body)

    def processes(self) -> list[str]:
        """The command lines of all processes that run from this clone or hold its folder."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                places = [os.readlink(process / name) for name in ("cwd", "exe")]
            except OSError:  # it ended, or is not ours
                continue
            if any(str(self.folder) in text for text in (command, *places)):
                found.append(f"{process.name} {command}")
        return found


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clone]:
    folder = tmp_path_factory.mktemp("fresh clone")
    made = Clone(folder / "naiad", tmp_path_factory.mktemp("elsewhere"))
    try:
        made.first = made.make("up", "ARGS=--port 0 --http-port 0")
        yield made
    finally:
        made.make("down")
        shutil.rmtree(folder)  # a gigabyte of build products


def test_the_printed_call_answers_with_the_digit(clone: Clone) -> None:
    answer = clone.paste(clone.call)
    assert answer.status == 200
    assert answer.digit() == 7


def test_the_printed_lines_hold_no_secret(clone: Clone) -> None:
    assert "Ready" in clone.first
    assert "nk_" not in clone.first
    (header,) = re.findall(r"@(\S+\.header|[^'\"]+\.header)", clone.call)
    assert Path(header).stat().st_mode & 0o777 == 0o600


def test_without_a_key_it_is_401_and_names_both_headers(clone: Clone) -> None:
    answer = clone.paste(f"curl -X POST {clone.infer} {clone.body}")
    assert answer.status == 401
    assert "Authorization: Bearer" in answer.body
    assert "X-API-Key" in answer.body


def test_with_another_services_key_it_is_403_and_public_needs_none(clone: Clone) -> None:
    model = clone.folder / "examples/mnist/model-repo/mnist-cnn"
    deployed = json.loads(clone.naiad("deploy", str(model), "--name", "open-digits", "--public", "-o", "json"))
    assert deployed["status"]["state"] == "Ready"
    key = json.loads(clone.naiad("key", "create", "--service", "open-digits", "-o", "json"))["key"]
    for header in (f"Authorization: Bearer {key}", f"X-API-Key: {key}"):
        assert clone.paste(f"curl -X POST {clone.infer} {clone.body} -H '{header}'").status == 403

    numbers = json.loads((clone.folder / "examples/mnist/request.json").read_text())["inputs"][0]["data"][0]
    published = PUBLISHED.replace("<ip>:<port>", clone.infer.split("/")[2]).replace("<inference-name>", "open-digits")
    published = published.replace("0.1234, 0.5678, 0.9101, ... ", ", ".join(map(str, numbers)))
    answer = clone.paste(published)
    assert answer.status == 200
    assert answer.digit() == 7


def test_a_second_make_up_is_quick_and_says_the_same(clone: Clone) -> None:
    began = time.monotonic()
    second = clone.make("up", "ARGS=--port 0 --http-port 0")
    took = time.monotonic() - began
    assert second == clone.first
    assert took < 10, f"took {took:.1f} s"


def test_make_down_leaves_no_process_and_the_service_comes_back(clone: Clone) -> None:
    assert clone.processes() != []
    clone.make("down")
    assert clone.processes() == []
    assert clone.make("up") == clone.first
    assert clone.paste(clone.call).digit() == 7
    clone.make("down")
    assert clone.processes() == []
