"""The metrics of a real server: what a scrape says is what statistics and clients say."""

from __future__ import annotations

import http.client
import json
import math
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as triton
from prometheus_client.parser import text_string_to_metric_families
from tritonclient.utils import InferenceServerException

DOCS = Path(__file__).resolve().parents[2] / "docs" / "metrics.md"
GPU = re.compile("nv_gpu_|nv_energy_")
DELAY = 'parameters { key: "execute_delay_ms" value: { string_value: "15" } }'
ROW = [0.5] * 16


def samples(text: str) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
    """Values by sample name and labels, as Prometheus' own parser reads them; it ends every counter in `_total`."""
    found: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name.removesuffix("_total"), {})[tuple(sorted(sample.labels.items()))] = (
                sample.value
            )
    return found


def one(seen: dict, name: str, **labels: str) -> float:
    """The only sample with these labels."""
    rows = [value for held, value in seen[name.removesuffix("_total")].items() if labels.items() <= dict(held).items()]
    assert len(rows) == 1, (name, labels, seen.get(name))
    return rows[0]


def test_counters_equal_statistics(repository, start):
    repository.identity("plain")
    repository.identity("batched", extra="dynamic_batching { max_queue_delay_microseconds: 500 }")
    server = start().wait_ready()
    for model in ("plain", "batched"):
        for rows in (1, 3, 1):
            assert server.infer(model, *[ROW] * rows).status == 200
    bad = {"inputs": [{"name": "INPUT0", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}]}
    assert server.post("/v2/models/plain/infer", bad).status == 400
    seen = samples(server.scrape())
    for row in server.get("/v2/models/stats").json["model_stats"]:
        labels = {"model": row["name"], "version": row["version"]}
        stats = row["inference_stats"]
        assert one(seen, "nv_inference_request_success", **labels) == stats["success"]["count"] == 3
        assert one(seen, "nv_inference_count", **labels) == row["inference_count"] == 5
        assert one(seen, "nv_inference_exec_count", **labels) == row["execution_count"] == 3
        failures = [one(seen, "nv_inference_request_failure", **labels, reason=reason) for reason in REASONS]
        assert sum(failures) == stats["fail"]["count"] == 0  # W65: refused before it was queued
        for name, key in DURATIONS.items():
            assert one(seen, f"nv_inference_{name}_duration_us", **labels) == stats[key]["ns"] // 1000
        sizes = {str(each["batch_size"]): each["compute_infer"]["count"] for each in row["batch_stats"]}
        assert sizes == {"1": 2, "3": 1}
        assert one(seen, "naiad_batch_size_sum", **labels) == 5
        assert one(seen, "naiad_batch_size_count", **labels) == 3
        assert one(seen, "nv_model_load_duration_secs", **labels) > 0
        sent = 4 if row["name"] == "plain" else 3
        assert one(seen, "naiad_requests_total", **labels, service=row["name"], key="none") == sent
        assert one(seen, "naiad_request_duration_seconds_count", **labels) == sent
        for name in ("queue", "compute"):
            assert one(seen, f"naiad_{name}_duration_seconds_count", **labels) == 3
        reason = "no_batching" if row["name"] == "plain" else "nobody_else"
        assert one(seen, "naiad_unbatched_requests_total", **labels, reason=reason) == 3


def test_a_grpc_request_counts_like_one_over_http(repository, start):
    repository.identity("m")
    server = start().wait_ready()

    def raised(ask: Callable[[], object]) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
        """By how much each sample about the model grew, but for those that depend on time."""
        before, _, after = samples(server.scrape()), ask(), samples(server.scrape())
        return {
            (name, labels): value - before[name][labels]
            for name, rows in after.items()
            for labels, value in rows.items()
            if "model" in dict(labels) and not name.endswith(TIMED) and value != before[name][labels]
        }

    tensor = triton.InferInput("INPUT0", [2, 16], "FP32")
    tensor.set_data_from_numpy(np.zeros((2, 16), np.float32))
    wrong = triton.InferInput("INPUT0", [1, 2], "FP32")
    wrong.set_data_from_numpy(np.zeros((1, 2), np.float32))
    bad = {"inputs": [{"name": "INPUT0", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}]}
    with triton.InferenceServerClient(server.grpc) as client:

        def refused() -> None:
            with pytest.raises(InferenceServerException, match="unexpected shape"):
                client.infer("m", [wrong])

        assert server.infer("m", ROW).status == 200  # so that each series is there
        over_http = raised(lambda: server.infer("m", ROW, ROW))
        counted = {name: value for (name, _), value in over_http.items()}
        assert counted["naiad_requests"] == counted["naiad_request_duration_seconds_count"] == 1
        assert counted["nv_inference_count"] == 2
        assert raised(lambda: client.infer("m", [tensor])) == over_http
        at_the_door = raised(lambda: server.post("/v2/models/m/infer", bad))
        assert at_the_door
        assert raised(refused) == at_the_door


TIMED = ("_us", "_secs", "_seconds_sum", "_seconds_bucket")
REASONS = ("REJECTED", "CANCELED", "BACKEND", "OTHER")
DURATIONS = {
    "request": "success",
    "queue": "queue",
    "compute_input": "compute_input",
    "compute_infer": "compute_infer",
    "compute_output": "compute_output",
}


def test_quantiles_agree_with_the_client(repository, start):
    repository.identity("slow", extra=DELAY)
    server = start().wait_ready()
    seconds: list[float] = []

    def client() -> None:
        connection = http.client.HTTPConnection(server.address, timeout=60)
        tensor = {"name": "INPUT0", "shape": [1, 16], "datatype": "FP32", "data": ROW}
        body = json.dumps({"inputs": [tensor]})
        for _ in range(60):
            begin = time.perf_counter()
            connection.request("POST", "/v2/models/slow/infer", body)
            assert connection.getresponse().read()
            seconds.append(time.perf_counter() - begin)
        connection.close()

    threads = [threading.Thread(target=client) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = samples(server.scrape())["naiad_request_duration_seconds_bucket"]
    buckets = sorted((float(dict(labels)["le"]), count) for labels, count in found.items())
    bounds = [bound for bound, _ in buckets]
    for quantile in (0.5, 0.9, 0.99):
        theirs = sorted(seconds)[math.ceil(quantile * len(seconds)) - 1]
        ours = histogram_quantile(quantile, buckets)
        place = [next(at for at, bound in enumerate(bounds) if value <= bound) for value in (ours, theirs)]
        assert abs(place[0] - place[1]) <= 1, (quantile, ours, theirs)


def histogram_quantile(quantile: float, buckets: list[tuple[float, float]]) -> float:
    """As PromQL computes it from cumulative buckets."""
    rank = quantile * buckets[-1][1]
    below = (0.0, 0.0)
    for bound, count in buckets:
        if count >= rank:
            if math.isinf(bound):
                return below[0]
            return below[0] + (bound - below[0]) * (rank - below[1]) / (count - below[1])
        below = (bound, count)
    raise AssertionError("the last bucket holds all")


def test_the_reference_lists_the_live_families(repository, start):
    repository.identity()
    server = start("--metrics-config=histogram_latencies=true").wait_ready()
    live = {family.name: family.type for family in text_string_to_metric_families(server.scrape())}
    listed = dict(re.findall(r"^\| `(\w+)` \| (counter|gauge|histogram) \|", DOCS.read_text("utf-8"), re.MULTILINE))
    assert listed
    # Those of GPUs have a test of their own; here there may be none.
    live = {name: kind for name, kind in live.items() if not GPU.match(name)}
    listed = {name: kind for name, kind in listed.items() if not GPU.match(name)}
    # The parser takes `_total` off counters.
    assert {name.removesuffix("_total"): kind for name, kind in listed.items()} == live


def test_tags_of_a_model_become_labels(repository, start):
    repository.identity("tagged", extra='metric_tags { key: "team" value: "a\\"b" }')
    server = start().wait_ready()
    assert one(samples(server.scrape()), "nv_inference_count", _team='a"b') == 0


def test_a_scrape_needs_the_scope(repository, tmp_path, start):
    from naiad import keys

    repository.identity()
    made = {scope: keys.make_key() for scope in ("metrics", "infer", "admin")}
    rows = [keys.row(key, scopes=[scope], services=["*"]) for scope, key in made.items()]
    (tmp_path / "keys.json").write_text(json.dumps({"keys": rows}))
    server = start("--keys-file", str(tmp_path / "keys.json"))
    status = {
        name: server.send("GET", "/metrics", at=server.metrics, X_API_Key=key.reveal()).status
        for name, key in made.items()
    }
    assert status == {"metrics": 200, "infer": 403, "admin": 200}
    assert server.send("GET", "/metrics", at=server.metrics).status == 401


def test_without_metrics_there_is_no_listener(repository, start):
    assert start("--allow-metrics=false").metrics is None
