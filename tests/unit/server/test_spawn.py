"""Workers that are not forked: a process of its own each, with the same life as the others."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest

from naiad.errors import LoadError
from naiad.server.allowed import START
from naiad.server.worker import Worker
from tests.support.server import alive
from tests.unit.server.conftest import Stage

ROWS = np.arange(32, dtype=np.float32).reshape(2, 16)


def answers(stage: Stage, worker: Worker) -> None:
    link = stage.core.links[worker.id]
    call = link.execute(ROWS)
    reply = link.reply()
    assert (reply["call"], reply["status"]) == (call, 0), reply
    np.testing.assert_array_equal(reply["tensors"][0][1], ROWS)


def command(worker: Worker) -> list[str]:
    return Path(f"/proc/{worker.pid}/cmdline").read_text().split("\0")


def test_a_worker_is_started_without_a_zygote(stage):
    worker, other = stage.serving(forks=False), stage.serving("other", forks=False)
    assert stage.zygotes() == []
    assert worker.pid != other.pid
    assert command(worker)[1:3] == [START, "main"]
    answers(stage, worker)
    answers(stage, other)


def test_it_has_its_own_variables_and_no_descriptor_of_the_server(stage):
    worker = stage.serving(forks=False, environment={"CUDA_VISIBLE_DEVICES": "7"}, threads=3)
    environment = Path(f"/proc/{worker.pid}/environ").read_text().split("\0")
    assert {"CUDA_VISIBLE_DEVICES=7", "OMP_NUM_THREADS=3"} <= set(environment)
    held = {os.readlink(f"/proc/{worker.pid}/fd/{number}").split(":")[0] for number in (0, 1, 2)}
    assert held == {"/dev/null", "pipe"}
    others = set(os.listdir(f"/proc/{worker.pid}/fd")) - {"0", "1", "2"}
    kinds = sorted(os.readlink(f"/proc/{worker.pid}/fd/{number}").split(":")[0] for number in others)
    assert [kind for kind in kinds if not kind.startswith("/memfd")] == ["socket", "socket"]


def test_a_failed_load_ends_nothing(stage):
    worker = stage.start(forks=False)
    with pytest.raises(LoadError, match="no backend 'nonsense'"):
        worker.load(stage.load_message(backend="nonsense"))
    worker.load(stage.load_message())


def test_a_lost_worker_is_replaced(stage):
    worker = stage.serving(forks=False)
    stage.supervisor.keep(worker, stage.replay())
    os.kill(worker.pid, signal.SIGKILL)
    stage.core.wait(lambda: stage.states and stage.states[-1] is None, 20)
    [replacement] = stage.supervisor.current([worker])
    assert replacement.pid != worker.pid
    assert command(replacement)[1:3] == [START, "main"]
    answers(stage, replacement)


def test_a_worker_that_is_stopped_is_gone_and_waited_for(stage):
    worker = stage.serving(forks=False)
    stage.supervisor.discard(worker)
    assert worker.exit == "exit code 0"
    assert not alive(worker.pid)


def test_an_interpreter_that_is_not_there_is_a_load_error(stage, tmp_path):
    with pytest.raises(LoadError, match=r"cannot start '.*python': No such file or directory") as caught:
        stage.start(forks=False, python=str(tmp_path / "python"))
    assert caught.value.stage == "start"
    assert stage.core.links == {} or all(link.closed for link in stage.core.links.values())


def test_an_interpreter_that_ends_at_once_is_a_load_error(stage, tmp_path):
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\nexit 3\n")
    broken.chmod(0o700)
    with pytest.raises(LoadError, match=r"did not come up \(exit code 3\)"):
        stage.start(forks=False, python=str(broken))
