"""How many threads a worker really has: read from its process after work that is large enough to use them."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from tritonclient.http import InferenceServerClient, InferInput

from naiad.server import threads
from tests.support import onnx_models
from tests.support.server import Serve

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.*")
SIZE = 1 << 20
"""Elements: frameworks split operations of more than some 32,000."""
ALONE = 2
"""The thread that serves and the one that watches the control channel."""


def parameter(name: str, value: str) -> str:
    return f'parameters {{ key: "{name}" value {{ string_value: "{value}" }} }}\n'


def saved(repository, torch, name: str, text: str) -> None:
    class Wide(torch.nn.Module):
        def forward(self, x):
            return torch.sigmoid(x).sum(1)

    repository.torchscript(name, Wide(), torch.zeros(1, SIZE))
    head = f"""max_batch_size: 4
        input {{ name: "x" data_type: TYPE_FP32 dims: [ {SIZE} ] }}
        output {{ name: "OUTPUT__0" data_type: TYPE_FP32 dims: [ ] }}\n"""
    (repository.root / name / "config.pbtxt").write_text(head + text)


def threads_of(server: Serve, name: str) -> list[int]:
    """Threads of each of a model's workers after an answer."""
    given = InferInput("x", [1, SIZE], "FP32")
    given.set_data_from_numpy(np.zeros((1, SIZE), np.float32))
    with InferenceServerClient(server.address) as client:
        answer = client.infer(name, [given]).as_numpy("OUTPUT__0").reshape(-1)
    np.testing.assert_allclose(answer, [SIZE / 2], rtol=1e-5)
    pids = [r["pid"] for r in server.records() if r["message"] == "worker ready" and r["model"] == name]
    return [len(os.listdir(Path(f"/proc/{pid}/task"))) for pid in pids]


def test_configured_threads_reach_the_workers(repository, start, torch):
    saved(repository, torch, "plain", "")
    saved(repository, torch, "two", parameter("INTRA_OP_THREAD_COUNT", "2"))
    saved(repository, torch, "three", parameter("naiad.threads", "3"))
    saved(repository, torch, "shared", parameter("naiad.threads", "auto"))
    saved(repository, torch, "wrong", parameter("naiad.threads", "many"))
    server = start("--strict-readiness=false").wait_settled("plain", "two", "three", "shared", "wrong")
    assert threads_of(server, "plain") == [ALONE]
    assert threads_of(server, "two") == [ALONE + 1]
    assert threads_of(server, "three") == [ALONE + 2]
    assert threads_of(server, "shared") == [ALONE + threads.share(1) - 1]
    assert server.index()["wrong"]["reason"] == (
        "configuration: config.pbtxt: parameters 'naiad.threads': expected auto or 1 to 1024, "
        "got 'many' (CONFIG_INVALID)"
    )


def test_the_option_counts_where_a_model_says_nothing(repository, start, torch):
    saved(repository, torch, "plain", "")
    server = start("--model-threads=2").wait_ready()
    assert threads_of(server, "plain") == [ALONE + 1]


def test_the_option_of_the_onnx_backend_counts_where_a_model_says_nothing(repository, start):
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install 'naiad[onnx]'")
    onnx = pytest.importorskip("onnx", reason=onnx_models.REASON)
    axes = onnx.helper.make_tensor("axes", onnx.TensorProto.INT64, [1], [1])
    wide = onnx_models.model(
        [onnx_models.node("Sigmoid", "x", "s"), onnx_models.node("ReduceSum", "s axes", "OUTPUT__0", keepdims=0)],
        [onnx_models.value("x", shape=("N", SIZE))],
        [onnx_models.value("OUTPUT__0", shape=("N",))],
        initializer=[axes],
    )
    own = parameter("intra_op_thread_count", "2")
    beside = parameter("execution_mode", "1")
    texts = {
        "plain": "",
        "own": own,
        "beside": own + beside,
        "both": own + beside + parameter("inter_op_thread_count", "2"),
    }
    for name, text in texts.items():
        onnx_models.save(wide, repository.root / name / "1/model.onnx")
        (repository.root / name / "config.pbtxt").write_text(text)
    option = "--backend-config=onnxruntime,"
    server = start(f"{option}intra_op_thread_count=4", f"{option}inter_op_thread_count=3").wait_ready()
    assert threads_of(server, "plain") == [ALONE + 3]
    assert threads_of(server, "own") == [ALONE + 1]
    between = threads_of(server, "beside")[0] - threads_of(server, "both")[0]
    assert between == 1  # three of the option's against two of the model's
