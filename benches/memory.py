"""Measures resident memory: with a thousand idle callers of each kind, and through a long mixed load."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import threading
from collections.abc import Callable
from pathlib import Path

import grpc
from tritonclient.grpc import service_pb2

from benches import measure
from benches.load import Pressure
from benches.peers import Peers
from benches.scenarios import SCENARIOS
from benches.servers import Server

IDLE = 1_000
STREAMS_A_CHANNEL = 10
SAMPLES = 60
MIX = ("identity", "grpc", "grpc-stream", "lenet", "http-1mb")
STREAM = "/inference.GRPCInferenceService/ModelStreamInfer"

MOST_BREAKS = 20
"""Times that a generator may break off during a soak."""


def idle(server: Server) -> dict[str, float | str]:
    """Resident bytes of a fresh server before and while a thousand streams and as many connections do nothing."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    before = measure.usage(server.pid)
    after = asyncio.run(_with_idle_callers(server))
    return {
        "server": server.name,
        "fresh": before.server_rss,
        "idle": after.server_rss,
        "workers": after.worker_rss,
    }


async def _with_idle_callers(server: Server) -> measure.Usage:
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(IDLE // STREAMS_A_CHANNEL):
            options = [("grpc.use_local_subchannel_pool", 1)]
            channel = await stack.enter_async_context(grpc.aio.insecure_channel(server.grpc, options=options))
            for _ in range(STREAMS_A_CHANNEL):
                stack.callback((await _open_stream(channel)).cancel)
        for _ in range(IDLE):
            stack.callback((await _open_connection(server)).close)
        return measure.usage(server.pid)


async def _open_stream(channel: grpc.aio.Channel) -> grpc.aio.StreamStreamCall:
    """A stream that has answered once, which shows that the server keeps it."""
    call = channel.stream_stream(
        STREAM,
        request_serializer=service_pb2.ModelInferRequest.SerializeToString,
        response_deserializer=service_pb2.ModelStreamInferResponse.FromString,
    )()
    request = service_pb2.ModelInferRequest(model_name="identity", raw_input_contents=[bytes(64)])
    request.inputs.add(name="INPUT0", datatype="FP32", shape=[1, 16])
    await call.write(request)
    answer = await call.read()
    if answer == grpc.aio.EOF or answer.error_message:
        raise RuntimeError(f"a stream that was to stay idle failed: {answer}")
    return call


async def _open_connection(server: Server) -> asyncio.StreamWriter:
    """A kept-alive connection that has answered once."""
    host, port = server.address.rsplit(":", 1)
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(f"GET /v2/health/live HTTP/1.1\r\nHost: {server.address}\r\n\r\n".encode())
    head = await reader.readuntil(b"\r\n\r\n")
    if b" 200 " not in head.split(b"\r\n", 1)[0]:
        raise RuntimeError(f"a connection that was to stay idle was answered with {head!r}")
    return writer


def soak(tools: Peers, server: Server, seconds: float, scratch: Path) -> dict[str, float | str]:
    """Resident bytes after a tenth of the time, at most and at the end, while five kinds of load run at once."""
    ended = threading.Event()
    failures: list[Exception] = []
    broken: list[Exception] = []

    def push(name: str) -> None:
        folder = scratch / name
        folder.mkdir()
        pressure = Pressure(connections=4, seconds=min(10.0, seconds), scratch=folder)
        while not ended.is_set():
            try:
                SCENARIOS[name].run(tools, server, pressure)
            except Exception as error:
                # perf_analyzer breaks off now and then at its end, which is no fault of the server.
                broken.append(error)
                if len(broken) > MOST_BREAKS or not server.lives():
                    failures.append(error)
                    ended.set()

    samples = _sampled(server, [lambda name=name: push(name) for name in MIX], seconds, ended)
    if failures:
        raise failures[0]
    warm = samples[len(samples) // 10]
    return {"server": server.name, "warm": warm, "most": max(samples), "end": samples[-1], "seconds": seconds}


def _sampled(server: Server, loads: list[Callable[[], None]], seconds: float, ended: threading.Event) -> list[int]:
    threads = [threading.Thread(target=load) for load in loads]
    for thread in threads:
        thread.start()
    samples = []
    for _ in range(SAMPLES):
        if ended.wait(seconds / SAMPLES):
            break
        samples.append(measure.rss_bytes(server.pid))
    ended.set()
    for thread in threads:
        thread.join()
    return samples or [measure.rss_bytes(server.pid)]
