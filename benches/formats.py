"""What each format costs: time to READY, memory of its workers, overhead over the framework.

`python -m benches.formats` measures and writes the table. The formats and their models are those of
`tests/support/formats.py`: 1,024 numbers in (4 KB a row), 8 out.
"""

from __future__ import annotations

import argparse
import datetime
import http.client
import os
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tritonclient.http import InferenceServerClient, InferInput

from benches import measure
from tests.support.formats import BY_NAME, FORMATS, Format, rows
from tests.support.server import Serve, serve

RESULTS = Path(__file__).resolve().parent / "results"
EXPLICIT = "--model-control-mode=explicit"
LARGE = "--backend-config=default-max-batch-size=32"  # ONNX has Triton's four where nothing says
BATCHES = (1, 32)
CALLS = 300
OVERHEAD_MS = 0.3
"""What the worker may add to a direct call of 4 KB."""
PRIVATE_MB = 20
"""What a second worker of a loaded torch environment may hold for itself."""
_COMPUTE = re.compile(r"compute_(?:input|infer|output);dur=([0-9.]+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What was measured of one format; times in milliseconds, memory in bytes."""

    label: str
    serve_ms: float
    """From the start of `naiad serve` on a repository with this model to READY."""
    cold_ms: float
    """From the load request to READY where its framework is not imported yet."""
    warm_ms: float
    """The same where a zygote has imported it (median)."""
    second_ms: float
    """The same for a second instance beside the first."""
    rss: int
    pss: int
    private: int
    """Of the second worker."""
    direct_ms: dict[int, float]
    """Median of a direct call by batch."""
    worker_ms: dict[int, float]
    """Median of what the worker takes for a call."""
    http_ms: dict[int, float]
    """Median of the whole request."""

    def overhead(self, batch: int) -> float:
        """What the worker adds to a direct call."""
        return self.worker_ms[batch] - self.direct_ms[batch]


@contextmanager
def _served(root: Path, *options: str) -> Iterator[Serve]:
    with serve(root, root.parent / "log", "--strict-readiness=true", *options) as server:
        yield server


def _until_ready(root: Path) -> float:
    """Milliseconds from the start of a server to READY."""
    start = time.perf_counter()
    with _served(root) as server:
        host, port = server.address.rsplit(":", 1)
        while time.perf_counter() - start < 300:
            connection = http.client.HTTPConnection(host, int(port), timeout=10)
            connection.request("GET", "/v2/health/ready")
            is_ready = connection.getresponse().status == 200
            connection.close()
            if is_ready:
                return (time.perf_counter() - start) * 1e3
            time.sleep(0.005)
    raise RuntimeError(f"not READY within 300 s; see {root.parent / 'log'}")


def _post(server: Serve, name: str, what: str) -> float:
    start = time.perf_counter()
    answer = server.post(f"/v2/repository/models/{name}/{what}")
    took = (time.perf_counter() - start) * 1e3
    if answer.status != 200:
        raise RuntimeError(f"{what} of '{name}': {answer.body!r}")
    return took


def _workers(server: Serve, name: str) -> list[int]:
    """Pids of a model's workers, the newest last."""
    return [r["pid"] for r in server.records() if r["message"] == "worker ready" and r["model"] == name]


def _private(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(("Private_Clean:", "Private_Dirty:")))


def _calls(server: Serve, name: str, batch: int) -> tuple[float, float]:
    """Median milliseconds of the worker and of the whole request."""
    config = server.get(f"/v2/models/{name}/config").json
    given = rows(batch)
    tensor = InferInput(config["input"][0]["name"], list(given.shape), "FP32")
    tensor.set_data_from_numpy(given)
    body, length = InferenceServerClient.generate_request_body([tensor])
    headers = {"Inference-Header-Content-Length": str(length)}
    host, port = server.address.rsplit(":", 1)
    connection = http.client.HTTPConnection(host, int(port), timeout=60)
    worker, whole = [], []
    for _ in range(CALLS):
        start = time.perf_counter()
        connection.request("POST", f"/v2/models/{name}/infer", body, headers)
        answer = connection.getresponse()
        answer.read()
        whole.append((time.perf_counter() - start) * 1e3)
        if answer.status != 200:
            raise RuntimeError(f"'{name}' answered {answer.status}")
        worker.append(sum(map(float, _COMPUTE.findall(answer.headers["Server-Timing"]))))
    connection.close()
    return statistics.median(worker), statistics.median(whole)


def cost_of(each: Format, folder: Path, warm: int) -> Cost:
    """Makes a model of the format below `folder` and measures it."""
    root, name = folder / "models", each.name
    each.write(root / name)
    serve_ms = _until_ready(root)
    with _served(root, EXPLICIT, LARGE) as server:
        cold = _post(server, name, "load")
        again = []
        for _ in range(warm):
            _post(server, name, "unload")
            again.append(_post(server, name, "load"))
        pid = _workers(server, name)[-1]
        rss, pss = measure.rss_bytes(pid), measure.pss_bytes(pid)
        measured = {batch: _calls(server, name, batch) for batch in BATCHES}
        direct = each.run(str(root / name / "1"), "time", *map(str, BATCHES)).split()
        config = root / name / "config.pbtxt"
        config.write_text((config.read_text() if config.exists() else "") + "instance_group { count: 2 }\n")
        second = _post(server, name, "load")
        private = _private(_workers(server, name)[-1])
    return Cost(
        label=each.label,
        serve_ms=serve_ms,
        cold_ms=cold,
        warm_ms=statistics.median(again),
        second_ms=second,
        rss=rss,
        pss=pss,
        private=private,
        direct_ms={batch: float(secs) * 1e3 for batch, secs in zip(BATCHES, direct, strict=True)},
        worker_ms={batch: figures[0] for batch, figures in measured.items()},
        http_ms={batch: figures[1] for batch, figures in measured.items()},
    )


def render(result: dict[str, Any], costs: list[Cost]) -> str:
    """The table."""
    told = result["machine"]
    head = [
        f"# Formats, {result['date']}",
        "",
        "Written by `python -m benches.formats`; do not edit. One model of 1,024 numbers in (4 KB a row) and 8 out.",
        "",
        f"- machine: {told['cpu']}, {told['cores']} cores, kernel {told['kernel']}, Python {told['python']}",
        f"- Naiad {told['commit']}; medians of {result['warm']} warm loads and of {CALLS} calls",
        f"- load average of the machine at the end: {result['load_average']:.1f}; over 1, others ran beside it",
        *(f"- not measured: {line}" for line in result["left_out"]),
        "",
        "## Time to READY and memory",
        "",
        "| format | `naiad serve` to READY, ms | load, cold, ms | load, warm, ms | a second worker, ms | RSS MB "
        f"| PSS MB | private MB of the second worker (bar {PRIVATE_MB}) |",
        "|---|---|---|---|---|---|---|---|",
    ]
    times = [
        f"| {c.label} | {c.serve_ms:,.0f} | {c.cold_ms:,.0f} | {c.warm_ms:,.0f} | {c.second_ms:,.0f} "
        f"| {c.rss / 1e6:,.0f} | {c.pss / 1e6:,.0f} | {c.private / 1e6:,.1f} |"
        for c in costs
    ]
    middle = ["", "## Overhead over a direct call, p50 in ms", ""]
    bar = f"overhead (bar {OVERHEAD_MS} at batch 1)"
    middle.append(f"| format | batch | direct | worker | {bar} | whole request over HTTP |")
    middle.append("|---|---|---|---|---|---|")
    calls = [
        f"| {c.label} | {batch} | {c.direct_ms[batch]:.3f} | {c.worker_ms[batch]:.3f} | {c.overhead(batch):+.3f} "
        f"| {c.http_ms[batch]:.3f} |"
        for c in costs
        for batch in BATCHES
    ]
    return "\n".join([*head, *times, *middle, *calls, ""])


def main() -> int:
    """Measures, writes `results/<date>-<commit>-formats.{json,md}` and prints the table."""
    parser = argparse.ArgumentParser(prog="python -m benches.formats", description=__doc__)
    parser.add_argument("--only", action="append", choices=BY_NAME, help="a format in place of all; repeatable")
    parser.add_argument("--warm", type=int, default=5, help="loads with a warm zygote")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the table")
    options = parser.parse_args()
    costs, left_out = [], []
    for each in [each for each in FORMATS if not options.only or each.name in options.only]:
        if reason := each.absent():
            left_out.append(f"{each.label}: {reason}")
            continue
        print(each.name, file=sys.stderr)
        with tempfile.TemporaryDirectory() as folder:
            costs.append(cost_of(each, Path(folder), options.warm))
    result = {
        "date": datetime.date.today().isoformat(),
        "machine": measure.machine(),
        "warm": options.warm,
        "load_average": os.getloadavg()[1],
        "left_out": left_out,
        "rows": [asdict(cost) for cost in costs],
    }
    measure.write(options.out, result, render(result, costs), suffix="-formats")
    return 0


if __name__ == "__main__":
    sys.exit(main())
