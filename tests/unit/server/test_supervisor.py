from __future__ import annotations

import os
import signal
import socket
import threading
from pathlib import Path

import numpy as np
import pytest

from naiad.errors import LoadError
from naiad.server.restart import CRASHES, RestartPolicy
from naiad.server.worker import Worker
from tests.support.server import alive, until
from tests.unit.server.conftest import TABLE, Stage

ROWS = np.arange(32, dtype=np.float32).reshape(2, 16)


def answers(stage: Stage, worker: Worker) -> bool:
    link = stage.core.links[worker.id]
    call = link.execute(ROWS)
    reply = link.reply()
    assert (reply["call"], reply["status"]) == (call, 0), reply
    [(index, array)] = reply["tensors"]
    assert index == 0
    np.testing.assert_array_equal(array, ROWS)
    assert link.started == call
    return True


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_a_worker_loads_probes_warms_up_and_serves(stage):
    worker = stage.start()
    worker.load(stage.load_message())
    report = worker.probe([{"name": "INPUT0", "argument": "", "datatype": "FP32", "dims": [1, 16]}], batched=True)
    assert report["batchable"] is True
    assert report["outputs"] == [{"name": "OUTPUT0", "datatype": "FP32", "dims": [-1, -1]}]
    worker.warm_up([{"inputs": TABLE["inputs"], "batch_sizes": [1, 8], "count": 3}])
    worker.serve(TABLE)
    assert answers(stage, worker)
    assert stage.core.links[worker.id].place == {"model": "m", "version": 1, "instance": 0}


def test_a_cancelled_call_is_skipped_and_said_so(stage):
    worker = stage.serving()
    link = stage.core.links[worker.id]
    call = link.execute(ROWS, cancelled=True)
    reply = link.reply()
    assert (reply["call"], reply["status"], reply["tensors"]) == (call, 8, [])


def test_a_failed_load_names_stage_and_cause_and_ends_nothing(stage):
    worker = stage.start()
    with pytest.raises(LoadError, match="no backend 'nonsense'") as caught:
        worker.load(stage.load_message(backend="nonsense"))
    assert caught.value.stage == "load"
    worker.load(stage.load_message())
    worker.serve(TABLE)
    assert answers(stage, worker)


def test_a_load_that_takes_too_long_is_ended(stage):
    worker = stage.start(load_timeout_secs=0.2)
    slow = {"parameters": {"creation_delay_sec": {"string_value": "60"}}}
    with pytest.raises(LoadError, match=r"LOAD took longer than 0 s.*stopped"):
        worker.load(stage.load_message(config=slow))
    worker._exited.wait(10)
    assert worker.exit == "signal 9 (Killed)"


def test_a_worker_killed_during_load_is_a_load_error(stage):
    worker = stage.start()
    slow = {"parameters": {"creation_delay_sec": {"string_value": "60"}}}
    caught: list[BaseException] = []

    def load() -> None:
        try:
            worker.load(stage.load_message(config=slow))
        except LoadError as error:
            caught.append(error)

    thread = threading.Thread(target=load)
    thread.start()
    os.kill(worker.pid, signal.SIGKILL)
    thread.join(10)
    assert "ended during LOAD (signal 9 (Killed))" in str(caught[0])


def test_a_malformed_frame_ends_that_worker_only(stage):
    broken, other = stage.serving("broken"), stage.serving("other")
    stage.core.links[broken.id].sock.send(b"\x09garbage")
    assert stage.core.links[broken.id].reply() == {}
    assert broken._exited.wait(10)
    assert answers(stage, other)
    stage.core.wait(lambda: any("frame version: expected 1, got 9" in line for _, line in stage.core.output))


def test_output_reaches_the_pipe_with_the_models_name(stage):
    worker = stage.serving("talker")
    stage.core.links[worker.id].sock.send(b"\x01")
    stage.core.wait(
        lambda: any(labels == {"model": "talker", "version": 1, "pid": worker.pid} for labels, _ in stage.core.output)
    )


def test_a_lost_worker_is_replaced_at_once(stage):
    worker = stage.serving()
    stage.supervisor.keep(worker, stage.replay())
    os.kill(worker.pid, signal.SIGKILL)
    stage.core.wait(lambda: stage.states and stage.states[-1] is None, 5)
    assert stage.core.attached[0][:2] == ("m", 1)
    [replacement] = stage.supervisor.current([worker])
    assert replacement.pid != worker.pid
    assert stage.core.links[worker.id].closed
    assert "signal 9" in stage.states[0]
    assert answers(stage, replacement)


def test_a_worker_that_died_before_it_was_kept_is_replaced(stage):
    worker = stage.serving()
    os.kill(worker.pid, signal.SIGKILL)
    assert worker._exited.wait(10)
    stage.supervisor.keep(worker, stage.replay())
    stage.core.wait(lambda: stage.core.attached, 5)


def test_a_released_worker_is_not_replaced(stage):
    worker = stage.serving()
    stage.supervisor.keep(worker, stage.replay())
    stage.supervisor.release([worker])
    os.kill(worker.pid, signal.SIGKILL)
    assert worker._exited.wait(10)
    stage.supervisor.discard(worker)
    assert stage.states == [] and stage.core.attached == []


def test_a_replacement_of_an_unloaded_model_is_dropped(stage):
    worker = stage.serving()
    slow = {"parameters": {"creation_delay_sec": {"string_value": "0.5"}}}
    stage.supervisor.keep(worker, stage.replay(config=slow))
    os.kill(worker.pid, signal.SIGKILL)
    stage.core.wait(lambda: len(stage.core.links) == 2)
    stage.supervisor.release([worker])
    stage.core.wait(lambda: stage.core.links[2].closed)
    assert stage.core.attached == []


def test_a_replacement_that_the_core_refuses_is_dropped(stage):
    worker = stage.serving()
    stage.core.attach_error = RuntimeError("model 'm' is not published")
    stage.supervisor.keep(worker, stage.replay())
    os.kill(worker.pid, signal.SIGKILL)
    stage.core.wait(lambda: len(stage.core.links) == 2 and stage.core.links[2].closed)
    assert stage.supervisor.current([worker]) == [worker]


def test_a_crash_loop_is_given_up(stage):
    worker = stage.serving()
    policy = RestartPolicy()
    for _ in range(CRASHES - 1):
        policy.crashed()
    stage.supervisor.keep(worker, stage.replay(policy))
    os.kill(worker.pid, signal.SIGKILL)
    stage.core.wait(lambda: stage.states)
    assert stage.states[0].startswith("CRASH_LOOP: five crashes within ten minutes, last: the worker process ended")
    assert stage.core.attached == []


def test_losses_leave_no_descriptor_and_no_process(stage):
    worker = stage.serving()
    stage.supervisor.keep(worker, stage.replay(RestartPolicy(lambda: 0.0)))
    figures = []
    for count in (1, 2, 3):
        os.kill(stage.supervisor.current([worker])[0].pid, signal.SIGKILL)
        stage.core.wait(lambda count=count: stage.states.count(None) == count)
        until(lambda: stage.core.pipes == 2, 10, lambda: "an output pipe is still held")
        figures.append(descriptors())
    assert figures[0] == figures[1] == figures[2]
    last = stage.supervisor.current([worker])[0]
    stage.supervisor.discard(last)
    assert stage.supervisor._successors == {} and not alive(last.pid)


def test_starting_and_discarding_leaves_nothing(stage):
    stage.supervisor.discard(stage.serving())
    until(lambda: stage.core.pipes == 1, 10, lambda: "an output pipe is still held")
    before = descriptors()
    for _ in range(5):
        worker = stage.serving()
        stage.supervisor.discard(worker)
        assert worker.exit == "exit code 0"
    until(lambda: stage.core.pipes == 1, 10, lambda: "an output pipe is still held")
    assert descriptors() == before


def test_a_worker_holds_listed_descriptors_only(stage):
    with Path("/proc/self/status").open() as file:
        os.set_inheritable(file.fileno(), True)
        worker = stage.serving()
        kinds = {name: os.readlink(f"/proc/{worker.pid}/fd/{name}") for name in os.listdir(f"/proc/{worker.pid}/fd")}
    assert kinds["0"] == "/dev/null"
    assert kinds["1"] == kinds["2"] and kinds["1"].startswith("pipe:")
    rest = [kind.split(":")[0] for name, kind in kinds.items() if name not in "012"]
    # Python's mmap keeps a duplicate of the arena's descriptor.
    assert sorted(rest) in (["socket", "socket"], ["/memfd", "socket", "socket"]), kinds


def test_a_worker_sees_listed_variables_only(subreaper):
    stage = Stage(environment={**os.environ, "AWS_SECRET_ACCESS_KEY": "geheim", "DATABASE_URL": "geheim"})
    try:
        worker = stage.serving(environment={"MODEL_SAYS": "yes"})
        for pid in (*stage.zygotes(), worker.pid):
            environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            assert b"OMP_NUM_THREADS=1" in environment and b"MODEL_SAYS=yes" in environment
            assert not any(b"geheim" in variable for variable in environment)
    finally:
        stage.close()


def test_a_worker_is_first_to_go_when_memory_runs_out(stage):
    worker = stage.serving()
    assert Path(f"/proc/{worker.pid}/oom_score_adj").read_text().strip() == "500"


def test_the_end_of_the_control_channel_ends_the_worker(stage):
    worker = stage.serving()
    worker._control._socket.shutdown(socket.SHUT_RDWR)
    assert worker._exited.wait(10)
    assert worker.exit == "exit code 0"


def test_a_worker_leaves_sigterm_to_the_server(stage):
    worker = stage.serving()
    for pid in (worker.pid, *stage.zygotes()):
        os.kill(pid, signal.SIGTERM)
    assert answers(stage, worker)
