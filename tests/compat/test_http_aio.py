"""Stock tritonclient.http.aio, unmodified, against a real server."""

from __future__ import annotations

import numpy as np
import pytest
import tritonclient.http.aio as triton
from tritonclient.utils import InferenceServerException


@pytest.fixture(scope="module")
def server(module_repository, tmp_path_factory):
    from tests.support.server import serve

    module_repository.identity("m")
    log = tmp_path_factory.mktemp("log") / "serve.log"
    with serve(module_repository.root, log, "--model-control-mode=explicit", "--load-model=m") as running:
        yield running.wait_ready()


async def test_every_method_of_the_first_path(server):
    async with triton.InferenceServerClient(server.address) as client:
        assert await client.is_server_live()
        assert await client.is_server_ready()
        assert await client.is_model_ready("m")
        assert (await client.get_server_metadata())["name"] == "naiad"
        assert (await client.get_model_metadata("m"))["platform"] == "identity"
        assert (await client.get_model_config("m"))["backend"] == "identity"
        array = np.arange(32, dtype=np.float32).reshape(2, 16)
        for binary in (True, False):
            tensor = triton.InferInput("INPUT0", [2, 16], "FP32")
            tensor.set_data_from_numpy(array, binary_data=binary)
            output = triton.InferRequestedOutput("OUTPUT0", binary_data=binary)
            result = await client.infer("m", [tensor], outputs=[output])
            np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), array)
        assert (await client.get_inference_statistics("m"))["model_stats"][0]["inference_count"] == 4
        await client.unload_model("m")
        assert not await client.is_model_ready("m")
        await client.load_model("m")
        assert (await client.get_model_repository_index())[0]["state"] == "READY"
        with pytest.raises(InferenceServerException, match="is not found"):
            await client.get_model_metadata("nope")
