"""Compression as stock tritonclient asks for it, both ways (W35, W36, W37)."""

from __future__ import annotations

import numpy as np
import pytest
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio

ALGORITHMS = ["gzip", "deflate"]
ARRAY = np.arange(32, dtype=np.float32).reshape(2, 16)


@pytest.fixture(scope="module")
def server(module_repository, tmp_path_factory):
    from tests.support.server import serve

    module_repository.identity("m")
    module_repository.identity("wide", dims="-1")
    log = tmp_path_factory.mktemp("log") / "serve.log"
    with serve(module_repository.root, log) as running:
        yield running.wait_ready()


def _input(module, array: np.ndarray, *, binary: bool):
    tensor = module.InferInput("INPUT0", list(array.shape), "FP32")
    tensor.set_data_from_numpy(array, binary_data=binary)
    return tensor


@pytest.mark.parametrize("binary_out", [True, False])
@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("back", [*ALGORITHMS, None])
@pytest.mark.parametrize("there", [*ALGORITHMS, None])
def test_w35_w36_w37_every_combination(server, there, back, binary_in, binary_out):
    with triton.InferenceServerClient(server.address) as client:
        result = client.infer(
            "m",
            [_input(triton, ARRAY, binary=binary_in)],
            outputs=[triton.InferRequestedOutput("OUTPUT0", binary_data=binary_out)],
            request_compression_algorithm=there,
            response_compression_algorithm=back,
        )
    np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), ARRAY)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_w36_large_tensors(server, algorithm):
    array = np.random.default_rng(7).normal(size=(2, 500_000)).astype(np.float32)
    with triton.InferenceServerClient(server.address) as client:
        result = client.infer(
            "wide",
            [_input(triton, array, binary=True)],
            request_compression_algorithm=algorithm,
            response_compression_algorithm=algorithm,
        )
    np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), array)


async def test_w35_w37_aio(server):
    async with triton_aio.InferenceServerClient(server.address) as client:
        for algorithm in ALGORITHMS:
            for binary in (True, False):
                result = await client.infer(
                    "m",
                    [_input(triton_aio, ARRAY, binary=binary)],
                    outputs=[triton_aio.InferRequestedOutput("OUTPUT0", binary_data=binary)],
                    request_compression_algorithm=algorithm,
                    response_compression_algorithm=algorithm,
                )
                np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), ARRAY)
