"""A real sentence encoder, traced: token ids of any number and length, against torch called directly."""

from __future__ import annotations

import numpy as np
import pytest
from tritonclient import grpc, http

from tests.support import real_models

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'naiad[torch]'")
from tests.support import minilm  # noqa: E402 (it needs torch, too)

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.*")
SENTENCES = ["the cat sleeps on the sofa", "a kitten is lying on the couch", "the market fell by three percent today"]


@pytest.fixture
def served(repository, start):
    weights = real_models.path("minilm.safetensors")
    model = minilm.load(weights)
    example = torch.ones(2, 7, dtype=torch.int64)
    repository.torchscript("minilm", model, example, example)
    return start().wait_ready(), model, minilm.tokens(weights.with_name("vocab.txt"), SENTENCES)


@pytest.mark.timeout(240)
def test_sentences_of_any_length_get_torchs_own_vectors(served):
    server, model, (ids, mask) = served
    config = server.get("/v2/models/minilm/config").json
    assert [(t["name"], t["dims"]) for t in config["input"]] == [("input_ids", [-1]), ("attention_mask", [-1])]
    assert config["max_batch_size"] == 32
    for module, address in ((http, server.address), (grpc, server.grpc)):
        with module.InferenceServerClient(address) as client:
            for rows in (slice(0, 3), slice(0, 1)):
                given = []
                for name, array in (("input_ids", ids[rows]), ("attention_mask", mask[rows])):
                    given.append(module.InferInput(name, list(array.shape), "INT64"))
                    given[-1].set_data_from_numpy(np.ascontiguousarray(array))
                got = client.infer("minilm", given).as_numpy("OUTPUT__0")
                with torch.inference_mode():
                    expected = model(torch.from_numpy(ids[rows]), torch.from_numpy(mask[rows])).numpy()
                np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)
                vectors = got
        assert vectors.shape == (1, 384)
    with torch.inference_mode():
        alike = (model(torch.from_numpy(ids), torch.from_numpy(mask)).numpy() @ expected.T)[:, 0]
    assert alike[1] > 0.5 > alike[2], "the weights are not where they belong: alike sentences have unlike vectors"
