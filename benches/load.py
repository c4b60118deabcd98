"""Puts load on a server with the public generators: perf_analyzer for binary tensors, wrk for JSON bodies."""

from __future__ import annotations

import csv
import os
import re
import subprocess
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from benches.peers import Peers, perf_environment
from benches.servers import Server, ServerDied

PATIENCE = 120.0
"""Seconds that one measurement may take."""

_WRK_SCRIPT = """wrk.method = "POST"
wrk.path = "/v2/models/{model}/infer"
wrk.headers["Content-Type"] = "application/json"
local file = io.open("{body}", "rb")
wrk.body = file:read("*a")
file:close()
done = function(summary, latency, requests)
  io.write(string.format("RESULT %f %f %f %d\\n",
    summary.requests / summary.duration * 1e6, latency:percentile(50), latency:percentile(99),
    summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.status
      + summary.errors.timeout))
end
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pressure:
    """How hard and how long to push, and a folder for the generator's files."""

    connections: int
    seconds: float
    scratch: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What a generator saw."""

    throughput: float
    """Requests per second."""
    p50_us: float
    p99_us: float
    generator_cpu: float
    """CPU seconds of the generator."""
    notes: dict[str, float] = field(default_factory=dict)
    """What only one scenario measures."""


def _run(command: list[str], server: Server, environment: dict[str, str] | None = None) -> tuple[str, float]:
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    ended = threading.Event()
    watchdog = threading.Thread(target=_watch, args=(process, server, ended))
    watchdog.start()
    output = process.stdout.read()
    _pid, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    ended.set()
    watchdog.join()
    if not server.lives():
        raise ServerDied(f"{server.name} died under the load")
    if process.returncode:
        raise RuntimeError(f"{command[0]} failed with {process.returncode}:\n{output[-2000:]}")
    return output, used.ru_utime + used.ru_stime


def _watch(process: subprocess.Popen[str], server: Server, ended: threading.Event) -> None:
    """perf_analyzer waits for ever for a server that has died."""
    end = time.monotonic() + PATIENCE
    while not ended.wait(0.5):
        if time.monotonic() > end or not server.lives():
            process.kill()
            return


def perf(tools: Peers, server: Server, model: str, pressure: Pressure, *options: str) -> Load:
    """perf_analyzer with binary tensors; three windows of a third of the time."""
    table = pressure.scratch / "perf.csv"
    table.unlink(missing_ok=True)
    window = max(500, int(pressure.seconds * 1000 / 3))
    address = server.grpc if "grpc" in options else server.address
    command = [str(tools.perf_analyzer), "-m", model, "-u", address]
    command += ["--concurrency-range", f"{pressure.connections}:{pressure.connections}"]
    command += ["-p", str(window), "-s", "999", "-r", "3", *options]
    for name, value in server.headers.items():
        command += ["-H", f"{name}:{value}"]
    output, cpu = _run([*command, "-f", str(table)], server, perf_environment(tools))
    if not table.exists():
        raise RuntimeError(f"perf_analyzer gave no table:\n{output[-2000:]}")
    with table.open() as file:
        row = next(csv.DictReader(file))
    return Load(
        throughput=float(row["Inferences/Second"]),
        p50_us=float(row["p50 latency"]),
        p99_us=float(row["p99 latency"]),
        generator_cpu=cpu,
    )


def wrk(server: Server, model: str, pressure: Pressure, body: Path) -> Load:
    """Wrk with one JSON body."""
    script = pressure.scratch / "post.lua"
    script.write_text(_WRK_SCRIPT.format(model=model, body=body))
    threads = 1 if pressure.connections < 32 else 2
    command = ["wrk", "-t", str(threads), "-c", str(pressure.connections)]
    command += ["-d", f"{max(1, round(pressure.seconds))}s", "--latency", "-s", str(script)]
    output, cpu = _run([*command, f"http://{server.address}"], server)
    found = re.search(r"RESULT ([\d.]+) ([\d.]+) ([\d.]+) (\d+)", output)
    if not found:
        raise RuntimeError(f"wrk gave no result:\n{output}")
    if int(found[4]):
        raise RuntimeError(f"{found[4]} requests to {server.name} failed: the run is void\n{output}")
    return Load(throughput=float(found[1]), p50_us=float(found[2]), p99_us=float(found[3]), generator_cpu=cpu)
