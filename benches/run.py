"""Runs Naiad and the real Triton side by side and writes the table: `python -m benches.run`."""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import math
import os
import platform
import random
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from benches import direct, load, measure, models, peers, report, servers

RESULTS = Path(__file__).resolve().parent / "results"
SCENARIOS: dict[str, Callable[..., load.Load]] = {"identity": load.identity, "lenet": load.lenet}
RATIO_OF_FOREIGN_LOAD = 0.10


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benches.run", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="counted rounds after one that is thrown away")
    parser.add_argument("--seconds", type=float, default=3.0, help="length of one measurement")
    parser.add_argument("--connections", default="1,8,32,128", help="connections, comma-separated")
    parser.add_argument("--scenarios", default="identity,lenet", help="scenarios, comma-separated")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the table")
    parser.add_argument("--seed", type=int, default=None, help="order of the servers in each round")
    return parser.parse_args()


def _check_answers(server: servers.Server) -> None:
    """Both models must give the right answer before and after the load."""
    row = [float(i) / 8 for i in range(16)]
    body = {"inputs": [{"name": "INPUT0", "shape": [1, 16], "datatype": "FP32", "data": row}]}
    got = server.post("/v2/models/identity/infer", json.dumps(body).encode())["outputs"][0]["data"]
    if got != row:
        raise RuntimeError(f"{server.name}: identity answered {got}, expected {row}")
    scores = server.post("/v2/models/lenet/infer", models.REQUEST.read_bytes())["outputs"][0]["data"]
    if len(scores) != 10 or not all(math.isfinite(s) for s in scores):
        raise RuntimeError(f"{server.name}: lenet answered {scores}, expected ten finite scores")


def _measure_one(
    tools: peers.Peers, server: servers.Server, scenario: str, connections: int, seconds: float
) -> dict[str, float]:
    """One measurement of one server: what the generator saw and what the processes used."""
    with tempfile.TemporaryDirectory() as scratch:
        before, machine, counts = measure.usage(server.pid), measure.machine_time(), server.counts(scenario)
        seen = SCENARIOS[scenario](tools, server, connections, seconds, Path(scratch))
        after, machine_after, counts_after = measure.usage(server.pid), measure.machine_time(), server.counts(scenario)
    requests, rows, executions = (b - a for a, b in zip(counts, counts_after, strict=True))
    server_cpu = after.server_cpu - before.server_cpu
    worker_cpu = after.worker_cpu - before.worker_cpu
    ours = server_cpu + worker_cpu + seen.generator_cpu
    busy = machine_after.busy - machine.busy
    return {
        **asdict(seen),
        "server_cpu": server_cpu,
        "worker_cpu": worker_cpu,
        "requests": requests,
        "mean_batch": rows / executions if executions else 0.0,
        "executions": executions,
        "server_rss": after.server_rss,
        "worker_rss": after.worker_rss,
        "foreign_cpu": max(0.0, busy - ours),
        "steal": machine_after.steal - machine.steal,
        "busy": busy,
    }


def _machine() -> dict[str, object]:
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=RESULTS.parent, capture_output=True, text=True, check=False
    ).stdout.strip()
    return {
        "cpu": measure.cpu_model(),
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "commit": commit,
        "triton": f"2.51 ({peers.TRITON})",
        "generators": f"perf_analyzer ({peers.TRITONCLIENT}), wrk",
    }


def main() -> int:
    """Measures, writes `results/<date>.{json,md}` and prints the table."""
    options = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the servers are stopped, too
    try:
        tools = peers.fetch()
    except peers.Missing as missing:
        print(f"benches: {missing}", file=sys.stderr)
        return 1
    seed = options.seed if options.seed is not None else random.randrange(1 << 30)
    order = random.Random(seed)
    rounds: list[dict[str, object]] = []
    lenet_input = json.loads(models.REQUEST.read_bytes())["inputs"][0]["name"]
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        root = Path(folder)
        models.write_triton(root / "triton", lenet_input=lenet_input)
        models.write_naiad(root / "naiad", lenet_input=lenet_input)
        running = [
            stack.enter_context(servers.triton(tools, root / "triton", root / "triton.log")),
            stack.enter_context(servers.naiad(root / "naiad", root / "naiad.log")),
        ]
        costs = direct.cost(tools, models.LENET)
        for server in running:
            _check_answers(server)
        for number in range(options.rounds + 1):
            for scenario in options.scenarios.split(","):
                for connections in map(int, options.connections.split(",")):
                    order.shuffle(running)
                    for server in running:
                        row = _measure_one(tools, server, scenario, connections, options.seconds)
                        where = f"round {number} {scenario} {connections:>3} {server.name:>6}"
                        print(f"{where}: {row['throughput']:>9.0f}/s p50 {row['p50_us']:>7.0f} us", file=sys.stderr)
                        if number:
                            rounds.append(
                                {"scenario": scenario, "connections": connections, "server": server.name, **row}
                            )
        for server in running:
            _check_answers(server)
    result = {
        "date": datetime.date.today().isoformat(),
        "machine": _machine(),
        "options": {"rounds": options.rounds, "seconds": options.seconds, "seed": seed},
        "direct_call_seconds": costs,
        "rows": rounds,
    }
    text = report.render(result)
    options.out.mkdir(parents=True, exist_ok=True)
    name = f"{result['date']}-{result['machine']['commit']}"
    (options.out / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")
    (options.out / f"{name}.md").write_text(text)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
