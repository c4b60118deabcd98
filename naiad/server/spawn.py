"""Starts a worker that is not forked: its framework does not survive a fork, so each begins as a process of its own."""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess

from naiad.server.allowed import START, worker_environment
from naiad.server.worker import WorkerSpec
from naiad.server.zygote import ZygoteError, ZygoteOptions


def spawn(spec: WorkerSpec, descriptors: tuple[int, int, int], options: ZygoteOptions) -> subprocess.Popen[bytes]:
    """A worker process that gets (control, data, output); raises `ZygoteError`."""
    control, data, output = descriptors
    command = [spec.python, START, "main", "--backend", spec.backend]
    command += ["--control-fd", str(control), "--data-fd", str(data), "--server-pid", str(os.getpid())]
    environment = worker_environment(options.base_environment, spec.own_environment)

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command,
            env=environment,
            pass_fds=[control, data],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )

    try:
        process = options.spawn(start)
    except OSError as error:
        raise ZygoteError(f"cannot start '{spec.python}': {error.strerror}") from error
    with contextlib.suppress(ProcessLookupError):
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, options.descriptor_limit)
    return process
