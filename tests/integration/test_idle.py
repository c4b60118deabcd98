"""Clients that are there and ask nothing cost little: a thousand streams and a thousand connections."""

from __future__ import annotations

import asyncio
import contextlib
import socket

import grpc
import numpy as np
from tritonclient.grpc import service_pb2, service_pb2_grpc

from tests.integration.test_memory import _rss

CLIENTS, PER_CONNECTION, LIMIT = 1000, 50, 100_000_000


def _request() -> service_pb2.ModelInferRequest:
    request = service_pb2.ModelInferRequest(model_name="m")
    request.inputs.add(name="INPUT0", datatype="FP32", shape=[1, 16])
    request.raw_input_contents.append(np.zeros((1, 16), np.float32).tobytes())
    return request


async def _idle_streams(address: str, stack: contextlib.AsyncExitStack) -> None:
    """Opens streams that each had one answer."""
    calls = []
    for number in range(CLIENTS // PER_CONNECTION):
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.client_id", number)]
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(address, options=options))
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        calls += [stub.ModelStreamInfer() for _ in range(PER_CONNECTION)]

    async def ask(call) -> None:
        await call.write(_request())
        assert not (await call.read()).error_message

    await asyncio.gather(*(ask(call) for call in calls))
    stack.callback(lambda: [call.cancel() for call in calls])


async def test_a_thousand_idle_streams_and_connections(repository, start, capsys):
    repository.identity("m")
    server = start().wait_ready()
    server.infer("m", [0.0] * 16)
    before = _rss(server.pid)
    async with contextlib.AsyncExitStack() as stack:
        await _idle_streams(server.grpc, stack)
        host, _, port = server.address.rpartition(":")
        for _ in range(CLIENTS):
            connection = stack.enter_context(socket.create_connection((host, int(port)), timeout=20))
            connection.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert b"200 OK" in connection.recv(4096)
        cost = _rss(server.pid) - before
    with capsys.disabled():
        print(f"\n{CLIENTS} idle streams and {CLIENTS} idle connections: {cost / 1e6:.1f} MB")
    assert cost < LIMIT
