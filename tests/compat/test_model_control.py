"""Repository control through stock tritonclient (W66 to W71)."""

from __future__ import annotations

import json

import numpy as np
import pytest
from tritonclient import http
from tritonclient.utils import InferenceServerException

TENSOR = {"data_type": "TYPE_FP32", "dims": [16]}


def config(**more: object) -> str:
    tensors = {"input": [{"name": "INPUT0", **TENSOR}], "output": [{"name": "OUTPUT0", **TENSOR}]}
    return json.dumps({"backend": "identity", "max_batch_size": 2, **tensors, **more})


@pytest.fixture
def server(repository, start):
    repository.identity("m", versions=(1, 2))
    repository.identity("idle")
    return start("--model-control-mode=explicit", "--load-model=m", "--allow-file-override=true").wait_ready()


@pytest.fixture
def client(server):
    with http.InferenceServerClient(server.address) as client:
        yield client


def index(client) -> dict[str, list[str]]:
    rows: dict[str, list[str]] = {}
    for row in client.get_model_repository_index():
        rows.setdefault(row["name"], []).append(row.get("version", "") + row.get("state", ""))
    return rows


def test_a_model_is_loaded_reloaded_and_unloaded(server, client):
    assert index(client) == {"idle": [""], "m": ["2READY"]}
    client.load_model("idle")
    assert client.is_model_ready("idle")
    client.load_model("m", config=config(version_policy={"all": {}}))
    assert index(client) == {"idle": ["1READY"], "m": ["1READY", "2READY"]}
    assert client.is_model_ready("m", "1")
    client.unload_model("m", unload_dependents=True)
    assert not client.is_model_ready("m")
    client.unload_model("nope")
    server.until(lambda: index(client)["m"] == ["1UNAVAILABLE", "2UNAVAILABLE"], 20, "it still unloads")


def test_files_bring_their_own_labels(client):
    output = {"name": "OUTPUT0", "label_filename": "labels.txt", **TENSOR}
    files = {"file:5/note": b"", "file:labels.txt": b"cat\ndog\n"}
    client.load_model("new", config=config(output=[output]), files=files)
    tensor = http.InferInput("INPUT0", [1, 16], "FP32")
    tensor.set_data_from_numpy(np.array([[0.25, 0.5] + [0.0] * 14], np.float32))
    asked = http.InferRequestedOutput("OUTPUT0", class_count=2)
    result = client.infer("new", [tensor], outputs=[asked])
    assert result.get_response()["model_version"] == "5"
    assert result.as_numpy("OUTPUT0").tolist() == [[b"0.500000:1:dog", b"0.250000:0:cat"]]


def test_a_failure_reaches_the_caller_and_the_old_version_serves(client):
    with pytest.raises(InferenceServerException, match=r"load failed for model 'm': .*dims") as failed:
        client.load_model("m", config=config(input=[{"name": "INPUT0", "data_type": "TYPE_FP32", "dims": [0]}]))
    assert failed.value.status() == "400"
    assert client.is_model_ready("m", "2")
    with pytest.raises(InferenceServerException, match="failed to load 'nope', failed to poll from model repository"):
        client.load_model("nope")
    with pytest.raises(InferenceServerException, match="'file:' content needs"):
        client.load_model("m", files={"file:1/x": b"x"})
