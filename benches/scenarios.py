"""The scenarios: which model, which load, which servers beside each other, and the bars that the ratios are held to."""

from __future__ import annotations

import json
import random
import statistics
import threading
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, replace

from benches import load, models
from benches.load import Load, Pressure
from benches.peers import Peers
from benches.servers import Server

FLOATS = 150_000
MEGABYTE = 1 << 18
"""FP32 elements in a megabyte."""
LONG = 4.5
"""Seconds that requests of many milliseconds get at least."""
LOOK_AGAIN = 0.95
"""What watches and guards may cost 5 %."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bars:
    """What the ratios must reach: p50 at one connection, throughput at more."""

    p50: float | None = None
    throughput: float | None = None
    efficiency: float | None = None
    """Requests per CPU second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One row of the table at each number of connections."""

    about: str
    model: str
    run: Callable[[Peers, Server, Pressure], Load]
    connections: tuple[int, ...]
    bars: Bars
    servers: tuple[str, ...] = ("triton", "naiad")
    """The first is the one that the others are compared with."""


def _perf(model: str, *options: str) -> Callable[[Peers, Server, Pressure], Load]:
    def run(tools: Peers, server: Server, pressure: Pressure) -> Load:
        return load.perf(tools, server, model, pressure, *options)

    return run


def _lenet(_tools: Peers, server: Server, pressure: Pressure) -> Load:
    return load.wrk(server, "lenet", pressure, models.REQUEST)


def floats_body() -> bytes:
    """A JSON request of `FLOATS` floats, the same in every run."""
    draw = random.Random(7)
    data = [round(draw.uniform(-4, 4), 6) for _ in range(FLOATS)]
    return json.dumps({"inputs": [{"name": "INPUT0", "shape": [FLOATS], "datatype": "FP32", "data": data}]}).encode()


def _floats(_tools: Peers, server: Server, pressure: Pressure) -> Load:
    body = pressure.scratch / "floats.json"
    body.write_bytes(floats_body())
    return load.wrk(server, "wide", pressure, body)


def _scraped(tools: Peers, server: Server, pressure: Pressure) -> Load:
    """The load alone, then with a scrape a second beside it."""
    alone = load.perf(tools, server, "identity", pressure)
    took: list[float] = []
    sizes: list[int] = []
    ended = threading.Event()

    def scrape() -> None:
        while True:
            start = time.perf_counter()
            with urllib.request.urlopen(f"http://{server.metrics}/metrics", timeout=10) as answer:
                sizes.append(len(answer.read()))
            took.append(time.perf_counter() - start)
            if ended.wait(1.0):
                return

    scraper = threading.Thread(target=scrape)
    scraper.start()
    try:
        seen = load.perf(tools, server, "identity", pressure)
    finally:
        ended.set()
        scraper.join()
    if not took:
        raise RuntimeError(f"{server.name} answered no scrape: the run is void")
    return Load(
        throughput=seen.throughput,
        p50_us=seen.p50_us,
        p99_us=seen.p99_us,
        generator_cpu=alone.generator_cpu + seen.generator_cpu,
        notes={
            "scrape_ms": statistics.median(took) * 1000,
            "scrape_bytes": sizes[-1],
            "with_scrapes": seen.throughput / max(alone.throughput, 1e-9),
        },
    )


SMALL = Bars(p50=0.6, throughput=3.0, efficiency=6.0)
NO_BARS = Bars()


def _tensor(megabytes: int, *options: str) -> Callable[[Peers, Server, Pressure], Load]:
    """Tensors of that size, for long enough that each window holds several."""
    run = _perf("wide", "--shape", f"INPUT0:{megabytes * MEGABYTE}", *options)
    least = LONG if megabytes > 1 else 0.0

    def measured(tools: Peers, server: Server, pressure: Pressure) -> Load:
        return run(tools, server, replace(pressure, seconds=max(pressure.seconds, least)))

    return measured


SCENARIOS: dict[str, Scenario] = {
    "identity": Scenario(
        about="FP32[16], HTTP, binary; perf_analyzer",
        model="identity",
        run=_perf("identity"),
        connections=(1, 8, 32, 128),
        bars=SMALL,
    ),
    "lenet": Scenario(
        about="the JSON of the worked example, HTTP; wrk",
        model="lenet",
        run=_lenet,
        connections=(1, 8, 32, 128),
        bars=Bars(p50=0.6, throughput=2.0, efficiency=6.0),
    ),
    "grpc": Scenario(
        about="FP32[16], a gRPC call each; perf_analyzer",
        model="identity",
        run=_perf("identity", "-i", "grpc"),
        connections=(1, 8, 32),
        bars=SMALL,
    ),
    "grpc-stream": Scenario(
        about="FP32[16], gRPC streams; perf_analyzer --streaming",
        model="identity",
        run=_perf("identity", "-i", "grpc", "--streaming"),
        connections=(1, 8, 32),
        bars=Bars(p50=0.6, throughput=2.0, efficiency=6.0),
    ),
    "http-1mb": Scenario(
        about="FP32[262144], HTTP, binary; perf_analyzer",
        model="wide",
        run=_tensor(1),
        connections=(1, 8),
        bars=Bars(throughput=2.0),
    ),
    "grpc-1mb": Scenario(
        about="FP32[262144], gRPC; perf_analyzer",
        model="wide",
        run=_tensor(1, "-i", "grpc"),
        connections=(1, 8),
        bars=Bars(throughput=2.0),
    ),
    "http-16mb": Scenario(
        about="FP32[4194304], HTTP, binary; perf_analyzer",
        model="wide",
        run=_tensor(16),
        connections=(4,),
        bars=NO_BARS,
    ),
    "grpc-16mb": Scenario(
        about="FP32[4194304], gRPC; perf_analyzer",
        model="wide",
        run=_tensor(16, "-i", "grpc"),
        connections=(4,),
        bars=NO_BARS,
    ),
    "json-150k": Scenario(
        about="150,000 floats as JSON, there and back, HTTP; wrk",
        model="wide",
        run=_floats,
        connections=(1, 8),
        bars=Bars(throughput=5.0),
    ),
    "keep-alive": Scenario(
        about="FP32[16], HTTP, binary, on 512 connections; perf_analyzer",
        model="identity",
        run=_perf("identity"),
        connections=(512,),
        bars=Bars(throughput=3.0, efficiency=6.0),
    ),
    "scrape": Scenario(
        about="identity, alone and then with a scrape of the metrics each second",
        model="identity",
        run=_scraped,
        connections=(32,),
        bars=NO_BARS,
    ),
    "observability": Scenario(
        about="identity on Naiad alone: with what watches and guards it, against none of it",
        model="identity",
        run=_perf("identity"),
        connections=(1, 32),
        bars=Bars(throughput=LOOK_AGAIN),
        servers=("plain", "observed", "logged"),
    ),
}
