"""Options that say who may call the HTTP listener beyond keys: restricted categories, pages, header forwarding."""

from __future__ import annotations

import subprocess

import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from tests.support.server import COMMAND

ROW = [0.0] * 16


def test_restricted_categories_with_the_stock_client(repository, start):
    repository.identity("m")
    server = start("--http-restricted-api=model-config,metadata:Admin-Key=let me in").wait_ready()
    assert server.infer("m", ROW).status == 200
    with triton.InferenceServerClient(server.address) as client:
        with pytest.raises(InferenceServerException, match="This API is restricted, expecting header 'admin-key'"):
            client.get_model_config("m")
        assert client.get_model_config("m", headers={"admin-key": "let me in"})["name"] == "m"
    assert "let me in" not in server.log.read_text()


def test_reserved_headers_are_not_forwarded(repository, start):
    repository.identity("m")
    server = start("--http-header-forward-pattern=(my|sequence)_.*").wait_ready()
    with triton.InferenceServerClient(server.address) as client:
        wanted = triton.InferInput("INPUT0", [1, 16], "FP32")
        wanted.set_data_from_numpy(np.zeros((1, 16), np.float32))
        with pytest.raises(InferenceServerException, match="Header 'sequence_id' is reserved for Triton usage"):
            client.infer("m", [wanted], headers={"Sequence_ID": "1"})


def test_listed_pages_may_call(repository, start):
    repository.identity("m")
    server = start("--http-cors-allowed-origin=https://page.test").wait_ready()
    page = {"Origin": "https://page.test", "Access_Control_Request_Method": "POST"}
    answer = server.send("OPTIONS", "/v2/models/m/infer", **page)
    assert (answer.status, answer.headers["access-control-allow-origin"]) == (200, "https://page.test")
    assert server.send("OPTIONS", "/v2/models/m/infer").status == 405
    assert server.post("/v2/repository/index", Origin="https://evil.test").status == 403


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--http-restricted-api=nothing:k=v", "unknown category 'nothing'"),
        ("--http-header-forward-pattern=(", "header forward pattern"),
        ("--http-cors-allowed-origin=*", "no key is required"),
        ("--http-cors-allowed-origin=page.test", "expected https://host"),
    ],
)
def test_what_cannot_be_meant_stops_the_start(repository, option, message):
    command = [*COMMAND, "--model-repository", str(repository.root), "--http-port=0", option]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode != 0
    assert message in ended.stderr
