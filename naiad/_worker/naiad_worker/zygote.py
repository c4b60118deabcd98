"""A process that has imported a framework and forks workers: a model is ready in milliseconds, pages are shared."""

from __future__ import annotations

import argparse
import gc
import os
import socket
import time
import traceback
from typing import Any

from naiad_worker import backends, main, output, process
from naiad_worker.control import Closed, ControlChannel

EXTRAS = {
    "onnxruntime": "'naiad[onnx]'",
    "skops": "'naiad[sklearn]'",
    "sklearn": "'naiad[sklearn]'",
    "tensorflow": "'naiad[tensorflow]'",
    "torch": "'naiad[torch]'",
}
"""What brings a framework's module along."""


def _become_worker(message: dict[str, Any], descriptors: list[int], backend: str, go: int) -> None:
    """The grandchild: waits until it belongs to the server, then lives as a worker. Never returns."""
    control, data, output = descriptors
    try:
        os.read(go, 1)  # end-of-file: the process in between is gone, the server is the parent
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        process.close_all_but({control, data})
        process.die_with_parent(message["server_pid"])
        process.prefer_for_oom()
        os.environ.update(message.get("env", {}))
        main.serve(control, data, backend)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)


def fork(message: dict[str, Any], descriptors: list[int], backend: str, own: int) -> int:
    """Forks twice, so that the worker survives this process; the worker's pid."""
    pid_read, pid_write = os.pipe()
    go_read, go_write = os.pipe()
    try:
        between = os.fork()
        if between == 0:
            try:
                worker = os.fork()
                if worker == 0:
                    for descriptor in (own, pid_read, pid_write, go_write):
                        os.close(descriptor)
                    _become_worker(message, descriptors, backend, go_read)
                os.write(pid_write, worker.to_bytes(8, "little"))
            finally:
                os._exit(0)
        os.close(pid_write)
        pid_write = -1
        pid = int.from_bytes(os.read(pid_read, 8), "little")
        os.waitpid(between, 0)
    finally:
        for descriptor in (pid_read, pid_write, go_read, go_write):
            if descriptor >= 0:
                os.close(descriptor)
    if pid == 0:
        raise OSError("the fork of the worker failed")
    return pid


def _follow(control: ControlChannel, backend: str) -> None:
    while True:
        message, descriptors = control.receive()
        if message.get("type") != "FORK" or len(descriptors) != 3:
            raise Closed(f"expected FORK with three descriptors, got {message.get('type')} with {len(descriptors)}")
        try:
            pid = fork(message, descriptors, backend, control.fileno())
            control.send({"type": "FORKED", "id": message["id"], "pid": pid})
        except OSError as error:
            control.send({"type": "FORK_FAILED", "id": message["id"], "cause": str(error)})
        finally:
            for descriptor in descriptors:
                os.close(descriptor)


def run() -> int:
    """Entry: imports the framework, freezes the heap, then forks on demand until end-of-file."""
    parser = argparse.ArgumentParser(prog="naiad_worker.zygote")
    parser.add_argument("--backend", required=True)
    parser.add_argument("--control-fd", type=int, required=True)
    parser.add_argument("--server-pid", type=int, required=True)
    options = parser.parse_args()
    process.die_with_parent(options.server_pid)
    process.close_all_but({options.control_fd})
    process.leave_signals_to_server()
    output.install()
    control = ControlChannel(socket.socket(fileno=options.control_fd))
    start = time.monotonic_ns()
    try:
        backends.backend(options.backend).preimport()
        threads = process.thread_count()
        if threads != 1:
            raise RuntimeError(f"importing '{options.backend}' left {threads} threads; a fork would lose them")
    except ImportError as error:
        module = (error.name or str(error)).split(".")[0]
        fix = f"install it: pip install {EXTRAS.get(module, module)}"
        told = {"stage": "import", "cause": str(error), "fix": fix, "code": "ENV_MISSING_BACKEND"}
        control.send({"type": "FAILED", **told, "traceback": ""})
        return 1
    except Exception as error:
        trace = traceback.format_exc()
        control.send({"type": "FAILED", "stage": "import", "cause": str(error), "fix": "", "traceback": trace})
        return 1
    gc.collect()
    gc.freeze()
    control.send({"type": "ZYGOTE_READY", "pid": os.getpid(), "threads": 1, "import_ns": time.monotonic_ns() - start})
    try:
        _follow(control, options.backend)
    except Closed:
        pass
    return 0
