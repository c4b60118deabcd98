"""Runs Naiad and the real Triton side by side and writes the table: `python -m benches.run`."""

from __future__ import annotations

import argparse
import contextlib
import datetime
import random
import signal
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benches import direct, measure, memory, models, peers, report, servers
from benches.fleet import Fleet, check_answers
from benches.load import Pressure
from benches.scenarios import SCENARIOS, Scenario

RESULTS = Path(__file__).resolve().parent / "results"
MEMORY = "memory"
NAMES = (*SCENARIOS, MEMORY)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benches.run", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="counted rounds after one that is thrown away")
    parser.add_argument("--seconds", type=float, default=2.0, help="length of one measurement")
    connections = "connections, comma-separated, in place of each scenario's own"
    parser.add_argument("--connections", type=lambda text: [int(each) for each in text.split(",")], help=connections)
    parser.add_argument("--only", action="append", choices=NAMES, help="a scenario in place of all; repeatable")
    parser.add_argument("--soak", type=float, default=0.0, metavar="SECONDS", help="watch the memory that long, too")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the table")
    parser.add_argument("--seed", type=int, default=None, help="order of the servers in each round")
    options = parser.parse_args()
    options.only = options.only or list(NAMES)
    return options


def _measure_one(
    tools: peers.Peers, server: servers.Server, scenario: Scenario, connections: int, seconds: float
) -> dict[str, Any]:
    """One measurement of one server: what the generator saw and what the processes used."""
    with tempfile.TemporaryDirectory() as scratch:
        pressure = Pressure(connections=connections, seconds=seconds, scratch=Path(scratch))
        before, machine, counts = measure.usage(server.pid), measure.machine_time(), server.counts(scenario.model)
        seen = scenario.run(tools, server, pressure)
        after, machine_after = measure.usage(server.pid), measure.machine_time()
        counts_after = server.counts(scenario.model)
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


def _measure_living(fleet: Fleet, name: str, scenario: Scenario, connections: int, seconds: float) -> dict[str, Any]:
    """The same; a peer that dies meanwhile is replaced and measured anew."""
    while True:
        server = fleet.running[name]
        try:
            return _measure_one(fleet.tools, server, scenario, connections, seconds)
        except (RuntimeError, OSError):
            if server.lives():
                raise
            fleet.replace(server, f"{scenario.about} at {connections}")


def _machine() -> dict[str, object]:
    return {
        **measure.machine(),
        "triton": f"2.51 ({peers.TRITON})",
        "generators": f"perf_analyzer ({peers.TRITONCLIENT}), wrk",
    }


def _measure_all(fleet: Fleet, options: argparse.Namespace, order: random.Random) -> list[dict[str, Any]]:
    """The rows of all rounds but the first."""
    rows = []
    for number in range(options.rounds + 1):
        for name in (each for each in options.only if each != MEMORY):
            scenario = SCENARIOS[name]
            names = [each for each in scenario.servers if fleet.server(each)]
            for connections in options.connections or scenario.connections:
                order.shuffle(names)
                for each in names:
                    row = _measure_living(fleet, each, scenario, connections, options.seconds)
                    where = f"round {number} {name} {connections:>3} {each:>8}"
                    print(f"{where}: {row['throughput']:>9.0f}/s p50 {row['p50_us']:>7.0f} us", file=sys.stderr)
                    if number:
                        rows.append({"scenario": name, "connections": connections, "server": each, **row})
    for server in fleet.running.values():
        check_answers(server)
    return rows


def _memory(fleet: Fleet, order: random.Random) -> list[dict[str, Any]]:
    """What fresh servers hold, one after the other."""
    names, rows = ["naiad", "triton"], []
    order.shuffle(names)
    for name in names:
        print(f"memory of {name}", file=sys.stderr)
        with fleet.start(name) as server:
            check_answers(server)
            rows.append(memory.idle(server))
    return sorted(rows, key=lambda row: row["server"])


def _soak(fleet: Fleet, seconds: float) -> list[dict[str, Any]]:
    """What fresh servers hold through a long load, one after the other."""
    rows = []
    for name in ("naiad", "triton"):
        print(f"{seconds:g} s of mixed load on {name}", file=sys.stderr)
        with fleet.start(name) as server, tempfile.TemporaryDirectory() as scratch:
            rows.append(memory.soak(fleet.tools, server, seconds, Path(scratch)))
            check_answers(server)
    return rows


def main() -> int:
    """Measures, writes `results/<date>-<commit>.{json,md}` and prints the table."""
    options = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the servers are stopped, too
    try:
        tools = peers.fetch()
    except peers.Missing as missing:
        print(f"benches: {missing}", file=sys.stderr)
        return 1
    seed = options.seed if options.seed is not None else random.randrange(1 << 30)
    order = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        with contextlib.ExitStack() as stack:
            fleet = Fleet(tools, Path(folder), stack)
            costs = direct.cost(tools, models.LENET) if "lenet" in options.only else {}
            rows = _measure_all(fleet, options, order)
        held = _memory(fleet, order) if MEMORY in options.only else []
        soaked = _soak(fleet, options.soak) if options.soak else []
    result = {
        "date": datetime.date.today().isoformat(),
        "machine": _machine(),
        "options": {"rounds": options.rounds, "seconds": options.seconds, "seed": seed},
        "direct_call_seconds": costs,
        "rows": rows,
        "memory": held,
        "soak": soaked,
        "left_out": list(fleet.left_out.values()),
    }
    measure.write(options.out, result, report.render(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
