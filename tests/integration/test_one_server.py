"""One server with models of four frameworks and three interpreters, all asked at the same time by stock clients."""

from __future__ import annotations

import sys
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from tritonclient import grpc, http

from naiad.environments.store import Store
from tests.support.environments import wish
from tests.support.formats import BY_NAME, NARROW, WIDE, rows
from tests.support.server import Serve, alive, descendants, serve

FRAMEWORKS = ("torchscript", "onnx", "savedmodel")
PYTHONS = ("older", "newer", "packed")
ROUNDS = 4
CODE = """
import sys

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        with np.load(f"{args['model_repository']}/{args['model_version']}/weights.npz") as file:
            self.weight, self.bias = file["weight"], file["bias"]

    def execute(self, requests):
        responses = []
        for request in requests:
            y = np.tanh(pb_utils.get_input_tensor_by_name(request, "x").as_numpy() @ self.weight + self.bias)
            python = np.array([sys.version_info[:3]] * len(y), np.int32)
            numpy = np.array([[np.__version__.encode()]] * len(y), object)
            outputs = {"y": y, "python": python, "numpy": numpy}
            tensors = [pb_utils.Tensor(name, array) for name, array in outputs.items()]
            responses.append(pb_utils.InferenceResponse(tensors))
        return responses
"""
CONFIG = f"""backend: "python" max_batch_size: 8
input {{ name: "x" data_type: TYPE_FP32 dims: [ {WIDE} ] }}
output {{ name: "y" data_type: TYPE_FP32 dims: [ {NARROW} ] }}
output {{ name: "python" data_type: TYPE_INT32 dims: [ 3 ] }}
output {{ name: "numpy" data_type: TYPE_STRING dims: [ 1 ] }}
"""


@dataclass
class House:
    """The server, what each model answers by batch size, and the interpreter that each Python model is to have."""

    server: Serve
    answers: dict[str, dict[int, np.ndarray]]
    interpreters: dict[str, Path]

    def worker(self, model: str) -> int:
        (ready,) = [r for r in self.server.records() if r["message"] == "worker ready" and r["model"] == model]
        return int(ready["pid"])


@pytest.fixture(scope="module")
def house(
    tmp_path_factory: pytest.TempPathFactory, python39: Path, real_wheelhouse: Path, uv_cache: dict[str, str]
) -> Iterator[House]:
    for name in FRAMEWORKS:
        if reason := BY_NAME[name].absent():
            pytest.skip(reason)
    place = tmp_path_factory.mktemp("house")
    root, answers = place / "models", {}
    for name in FRAMEWORKS:
        answers[name] = BY_NAME[name].write(root / name)
    environments = place / "environments"
    store = Store(environments, environ=uv_cache)
    store.create("newer", wish(real_wheelhouse, "numpy>=2\n"))
    store.build("newer", offline=True)
    folder, lease = store.lease("newer")
    lease.release()
    wishes = {
        "older": ("EXECUTION_ENV_PATH", str(python39)),
        "newer": ("naiad.environment", "newer"),
        "packed": ("EXECUTION_ENV_PATH", "$$TRITON_MODEL_DIRECTORY/env.tar.gz"),
    }
    for name, (key, value) in wishes.items():
        answers[name] = BY_NAME["python"].write(root / name)
        (root / name / "1" / "model.py").write_text(CODE)
        parameter = f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}\n'
        (root / name / "config.pbtxt").write_text(CONFIG + parameter)
    with tarfile.open(root / "packed" / "env.tar.gz", "w:gz", compresslevel=1) as archive:
        archive.add(python39, ".")
    options = [f"--environments={environments}", "--model-control-mode=explicit", "--load-model=*"]
    with serve(root, place / "serve.log", *options) as server:
        server.wait_settled(*answers, seconds=200)
        yield House(server, answers, {"older": python39, "newer": folder, "packed": environments / "archives"})


def infer(server: Serve, module: ModuleType, model: str, x: np.ndarray) -> dict[str, np.ndarray]:
    """All outputs by name."""
    tensor = module.InferInput("x", list(x.shape), "FP32")
    tensor.set_data_from_numpy(x)
    with module.InferenceServerClient(server.address if module is http else server.grpc) as client:
        answer = client.infer(model, [tensor])
    outputs: Any = answer.get_response()
    names = [o["name"] for o in outputs["outputs"]] if module is http else [o.name for o in outputs.outputs]
    return {name: answer.as_numpy(name) for name in names}


pytestmark = pytest.mark.timeout(300)  # the first test waits for three frameworks and two environments


def test_all_are_ready_and_answer_at_the_same_time(house):
    index = house.server.index()
    assert {name: row["state"] for name, row in index.items()} == dict.fromkeys([*FRAMEWORKS, *PYTHONS], "READY"), index
    asked = [
        (module, name, batch)
        for _ in range(ROUNDS)
        for name, answers in house.answers.items()
        for batch in answers
        for module in (http, grpc)
    ]
    with ThreadPoolExecutor(12) as pool:
        given = list(pool.map(lambda call: infer(house.server, *call[:2], rows(call[2])), asked))
    for (_, name, batch), outputs in zip(asked, given, strict=True):
        (y,) = (array for output, array in outputs.items() if output not in ("python", "numpy"))
        np.testing.assert_allclose(y, house.answers[name][batch], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("module", [http, grpc], ids=["http", "grpc"])
def test_each_python_model_has_its_own_python_and_numpy(house, module):
    told = {}
    for name in PYTHONS:
        outputs = infer(house.server, module, name, rows(1))
        told[name] = (tuple(outputs["python"][0]), outputs["numpy"][0, 0].decode())
    for name in ("older", "packed"):
        python, numpy = told[name]
        assert python[:2] == (3, 9)
        assert int(numpy.partition(".")[0]) < 2
    assert told["newer"] == (sys.version_info[:3], np.__version__)
    assert int(np.__version__.partition(".")[0]) >= 2


def test_each_instance_is_one_process_and_none_is_left_after_unloading(house):
    workers = {name: house.worker(name) for name in house.answers}
    assert len(set(workers.values())) == len(workers)
    assert {pid for pid in descendants(house.server.pid) if holds_arena(pid)} == set(workers.values())
    for name, folder in house.interpreters.items():
        running = Path(Path(f"/proc/{workers[name]}/cmdline").read_bytes().split(b"\0")[0].decode())
        assert running.is_relative_to(folder), f"{name} runs under {running}"
    for name in FRAMEWORKS:
        own = Path(f"/proc/{workers[name]}/exe").resolve()
        assert own == Path(f"/proc/{house.server.pid}/exe").resolve()
    for name in workers:
        assert house.server.post(f"/v2/repository/models/{name}/unload").status == 200
    house.server.until(lambda: not any(map(alive, workers.values())), 40, f"workers are left: {workers}")
    assert not [pid for pid in descendants(house.server.pid) if holds_arena(pid)]


def holds_arena(pid: int) -> bool:
    """Whether a process has mapped the memory through which a worker gets its tensors."""
    try:
        return "memfd:naiad-arena" in Path(f"/proc/{pid}/maps").read_text()
    except OSError:
        return False
