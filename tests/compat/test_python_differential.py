"""The same Python models under Naiad and under the real Triton: the same tensors, the same texts."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tests.compat.test_python_models import EXAMPLES
from tests.support.repository import Repository
from tests.support.server import Answer, Serve, serve
from tests.support.triton import fetch, triton

# The Triton that the benches fetch is older than parameters on responses.
SHARED = sorted({path.name for path in EXAMPLES.iterdir() if path.is_dir()} - {"logger"})
CONFIG = """backend: "python" max_batch_size: 8
input { name: "IN" data_type: TYPE_FP32 dims: [ -1 ] }
output { name: "OUT" data_type: TYPE_FP32 dims: [ -1 ] }
"""
DOES_AS_TOLD = """
def execute(self, requests):
    import json
    return eval(json.loads(requests[0].parameters())["code"])
"""
GOOD = "pb_utils.InferenceResponse([pb_utils.Tensor('OUT', requests[0].inputs()[0].as_numpy()[:, ::-1])])"
SENDER = "requests[0].get_response_sender()"
CODES = [
    f"[{GOOD}]",
    f"{SENDER}.send({GOOD}, 1)",
    "tuple(requests)",
    "[]",
    "[1]",
    "1 / 0",
    "pb_utils.Tensor('', np.zeros(1))",
    f"{SENDER}.send()",
    f"{SENDER}.send({GOOD}, 3)",
    f"{SENDER}.send(flags=1)",
    "[pb_utils.InferenceResponse(error=pb_utils.TritonError('plain'))]",
    *(f"[pb_utils.InferenceResponse(error=pb_utils.TritonError('coded', pb_utils.TritonError.{code}))]"
      for code in ("UNKNOWN", "NOT_FOUND", "INVALID_ARG", "UNAVAILABLE", "UNSUPPORTED", "ALREADY_EXISTS")),
    "[pb_utils.InferenceResponse([])]",
    "[pb_utils.InferenceResponse([pb_utils.Tensor('OUT', np.zeros((3,), np.float32))])]",
    "[pb_utils.InferenceResponse([pb_utils.Tensor('OUT', np.zeros((3, 0), np.float32))])]",
]  # fmt: skip


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Serve, Serve]]:
    fetch()
    folder = tmp_path_factory.mktemp("python")
    repository = Repository(folder / "models")
    for name in SHARED:
        shutil.copytree(EXAMPLES / name, repository.root / name)
    repository.python("m", DOES_AS_TOLD, config=CONFIG)
    options = ["--model-control-mode=explicit", *(f"--load-model={name}" for name in [*SHARED, "m"])]
    with triton(repository.root, folder / "triton.log", *options, own=True) as theirs:
        with serve(repository.root, folder / "serve.log", *options) as ours:
            yield ours.wait_ready(), theirs


def told(answer: Answer) -> tuple[int, Any]:
    """Status and document; Triton says in its texts where on the machine the model's code lies, Naiad in its log.

    Numbers of 32 bits are compared as such: the two print them with different numbers of digits.
    """
    document = answer.json
    for output in document.get("outputs", []):
        if output["datatype"] == "FP32":
            output["data"] = np.float32(output["data"]).tolist()
    if "error" in document:
        document["error"] = document["error"].partition("\n\nAt:\n")[0]
    return answer.status, document


def tensor(name: str, datatype: str, shape: list[int], data: list[Any]) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape, "data": data}


ASKED = {
    "add_sub": [tensor("INPUT0", "FP32", [4], [1, 2, 3, 4]), tensor("INPUT1", "FP32", [4], [5, 6, 7, 8])],
    "string_upper": [tensor("TEXT", "BYTES", [1, 3], ["straße", "", "x"])],
    "error_handling": [tensor("DIVIDEND", "FP64", [1, 1], [1]), tensor("DIVISOR", "FP64", [1, 1], [0])],
    "auto_complete": [tensor("ROW", "INT64", [2, 2], [1, -2, 3, 4])],
    "batch_loop": [tensor("FEATURES", "FP32", [1, 4], [1, 2, 3, 4])],
    "preprocessing": [tensor("IMAGE", "UINT8", [1, 3, 5, 3], list(range(45)))],
    "parameters": [tensor("VALUE", "FP32", [2], [1, 2])],
    "metrics": [tensor("TEXT", "BYTES", [2], ["a b c d", ""])],
}


@pytest.mark.parametrize("model", SHARED)
def test_an_example_answers_the_same(pair, model):
    ours, theirs = (told(server.post(f"/v2/models/{model}/infer", {"inputs": ASKED[model]})) for server in pair)
    assert ours == theirs


def test_the_metrics_of_a_model_are_shown_the_same(pair):
    ours, theirs = pair
    for server in pair:
        assert server.post("/v2/models/metrics/infer", {"inputs": ASKED["metrics"]}).status == 200

    def shown(server: Serve) -> list[str]:
        """The lines of its families, each family in the order of its labels: Triton's order is none."""
        return sorted(line for line in server.scrape().splitlines() if "words_" in line)

    ours.until(lambda: shown(ours) == shown(theirs), 10, f"{shown(ours)} is not {shown(theirs)}")


@pytest.mark.parametrize("code", CODES)
def test_what_execute_does_is_answered_the_same(pair, code):
    body = {"inputs": [tensor("IN", "FP32", [1, 2], [1, 2])], "parameters": {"code": code}}
    ours, theirs = (told(server.post("/v2/models/m/infer", body)) for server in pair)
    assert ours == theirs


def test_auto_complete_gives_the_same_configuration(pair):
    ours, theirs = (server.get("/v2/models/auto_complete/config").json for server in pair)
    for field in ("max_batch_size", "input", "output", "dynamic_batching", "backend", "default_model_filename"):
        assert _known(ours[field], theirs[field]) == theirs[field], field


def _known(ours: Any, theirs: Any) -> Any:
    """What both versions of the configuration know of."""
    if isinstance(ours, dict):
        return {name: _known(value, theirs[name]) for name, value in ours.items() if name in theirs}
    if isinstance(ours, list):
        return [_known(one, other) for one, other in zip(ours, theirs, strict=True)]
    return ours
