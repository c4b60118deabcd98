from __future__ import annotations

import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

from naiad.errors import LoadError
from tests.support import onnx_models
from tests.support.server import alive, until
from tests.unit.server.conftest import Stage
from tests.unit.server.test_supervisor import answers

ROOT = Path(__file__).resolve().parents[3]

SERVER = """
import ctypes, signal
from tests.unit.server.conftest import Stage
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER, as `naiad serve` does
stage = Stage()
worker = stage.serving()
print(worker.pid, *stage.zygotes(), flush=True)
signal.pause()
"""


def test_workers_of_one_environment_share_a_zygote(stage):
    stage.serving("a"), stage.serving("b")
    assert len(stage.zygotes()) == 1
    stage.serving("c", environment={"X": "1"})
    assert len(stage.zygotes()) == 2


def test_a_worker_belongs_to_the_server_and_not_to_the_zygote(stage):
    worker = stage.serving()
    parent = Path(f"/proc/{worker.pid}/stat").read_text().rpartition(")")[2].split()[1]
    assert int(parent) == os.getpid()


def test_a_killed_zygote_takes_no_worker_with_it_and_is_started_again(stage):
    first = stage.serving("a")
    [zygote] = stage.zygotes()
    os.kill(zygote, signal.SIGKILL)
    os.waitid(os.P_PID, zygote, os.WEXITED | os.WNOWAIT)
    assert answers(stage, first)
    second = stage.serving("b")
    assert answers(stage, second)
    assert stage.zygotes() != [zygote]
    # The first try's channel was given back.
    assert [link.place["model"] for link in stage.core.links.values() if not link.closed] == ["a", "b"]


def test_a_dead_zygote_is_reaped_though_nobody_asks_for_it(stage):
    stage.serving()
    [zygote] = stage.zygotes()
    os.kill(zygote, signal.SIGKILL)
    until(lambda: not Path(f"/proc/{zygote}").exists(), 20, lambda: "the zygote is still a zombie")


def test_an_idle_zygote_ends(subreaper):
    stage = Stage(linger_secs=0.0)
    try:
        worker = stage.serving()
        [zygote] = stage.zygotes()
        stage.supervisor._end_idle_zygotes()
        assert alive(zygote), "it has a worker"
        stage.supervisor.discard(worker)
        stage.supervisor._end_idle_zygotes()
        assert not alive(zygote) and stage.zygotes() == []
        assert answers(stage, stage.serving())
    finally:
        stage.close()


def test_an_interpreter_that_does_not_exist_is_named(stage):
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(LoadError, match="cannot start '/nowhere/python': No such file or directory") as caught:
        stage.start(python="/nowhere/python")
    assert caught.value.stage == "start"
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_framework_that_is_missing_is_named_with_the_fix(stage, tmp_path):
    interpreter = tmp_path / "python"
    interpreter.write_text(f'#!/bin/sh\nexec {sys.executable} -c "raise SystemExit(9)"\n')
    interpreter.chmod(0o755)
    with pytest.raises(LoadError, match="the zygote of backend 'identity' ended with exit code 9") as caught:
        stage.start(python=str(interpreter))
    assert caught.value.stage == "import"


def test_a_framework_that_takes_longer_than_its_start_may_is_named_with_the_option(stage, tmp_path):
    interpreter = tmp_path / "python"
    interpreter.write_text("#!/bin/sh\nexec cat /dev/zero > /dev/null\n")
    interpreter.chmod(0o755)
    with pytest.raises(LoadError, match="importing the framework of backend 'identity' took longer than 0 s") as caught:
        stage.start(python=str(interpreter), start_timeout_secs=0.05)
    assert (caught.value.code, caught.value.stage) == ("SLOW_START", "import")
    assert "--backend-config=stub-timeout-seconds=" in caught.value.fix
    assert stage.zygotes() == []


def test_a_pytorch_zygote_has_one_thread_and_its_worker_serves(stage, torch, tmp_path):
    class Double(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * 2

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(Double()), tmp_path / "model.pt")
    worker = stage.start(backend="pytorch")
    [zygote] = stage.zygotes()
    assert len(os.listdir(f"/proc/{zygote}/task")) == 1
    worker.load(stage.load_message(backend="pytorch", version_directory=str(tmp_path), file="model.pt"))
    tensor = {"name": "x", "argument": "x", "datatype": "FP32", "dims": [-1, 4]}
    worker.warm_up([{"inputs": [{**tensor, "dims": [1, 4]}], "batch_sizes": [1, 2], "count": 3}])
    worker.serve({"inputs": [tensor], "outputs": [{**tensor, "name": "OUTPUT__0"}], "max_batch_size": 2})
    rows = np.ones((2, 4), np.float32)
    stage.core.links[worker.id].execute(rows)
    [(_, array)] = stage.core.links[worker.id].reply()["tensors"]
    np.testing.assert_array_equal(array, rows * 2)


def test_an_onnxruntime_zygote_has_one_thread_and_calls_nobody(stage, tmp_path):
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install 'naiad[onnx]'")
    onnx_models.save(onnx_models.affine(), tmp_path / "model.onnx")
    worker = stage.start(backend="onnxruntime")
    [zygote] = stage.zygotes()
    assert len(os.listdir(f"/proc/{zygote}/task")) == 1
    folder = str(tmp_path)
    worker.load(stage.load_message(backend="onnxruntime", version_directory=folder, file="model.onnx", threads=3))
    assert len(os.listdir(f"/proc/{worker.pid}/task")) == 3
    tensor = {"name": "x", "datatype": "FP32", "dims": [4]}
    worker.serve({"inputs": [tensor], "outputs": [{**tensor, "name": "y"}], "max_batch_size": 2})
    rows = np.ones((2, 4), np.float32)
    stage.core.links[worker.id].execute(rows)
    [(_, array)] = stage.core.links[worker.id].reply()["tensors"]
    np.testing.assert_array_equal(array, rows * 2 + 1)


def test_a_killed_server_leaves_no_process():
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    server = subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True, env=environment)
    tree = [int(pid) for pid in server.stdout.readline().split()]
    assert len(tree) == 2 and all(map(alive, tree))
    server.kill()
    server.wait(10)
    server.stdout.close()
    until(lambda: not any(map(alive, tree)), 10, lambda: f"still alive: {[pid for pid in tree if alive(pid)]}")
