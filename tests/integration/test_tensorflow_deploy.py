"""A SavedModel becomes a service of the platform, however it is named, with real servers behind it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from tests.support.tensorflow_models import ADD_SUB, FEATURES, Models

NAIAD = [sys.executable, "-m", "naiad"]

Deploy = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def files(tensorflow_models: Models, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    shutil.copytree(tensorflow_models.path("add-sub"), folder / "bare")
    shutil.copytree(tensorflow_models.path("add-sub"), folder / "triton" / "3" / "model.savedmodel")
    shutil.copytree(tensorflow_models.path("add-sub"), folder / "serving" / "1700000000")
    shutil.copy(tensorflow_models.path("functional.keras"), folder / "scores.keras")
    return folder


@pytest.fixture(scope="module")
def deploy(files: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deploy]:
    """Deploys from below the platform's root and answers the service as JSON."""
    state = tmp_path_factory.mktemp("state") / "state"
    read_end, write_end = os.pipe()
    command = [*NAIAD, "up", "--state", str(state), "--root", str(files), "--ready-fd", str(write_end)]
    command += ["--port", "0", "--http-port", "0", "--grpc-port", "0"]
    with (state.parent / "up.log").open("wb") as log:
        process = subprocess.Popen(command, pass_fds=[write_end], stdout=log, stderr=log)
    os.close(write_end)
    with os.fdopen(read_end) as ready:
        assert ready.readline(), (state.parent / "up.log").read_text()

    def run(*words: str) -> dict[str, Any]:
        done = subprocess.run(
            [*NAIAD, "deploy", *words, "--state", str(state), "-o", "json"],
            capture_output=True, text=True, check=False, timeout=110,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        document: dict[str, Any] = json.loads(done.stdout)
        return document

    try:
        yield run
    finally:
        process.terminate()
        process.wait(60)


def infer(service: dict[str, Any], inputs: dict[str, np.ndarray]) -> dict[str, Any]:
    url = service["status"]["access"]["infer"]
    tensors = [
        {"name": name, "shape": list(array.shape), "datatype": "FP32", "data": array.ravel().tolist()}
        for name, array in inputs.items()
    ]
    answer = httpx.post(
        url, json={"inputs": tensors}, headers={"X-API-Key": service["key"]}, timeout=60, trust_env=False
    )
    assert answer.status_code == 200, answer.text
    return {output["name"]: output["data"] for output in answer.json()["outputs"]}


@pytest.mark.parametrize(
    "path",
    ["bare", "bare/saved_model.pb", "triton", "triton/3/model.savedmodel", "serving"],
)
def test_a_saved_model_is_deployed(deploy, files, path):
    service = deploy(str(files / path), "--name", path.replace("/", "-").replace(".", "-").replace("_", "-").lower())
    got = infer(service, ADD_SUB)
    assert got["sum"] == (ADD_SUB["a"] + ADD_SUB["b"]).ravel().tolist()


def test_a_keras_archive_is_deployed(deploy, files, tensorflow_models):
    service = deploy(str(files / "scores.keras"))
    assert service["name"] == "scores"
    expected = tensorflow_models.answer("functional.keras")["output_0"]
    np.testing.assert_allclose(infer(service, FEATURES)["output_0"], expected.ravel(), rtol=1e-5)
