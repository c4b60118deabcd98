"""Every model of examples/python-models through the stock clients."""

from __future__ import annotations

import importlib
import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.server import Serve, serve

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "python-models"
DATATYPES = {
    "float32": "FP32", "float64": "FP64", "int32": "INT32", "int64": "INT64", "uint8": "UINT8", "object": "BYTES",
}  # fmt: skip


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    with serve(EXAMPLES, tmp_path_factory.mktemp("examples") / "serve.log") as running:
        yield running.wait_ready()


class Stock:
    """One of the two stock clients, asked in the same way."""

    def __init__(self, kind: str, server: Serve) -> None:
        self.kind = kind
        self.module = importlib.import_module(f"tritonclient.{kind}")
        self.client = self.module.InferenceServerClient(server.grpc if kind == "grpc" else server.address)

    def infer(self, model: str, arrays: dict[str, np.ndarray], **options: Any) -> Any:
        inputs = []
        for name, array in arrays.items():
            tensor = self.module.InferInput(name, list(array.shape), DATATYPES[array.dtype.name])
            tensor.set_data_from_numpy(array)
            inputs.append(tensor)
        return self.client.infer(model, inputs, **options)

    def parameters(self, result: Any) -> dict[str, Any]:
        """The parameters of a response as plain values."""
        response = result.get_response()
        if self.kind == "http":
            return dict(response.get("parameters", {}))
        return {
            name: getattr(value, value.WhichOneof("parameter_choice")) for name, value in response.parameters.items()
        }

    def refused(self, model: str, arrays: dict[str, np.ndarray]) -> tuple[str, str]:
        """Status and text of a refusal."""
        from tritonclient.utils import InferenceServerException

        with pytest.raises(InferenceServerException) as caught:
            self.infer(model, arrays)
        return caught.value.status(), caught.value.message()


@pytest.fixture(params=["http", "grpc"])
def stock(request: pytest.FixtureRequest, models: Serve) -> Iterator[Stock]:
    made = Stock(request.param, models)
    yield made
    made.client.close()


def row(*values: float, dtype: str = "float32") -> np.ndarray:
    return np.array([values], dtype=dtype)


def test_add_sub(stock):
    first, second = np.arange(4, dtype=np.float32), np.full(4, 2, dtype=np.float32)
    result = stock.infer("add_sub", {"INPUT0": first, "INPUT1": second})
    np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), first + second)
    np.testing.assert_array_equal(result.as_numpy("OUTPUT1"), first - second)


def test_add_sub_gives_only_what_is_asked_for(stock):
    wanted = [stock.module.InferRequestedOutput("OUTPUT1")]
    ones = np.ones(4, dtype=np.float32)
    result = stock.infer("add_sub", {"INPUT0": ones, "INPUT1": ones}, outputs=wanted)
    assert result.as_numpy("OUTPUT0") is None
    assert result.as_numpy("OUTPUT1").tolist() == [0, 0, 0, 0]


def test_string_upper(stock):
    texts = np.array([["straße", "tea", ""], ["x", "été", "日本"]], dtype=object)
    result = stock.infer("string_upper", {"TEXT": texts})
    upper = [[element.decode() for element in line] for line in result.as_numpy("UPPER")]
    assert upper == [["STRASSE", "TEA", ""], ["X", "ÉTÉ", "日本"]]
    assert result.as_numpy("LENGTH").tolist() == [[6, 3, 0], [1, 3, 2]]


def test_error_handling(stock):
    good = stock.infer("error_handling", {"DIVIDEND": row(6, dtype="float64"), "DIVISOR": row(4, dtype="float64")})
    assert good.as_numpy("QUOTIENT").tolist() == [[1.5]]
    zero = {"DIVIDEND": row(6, dtype="float64"), "DIVISOR": row(0, dtype="float64")}
    codes = {"http": ("400", "500"), "grpc": ("StatusCode.INVALID_ARGUMENT", "StatusCode.INTERNAL")}[stock.kind]
    assert stock.refused("error_handling", zero) == (codes[0], "DIVISOR must not be zero")
    endless = {"DIVIDEND": row(float("inf"), dtype="float64"), "DIVISOR": row(1, dtype="float64")}
    assert stock.refused("error_handling", endless) == (codes[1], "DIVIDEND is not finite")


def test_auto_complete(stock, models):
    result = stock.infer("auto_complete", {"ROW": row(1, -2, 3, dtype="int64")})
    assert result.as_numpy("SCALED").tolist() == [[3, -6, 9]]
    config = models.get("/v2/models/auto_complete/config").json
    assert (config["max_batch_size"], config["backend"]) == (16, "python")
    assert config["dynamic_batching"]["preferred_batch_size"] == [16]
    assert [(tensor["name"], tensor["data_type"], tensor["dims"]) for tensor in config["input"]] == [
        ("ROW", "TYPE_INT64", [-1])
    ]


def test_batch_loop(models):
    """Requests of one and two rows that wait for each other: each gets its own rows back."""
    weights = np.arange(12, dtype=np.float32).reshape(4, 3)
    batches = [np.full((1 + number % 2, 4), number, dtype=np.float32) for number in range(12)]

    def ask(batch: np.ndarray) -> Any:
        stock = Stock("http", models)
        try:
            return stock.infer("batch_loop", {"FEATURES": batch})
        finally:
            stock.client.close()

    with ThreadPoolExecutor(6) as pool:
        results = list(pool.map(ask, batches))
    for batch, result in zip(batches, results, strict=True):
        np.testing.assert_array_equal(result.as_numpy("SCORES"), batch @ weights)
    shared = [int(result.as_numpy("SHARED_WITH")[0, 0]) for result in results]
    assert max(shared) > 1, "no two requests met in one list"


def test_batch_loop_over_grpc(models):
    stock = Stock("grpc", models)
    batch = np.ones((2, 4), dtype=np.float32)
    assert stock.infer("batch_loop", {"FEATURES": batch}).as_numpy("SCORES").tolist() == [[18, 22, 26]] * 2
    stock.client.close()


def test_preprocessing(stock):
    image = np.zeros((2, 48, 64, 3), dtype=np.uint8)
    image[..., 0] = 255
    image[1, :, 32:, 1] = 255
    tensor = stock.infer("preprocessing", {"IMAGE": image}).as_numpy("TENSOR")
    assert (tensor.shape, tensor.dtype) == ((2, 3, 32, 32), np.float32)
    np.testing.assert_allclose(tensor[:, 0], (1 - 0.485) / 0.229, rtol=1e-5)
    np.testing.assert_allclose(tensor[0, 1], -0.456 / 0.224, rtol=1e-5)
    np.testing.assert_allclose(tensor[1, 1, :, 20:], (1 - 0.456) / 0.224, rtol=1e-5)


def test_parameters(stock):
    value = np.array([0.26, 1], dtype=np.float32)
    plain = stock.infer("parameters", {"VALUE": value})
    np.testing.assert_allclose(plain.as_numpy("RESULT"), [2.6, 10], rtol=1e-6)
    said = stock.infer("parameters", {"VALUE": value}, parameters={"offset": 5, "round": True}, request_id="r")
    assert said.as_numpy("RESULT").tolist() == [8, 15]


def test_logger(stock, models):
    result = stock.infer("logger", {"INPUT": np.array([4, 5], dtype=np.int32)})
    assert result.as_numpy("TOTAL").tolist() == [9]
    said = stock.parameters(result)
    assert (said["empty"], said["by"]) == (False, "logger")
    assert said["answered"] >= 1
    stock.infer("logger", {"INPUT": np.array([], dtype=np.int32)}, request_id=f"none over {stock.kind}")
    line = f"request 'none over {stock.kind}' has no elements"
    models.until(lambda: any(line in r["message"] for r in models.records()), 10, "the model's warning is not logged")
    (said_once, *_) = [record for record in models.records() if line in record["message"]]
    assert said_once["level"] == "warning"
    assert said_once["message"].startswith("model.py:")
    assert said_once["model"] == "logger"


def test_metrics(stock, models):
    def seen() -> dict[tuple[str, str, str], float]:
        return {
            (sample.name, sample.labels.get("kind", ""), sample.labels.get("le", "")): sample.value
            for family in text_string_to_metric_families(models.scrape())
            for sample in family.samples
            if family.name.startswith("words")
        }

    before = models.until(seen, 10, "the metrics of the model are not shown")
    counts = stock.infer("metrics", {"TEXT": np.array(["a long text of words", "two words"], dtype=object)})
    assert counts.as_numpy("WORDS").tolist() == [5, 2]

    def grown() -> dict[tuple[str, str, str], float]:
        return {key: value - before[key] for key, value in seen().items() if value != before[key]}

    models.until(lambda: ("words_total", "long", "") in grown(), 10, "the metrics do not show the request")
    assert grown() == {
        ("words_total", "long", ""): 5, ("words_total", "short", ""): 2,
        ("words_per_text_bucket", "", "5"): 2, ("words_per_text_bucket", "", "10"): 2,
        ("words_per_text_bucket", "", "2"): 1, ("words_per_text_bucket", "", "+Inf"): 2,
        ("words_per_text_sum", "", ""): 7, ("words_per_text_count", "", ""): 2,
    } | ({} if before["words_last", "", ""] == 2 else {("words_last", "", ""): 2})  # fmt: skip


def test_every_example_is_tested_and_told_of():
    folders = {path.name for path in EXAMPLES.iterdir() if path.is_dir()}
    told = (EXAMPLES / "README.md").read_text()
    tests = Path(__file__).read_text()
    assert len(folders) == 9
    for name in folders:
        assert f"| [{name}]({name}/1/model.py) |" in told
        assert f"def test_{name}(" in tests


def test_the_requests_of_the_readme_are_answered(models):
    """As they are written, by curl, at the address of this server."""
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("curl is not installed: apt-get install curl")
    (block,) = re.findall(r"```sh\n(.*?)```", (EXAMPLES / "README.md").read_text("utf-8"), re.DOTALL)
    answers = {}
    for line in re.findall(r"^curl .*?'$", block, re.DOTALL | re.MULTILINE):
        command = [curl, *shlex.split(line.replace("localhost:8000", models.address))[1:]]
        ended = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
        answers[line.partition("/v2/models/")[2].partition("/")[0]] = json.loads(ended.stdout)
    assert set(answers) == {path.name for path in EXAMPLES.iterdir() if path.is_dir()}
    assert answers.pop("error_handling") == {"error": "DIVISOR must not be zero"}
    assert {name for name, answer in answers.items() if "outputs" not in answer} == set(), answers
    assert answers["parameters"]["outputs"][0]["data"] == [32.0]
