"""Workers of each backend that are killed, crash or run out of memory: the server stays, the next answer is right."""

from __future__ import annotations

import os
import re
import resource
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from tritonclient import http
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from tests.support.hungry import MODELS, Tensors
from tests.support.repository import Repository
from tests.support.server import Serve, alive, serve

pytestmark = pytest.mark.timeout(300)  # the first test waits for four frameworks
SPARE = 64 << 20
"""Bytes of address space that a worker may still take."""


@dataclass
class Stage:
    """A server with a hungry model of each backend, named after it."""

    server: Serve
    right: dict[str, Tensors] = field(default_factory=dict)

    def worker(self, model: str) -> int:
        """The pid of a model's living worker."""

        def newest() -> int:
            ready = [r for r in self.server.records() if r["message"] == "worker ready" and r["model"] == model]
            return int(ready[-1]["pid"]) if ready and alive(ready[-1]["pid"]) else 0

        pid: int = self.server.until(newest, 40, f"{model} has no worker")
        return pid

    def ask(self, model: str, inputs: Tensors) -> Tensors:
        tensors = []
        for name, array in inputs.items():
            tensor = http.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
            tensors.append(tensor.set_data_from_numpy(array))
        with http.InferenceServerClient(self.server.address, network_timeout=60) as client:
            answer = client.infer(model, tensors)
        outputs = answer.get_response()["outputs"]
        return {output["name"]: answer.as_numpy(output["name"]) for output in outputs}

    def goes_on(self, model: str) -> None:
        """The server is the same, and the model, whose worker may be on its way back, answers rightly."""

        def answered() -> Tensors | None:
            try:
                return self.ask(model, MODELS[model].little)
            except InferenceServerException as error:
                assert error.status() == "503", error
                return None

        given: Tensors = self.server.until(answered, 40, f"{model} did not answer again")
        for name, array in self.right[model].items():
            np.testing.assert_allclose(given[name].reshape(array.shape), array, rtol=1e-5)
        assert self.server.process.poll() is None, "the server ended"


@pytest.fixture(scope="module")
def stage(
    request: pytest.FixtureRequest, module_repository: Repository, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stage]:
    right = {
        name: each.make(module_repository, name, lambda: request.getfixturevalue("tensorflow_models"))
        for name, each in MODELS.items()
        if not each.absent()
    }
    module_repository.identity("identity", dims="-1")
    with serve(module_repository.root, tmp_path_factory.mktemp("log") / "serve.log") as server:
        yield Stage(server.wait_settled(*right, seconds=110), right)


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest, stage: Stage) -> str:
    """A backend's model, which has answered once."""
    if reason := MODELS[request.param].absent():
        pytest.skip(reason)
    stage.goes_on(request.param)
    return str(request.param)


def limit(worker: int) -> None:
    """From now on a process may take a little more of address space than it has."""
    size = int(Path(f"/proc/{worker}/statm").read_text().split()[0]) * resource.getpagesize()
    _, hard = resource.prlimit(worker, resource.RLIMIT_AS)
    resource.prlimit(worker, resource.RLIMIT_AS, (size + SPARE, hard))


@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGSEGV], ids=["kill", "segfault"])
def test_a_lost_worker_is_replaced(stage, model, blow):
    lost = stage.worker(model)
    os.kill(lost, blow)
    stage.server.until(lambda: not alive(lost), 20, "the worker lives")
    stage.goes_on(model)
    assert stage.worker(model) != lost


def test_a_worker_without_memory_fails_what_it_was_asked_and_no_more(stage, model):
    worker = stage.worker(model)
    limit(worker)
    with pytest.raises(InferenceServerException) as caught:
        stage.ask(model, MODELS[model].much)
    status, text = caught.value.status(), caught.value.message()
    if status == "503":  # what a framework cannot allocate may be its own end
        assert text.startswith(f"worker lost: the process of model '{model}' ended while it ran this request")
        stage.server.until(lambda: not alive(worker), 20, "the worker lives")
    else:
        assert status == "500"
        assert re.search("allocat|out of memory", text, re.IGNORECASE), text
        assert "\n" not in text
        assert stage.worker(model) == worker
    stage.goes_on(model)


def test_a_worker_that_cannot_map_its_arena_ends_and_says_why(stage):
    """The request that needs the segment has not started: the next worker answers it."""
    worker = stage.worker("identity")
    limit(worker)
    x = np.full((1, SPARE // 2), 3, np.float32)
    np.testing.assert_array_equal(stage.ask("identity", {"INPUT0": x})["OUTPUT0"], x)
    assert stage.worker("identity") != worker
    mapped = r"the data channel is closed: segment \d+ of \d+ bytes cannot be mapped: Cannot allocate memory"
    records = stage.server.records()
    assert [r["message"] for r in records if r.get("pid") == worker and re.fullmatch(mapped, r["message"])]
    (lost,) = [r for r in records if r["message"].startswith("worker lost") and r["model"] == "identity"]
    assert lost["cause"] == "exit code 1"
