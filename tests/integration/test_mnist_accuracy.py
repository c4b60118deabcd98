"""The example's model names at least 97 % of the digits it never saw, through the server."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import httpx
import numpy as np
import pytest

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "mnist"
ROWS_A_REQUEST = 20

pytestmark = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="needs torch; install: make build")


def example_digits() -> ModuleType:
    spec = importlib.util.spec_from_file_location("digits", EXAMPLE / "digits.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    ready, descriptor = os.pipe()
    command = [sys.executable, "-m", "naiad", "serve", "--model-repository", str(EXAMPLE / "model-repo")]
    command += [
        "--model-control-mode",
        "explicit",
        "--http-port",
        "0",
        "--grpc-port",
        "0",
        "--metrics-port",
        "0",
        "--ready-fd",
        str(descriptor),
    ]
    server = subprocess.Popen(command, pass_fds=[descriptor])
    os.close(descriptor)
    try:
        with os.fdopen(ready) as lines:
            line = lines.readline()
        assert line, f"the server exited with {server.wait()} before it was ready"
        with httpx.Client(base_url=f"http://{json.loads(line)['http']}", timeout=60) as http:
            http.post("/v2/repository/models/mnist-cnn/load").raise_for_status()
            yield http
    finally:
        server.terminate()
        assert server.wait(30) == 0


def test_at_least_97_percent_of_the_kept_digits_are_right(client: httpx.Client) -> None:
    _, (images, labels) = example_digits().split()
    assert len(labels) == 1000
    right = 0
    for start in range(0, len(labels), ROWS_A_REQUEST):
        rows = images[start : start + ROWS_A_REQUEST]
        tensor = {"name": "model_input", "shape": list(rows.shape), "datatype": "FP32", "data": rows.ravel().tolist()}
        answer = client.post("/v2/models/mnist-cnn/infer", json={"inputs": [tensor]})
        assert answer.status_code == 200, answer.text
        output = answer.json()["outputs"][0]
        assert output["shape"] == [len(rows), 10]
        scores = np.reshape(output["data"], output["shape"])
        right += int((scores.argmax(1) == labels[start : start + ROWS_A_REQUEST]).sum())
    assert right >= 970


def test_the_request_of_the_example_is_a_digit_that_training_never_saw(client: httpx.Client) -> None:
    body = (EXAMPLE / "request.json").read_bytes()
    (tensor,) = json.loads(body)["inputs"]
    assert (tensor["name"], tensor["shape"], tensor["datatype"]) == ("model_input", [1, 1, 32, 32], "FP32")
    assert [len(row) for row in tensor["data"]] == [1024]

    _, (images, labels) = example_digits().split()
    sent = np.asarray(tensor["data"][0], np.float32)
    distances = np.abs(images.reshape(len(images), -1) - sent).max(axis=1)
    assert distances.min() < 1e-4
    assert labels[distances.argmin()] == 7

    answer = client.post("/v2/models/mnist-cnn/infer", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 200, answer.text
    assert int(np.argmax(answer.json()["outputs"][0]["data"])) == 7
