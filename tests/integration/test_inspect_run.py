"""`naiad inspect --run` as a user runs it: real models in a fenced process, and what is said of bad ones."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from naiad.server.allowed import WORKER_PATH
from tests.support.repository import Repository
from tests.support.server import descendants

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.*")
ROOT = Path(__file__).resolve().parents[2]
MNIST = ROOT / "examples/mnist/model-repo/mnist-cnn"
INPUT = 'input { name: "x" data_type: TYPE_FP32 dims: [ 4 ] }\n'


def inspect(*words: object, before: str = "", folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    """`before` is code that runs in the process that becomes the command, `folder` where it runs."""
    line = [sys.executable, "-P", "-W", "error", "-m", "naiad", "inspect", *map(str, words)]
    if before:
        line = [sys.executable, "-c", f"{before}\nimport os, sys\nos.execv(sys.argv[1], sys.argv[1:])", *line]
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}
    return subprocess.run(line, capture_output=True, text=True, timeout=110, check=False, env=environment, cwd=folder)


def test_modules_that_lie_in_the_current_folder_are_not_imported(torch, tmp_path):
    """`python -m` has it at the front of its path: a file there must not pass for the framework."""
    models = Repository(tmp_path / "models").root / "digits"
    models.mkdir()
    (models / "1").symlink_to(MNIST / "1")
    folder = tmp_path / "notebooks"
    folder.mkdir()
    for name in ("torch", "numpy"):
        (folder / f"{name}.py").write_text(f"raise SystemExit('{name}.py was imported')")
    ended = inspect("--run", "-o", "json", "../models/digits", folder=folder)
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["open"] == []


def shown(*words: object) -> dict:
    ended = inspect("--run", "-o", "json", *words)
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


def refused(*words: object) -> list[str]:
    """Lines of the refusal."""
    ended = inspect("--run", *words)
    assert (ended.returncode, ended.stdout) == (1, "")
    return ended.stderr.splitlines()


def scripted(repository: Repository, torch, name: str, module, text: str = INPUT) -> Path:
    folder = repository.root / name
    (folder / "1").mkdir(parents=True)
    torch.jit.script(module.eval()).save(str(folder / "1/model.pt"))
    (folder / "config.pbtxt").write_text(text)
    return folder


@pytest.mark.parametrize("path", [MNIST, MNIST / "1/model.pt"], ids=["model", "file"])
def test_nothing_is_left_open(torch, path):
    document = shown(path)
    assert (document["open"], document["config"]["max_batch_size"]) == ([], 32)
    (output,) = document["config"]["output"]
    assert (output["name"], output["data_type"], output["dims"]) == ("OUTPUT__0", "TYPE_FP32", [10])
    origins = document["origins"]
    assert (origins["input.model_input"], origins["max_batch_size"]) == ("file", "dry run")
    assert origins["output.OUTPUT__0"] == "dry run"
    assert not any("guess" in note for note in document["notes"])


def test_what_is_missing_in_a_configuration_is_found_out(torch, repository):
    class Two(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"sum": x.sum(1), "same": x.to(torch.int64)}

    folder = scripted(repository, torch, "two", Two(), INPUT + "max_batch_size: 4")
    document = shown(folder)
    told = {tensor["name"]: (tensor["data_type"], tensor["dims"]) for tensor in document["config"]["output"]}
    assert told == {"sum": ("TYPE_FP32", []), "same": ("TYPE_INT64", [4])}
    assert document["origins"]["max_batch_size"] == document["origins"]["input"] == "config.pbtxt"
    rows = [" ".join(line.split()) for line in inspect("--run", folder).stdout.splitlines()]
    assert "output.same INT64 [4] dry run" in rows


def test_the_configuration_it_prints_loads_without_a_further_question(torch, repository):
    text = inspect("--run", MNIST, "-o", "pbtxt").stdout
    folder = repository.root / "copy"
    (folder / "1").mkdir(parents=True)
    (folder / "1/model.pt").write_bytes((MNIST / "1/model.pt").read_bytes())
    (folder / "config.pbtxt").write_text(text)
    before, after = shown(MNIST)["config"], shown(folder)["config"]
    assert {**after, "name": "mnist-cnn", "instance_group": before["instance_group"]} == before


def test_a_model_that_is_not_asked_is_loaded_all_the_same(repository):
    repository.identity("echo")
    document = shown(repository.root / "echo")
    assert document["notes"] == ["the model loads; models of backend 'identity' are not asked what they give"]
    assert document["open"] == []


def test_a_model_that_wants_all_memory_is_told_how_much_it_may_have(torch, repository):
    class Bomb(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            kept = [x]
            while len(kept) < 4096:
                kept.append(torch.zeros([1 << 26]) + x.sum())  # of x, else the compiler makes it once
            return kept[-1]

    folder = scripted(repository, torch, "bomb", Bomb())
    assert refused("--memory", "1.5", folder) == [
        "error: dry run: it needs more than the 1.5 GiB of memory that it may use (HOST_OOM)",
        "fix: raise --memory GIB where the model needs that much",
    ]


def test_a_model_without_end_is_stopped(torch, repository):
    class Loop(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            while bool(x.sum() < 1):
                x = x * 2
            return x

    folder = scripted(repository, torch, "loop", Loop())
    before = set(descendants(os.getpid()))  # of servers that other tests share
    assert refused("--timeout", "8", folder) == [
        "error: dry run: it took longer than 8 s and was stopped during PROBE (SLOW_START)",
        "fix: raise --timeout SECONDS where the model is that slow",
    ]
    assert [pid for pid in set(descendants(os.getpid())) - before if b"naiad_worker" in _command(pid)] == []


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def test_a_model_that_fails_says_why_without_a_path(torch, repository):
    class Picky(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.reshape(3, 7)

    first, *_ = refused(scripted(repository, torch, "picky", Picky()))
    assert first.startswith("error: a dry run with zeros (x FP32 [4]) fails: RuntimeError: shape '[3, 7]' is invalid")
    assert "shape '[3, 7]' is invalid for input of size 4" in first
    assert first.endswith("(IO_MISMATCH)") and str(repository.root) not in first


def test_a_dry_run_beside_the_configuration_refuses_what_a_load_refuses(torch, repository):
    folder = scripted(
        repository,
        torch,
        "wrong",
        torch.nn.Identity(),
        INPUT + 'output { name: "OUTPUT__0" data_type: TYPE_INT64 dims: [ 4 ] }',
    )
    assert refused(folder) == [
        "error: config.pbtxt: output 'OUTPUT__0': data_type: expected TYPE_FP32 as the model gives it, got TYPE_INT64 "
        "(DTYPE_MISMATCH)",
        'fix: write output { name: "OUTPUT__0" data_type: TYPE_FP32 dims: [ 4 ] } into config.pbtxt',
    ]


NO_FILTERS = f"""
import os, sys
sys.path.insert(0, {str(WORKER_PATH)!r})
from naiad_worker import restrict
machine = restrict.MACHINES[os.uname().machine]
denied = {{"seccomp": machine.seccomp}}
restrict.filter_calls(restrict.program(machine._replace(denied=denied, prlimit64=9_999)))
"""


def test_nothing_is_run_where_the_kernel_cannot_fence_it_in(repository):
    repository.identity("echo")
    ended = inspect("--run", repository.root / "echo", before=NO_FILTERS)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.splitlines() == [
        "error: dry run: it cannot be restricted here: the kernel takes no filter of system calls (seccomp): "
        "Operation not permitted (LOAD_FAILED)",
        "fix: 'naiad serve' makes a dry run at load, in a worker without these limits",
    ]


@pytest.mark.parametrize("words", [("--timeout", "0"), ("--memory", "0"), ("--timeout", "long")])
def test_a_wrong_bound_is_a_usage_error(words):
    assert inspect(MNIST, "--run", *words).returncode == 2


def test_what_the_dry_run_contradicts_is_listed_in_all_forms_and_in_the_log(torch, repository, start):
    text = INPUT + 'output { name: "OUTPUT__0" data_type: TYPE_FP32 dims: [ 9 ] }'
    folder = scripted(repository, torch, "other", torch.nn.Identity(), text)
    assert json.loads(inspect(folder, "-o", "json").stdout)["conflicts"] == []
    conflict = {"field": "output.OUTPUT__0.dims", "says": {"config.pbtxt": [9], "dry run": [4]}, "won": "config.pbtxt"}
    assert shown(folder)["conflicts"] == [conflict]
    line = "conflict: output.OUTPUT__0.dims: config.pbtxt says [9], dry run says [4]; config.pbtxt counts"
    assert line in inspect("--run", folder).stdout.splitlines()
    assert f"# {line}" in inspect("--run", folder, "-o", "pbtxt").stdout.splitlines()
    server = start().wait_ready()
    (record,) = [record for record in server.records() if record["message"] == line]
    assert {name: record[name] for name in conflict} == conflict
    assert (record["model"], record["level"]) == ("other", "warning")


def test_a_python_model_is_asked_what_it_takes(tmp_path):
    document = shown(ROOT / "examples/python-models/auto_complete")
    (tensor,) = document["config"]["input"]
    assert (tensor["name"], tensor["data_type"], tensor["dims"]) == ("ROW", "TYPE_INT64", [-1])
    assert (document["open"], document["config"]["max_batch_size"]) == ([], 16)
    origins = document["origins"]
    assert (origins["input.ROW"], origins["max_batch_size"], origins["backend"]) == ("model", "model", "file")
    body = "@staticmethod\ndef auto_complete_config(config):\n    raise OSError('no')\ndef execute(self, requests): ..."
    Repository(tmp_path).python("m", body)
    assert "dry run: 'model.py': auto_complete_config() fails with OSError: no" in refused(tmp_path / "m")[0]


CALLER = """
import socket
import subprocess
import sys


class TritonPythonModel:
    def initialize(self, args):
        line = f"import socket; socket.create_connection(('127.0.0.1', {port}), 5)"
        ended = subprocess.run([sys.executable, "-c", line], capture_output=True, text=True)
        child = ended.stderr.splitlines()[-1] if ended.returncode else "got through"
        try:
            socket.create_connection(("127.0.0.1", {port}), 5)
        except OSError as error:
            raise RuntimeError(f"its child: {child}; itself: {error}")

    def execute(self, requests):
        return []
"""


def test_a_model_that_calls_somebody_does_not_get_through(repository):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        repository.file("caller", CALLER.replace("{port}", str(listener.getsockname()[1])).encode(), file="model.py")
        text = 'backend: "python"\n' + INPUT + INPUT.replace("input", "output").replace('"x"', '"y"')
        (repository.root / "caller" / "config.pbtxt").write_text(text)
        first, *_ = refused(repository.root / "caller")
        denied = "[Errno 1] Operation not permitted"
        assert f"RuntimeError: its child: PermissionError: {denied}; itself: {denied}" in first
        with pytest.raises(BlockingIOError):
            listener.accept()
