"""Puts load on a server with the public generators: perf_analyzer for binary tensors, wrk for JSON bodies."""

from __future__ import annotations

import csv
import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from benches.models import REQUEST
from benches.peers import Peers, perf_environment
from benches.servers import Server

_WRK_SCRIPT = """wrk.method = "POST"
wrk.path = "/v2/models/lenet/infer"
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
class Load:
    """What a generator saw."""

    throughput: float
    """Requests per second."""
    p50_us: float
    p99_us: float
    generator_cpu: float
    """CPU seconds of the generator."""


def _run(command: list[str], environment: dict[str, str] | None = None) -> tuple[str, float]:
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    output = process.stdout.read()
    _pid, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{command[0]} failed with {process.returncode}:\n{output[-2000:]}")
    return output, used.ru_utime + used.ru_stime


def identity(peers: Peers, server: Server, connections: int, seconds: float, scratch: Path) -> Load:
    """perf_analyzer against `identity`, FP32[16] binary; three windows of a third of `seconds`."""
    table = scratch / "perf.csv"
    table.unlink(missing_ok=True)
    window = max(500, int(seconds * 1000 / 3))
    command = [str(peers.perf_analyzer), "-m", "identity", "-i", "http", "-u", server.address]
    command += ["--concurrency-range", f"{connections}:{connections}", "-p", str(window), "-s", "999", "-r", "3"]
    output, cpu = _run([*command, "-f", str(table)], perf_environment(peers))
    if "error" in output.lower() and not table.exists():
        raise RuntimeError(f"perf_analyzer gave no table:\n{output[-2000:]}")
    with table.open() as file:
        row = next(csv.DictReader(file))
    return Load(
        throughput=float(row["Inferences/Second"]),
        p50_us=float(row["p50 latency"]),
        p99_us=float(row["p99 latency"]),
        generator_cpu=cpu,
    )


def lenet(_peers: Peers, server: Server, connections: int, seconds: float, scratch: Path) -> Load:
    """Wrk against `lenet` with the JSON of the worked example."""
    script = scratch / "post.lua"
    script.write_text(_WRK_SCRIPT.format(body=REQUEST))
    threads = 1 if connections < 32 else 2
    command = ["wrk", "-t", str(threads), "-c", str(connections), "-d", f"{max(1, round(seconds))}s", "--latency"]
    output, cpu = _run([*command, "-s", str(script), f"http://{server.address}"])
    found = re.search(r"RESULT ([\d.]+) ([\d.]+) ([\d.]+) (\d+)", output)
    if not found:
        raise RuntimeError(f"wrk gave no result:\n{output}")
    if int(found[4]):
        raise RuntimeError(f"{found[4]} requests to {server.name} failed: the run is void\n{output}")
    return Load(throughput=float(found[1]), p50_us=float(found[2]), p99_us=float(found[3]), generator_cpu=cpu)
