"""Stock tritonclient.grpc.aio, unmodified, against a real server."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
import tritonclient.grpc.aio as triton
from tritonclient.utils import InferenceServerException


@pytest.fixture(scope="module")
def server(module_repository, tmp_path_factory):
    from tests.support.server import serve

    module_repository.identity("m")
    log = tmp_path_factory.mktemp("log") / "serve.log"
    with serve(module_repository.root, log) as running:
        yield running.wait_ready()


def _input(value: float) -> triton.InferInput:
    tensor = triton.InferInput("INPUT0", [1, 16], "FP32")
    tensor.set_data_from_numpy(np.full((1, 16), value, np.float32))
    return tensor


async def test_many_requests_at_once(server):
    async with triton.InferenceServerClient(server.grpc) as client:
        assert await client.is_server_ready()
        results = await asyncio.gather(*(client.infer("m", [_input(number)]) for number in range(64)))
        assert [result.as_numpy("OUTPUT0")[0, 0] for result in results] == list(range(64))
        with pytest.raises(InferenceServerException, match="Request for unknown model: 'nope' is not found"):
            await client.infer("nope", [_input(0)])


async def test_w53_w56_a_stream(server):
    async def requests():
        for number in range(20):
            yield {"model_name": "nope" if number == 5 else "m", "inputs": [_input(number)], "request_id": str(number)}

    async with triton.InferenceServerClient(server.grpc) as client:
        seen = []
        async for result, error in client.stream_infer(requests()):
            seen.append("error" if error else result.get_response().id)
    assert seen == [str(number) if number != 5 else "error" for number in range(20)]
