"""NVIDIA's perf_analyzer, unmodified, finishes with a report against a real server."""

from __future__ import annotations

import csv

import pytest

from tests.support.perf_analyzer import measure, perf_analyzer
from tests.support.repository import Repository
from tests.support.server import serve

SHARED = ("--shared-memory=system", "--output-shared-memory-size=64")
JSON = ("--input-tensor-format=json", "--output-tensor-format=json")
RUNS = {
    "http": ("--concurrency-range=2",),
    "http-json": ("--concurrency-range=2", *JSON),
    "http-rate": ("--request-rate-range=200",),
    "http-json-rate": ("--request-rate-range=200", *JSON),
    "http-batch": ("--concurrency-range=1", "-b", "4"),
    "http-shared-memory": ("--concurrency-range=2", *SHARED),
    "http-shared-memory-batch": ("--concurrency-range=2", "-b", "4", *SHARED),
    "grpc": ("-i", "grpc", "--concurrency-range=2"),
    "grpc-rate": ("-i", "grpc", "--request-rate-range=200"),
    "grpc-stream": ("-i", "grpc", "--streaming", "--concurrency-range=2"),
    "grpc-stream-rate": ("-i", "grpc", "--streaming", "--request-rate-range=200"),
    "grpc-shared-memory": ("-i", "grpc", "--concurrency-range=2", *SHARED),
    "grpc-stream-shared-memory": ("-i", "grpc", "--streaming", "--concurrency-range=2", *SHARED),
}


@pytest.fixture(scope="module", autouse=True)
def _program() -> None:
    perf_analyzer()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("perf")
    repository = Repository(folder / "models")
    repository.identity("m", dims="4")
    with serve(repository.root, folder / "serve.log", "--allow-client-shm=true") as running:
        yield running.wait_ready()


@pytest.mark.parametrize("run", RUNS)
def test_a_report(server, tmp_path, run):
    """W63, W64: it reads the configuration and the statistics, and gives up where a key of them is missing."""
    report = tmp_path / "report.csv"
    address = server.grpc if "grpc" in RUNS[run] else server.address
    printed = measure("m", address, report, *RUNS[run])
    assert "Server:" in printed and "Unable to" not in printed, printed
    with report.open() as lines:
        (row,) = csv.DictReader(lines)
    assert float(row["Inferences/Second"]) > 0
    assert float(row["Server Compute Infer"]) >= 0


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_a_report_with_the_servers_metrics(wire, tmp_path, protocol):
    """It scrapes while it measures; the columns of GPUs are there, and empty where there is none."""
    report = tmp_path / "report.csv"
    address = wire.grpc if protocol == "grpc" else wire.address
    scrape = ("--collect-metrics", "--verbose-csv", f"--metrics-url={wire.metrics}/metrics", "--metrics-interval=50")
    printed = measure("m", address, report, "-i", protocol, *scrape)
    assert "Server Prometheus Metrics:" in printed, printed
    with report.open() as lines:
        (row,) = csv.DictReader(lines)
    assert float(row["Inferences/Second"]) > 0
    assert {"Avg GPU Utilization", "Avg GPU Power Usage", "Max GPU Memory Usage", "Total GPU Memory"} <= set(row)
