"""Parameters of the pytorch backend as a model in a real worker sees them, and torch.compile at work."""

from __future__ import annotations

import json
import shutil
from typing import Any

import pytest

from tests.support.repository import Repository

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'naiad[torch]'")

SEEN = """
import torch

class Seen(torch.nn.Module):
    def forward(self, x):
        executor = torch._C._jit_set_profiling_executor(True)
        torch._C._jit_set_profiling_executor(executor)
        profiling = torch._C._jit_set_profiling_mode(True)
        torch._C._jit_set_profiling_mode(profiling)
        told = [
            torch.is_inference_mode_enabled(), torch.is_grad_enabled(), torch._C._get_graph_executor_optimize(),
            torch.backends.cudnn.enabled, executor, profiling, torch._C._jit_texpr_fuser_enabled(),
            torch.get_num_threads(), torch.get_num_interop_threads(),
        ]
        return torch.tensor([float(value) for value in told])
"""
CONFIG = 'backend: "pytorch" max_batch_size: 0 input { name: "x" data_type: TYPE_FP32 dims: [ 1 ] }\n'
COMPILED = """
import torch

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(4, 2)
        torch.nn.init.constant_(self.linear.weight, 0.5)
        torch.nn.init.zeros_(self.linear.bias)

    def forward(self, x):
        y = torch.tanh(self.linear(x)) * 2
        return {"y": y, "compiled": torch.full((x.shape[0],), float(torch.compiler.is_compiling()))}
"""
# One shape, so that the compiler runs once.
ROWS = 'backend: "pytorch" max_batch_size: 0 input { name: "x" data_type: TYPE_FP32 dims: [ 3, 4 ] }\n'
COMPILE = "TORCH_COMPILE_OPTIONAL_PARAMETERS"


def parameters(**given: str) -> str:
    return "".join(
        f'parameters {{ key: "{key}" value {{ string_value: {json.dumps(value)} }} }}\n' for key, value in given.items()
    )


def add(repository: Repository, name: str, source: str, config: str, **given: str) -> None:
    repository.file(name, source.encode(), file="model.py")
    (repository.root / name / "config.pbtxt").write_text(config + parameters(**given))


def outputs(server: Any, model: str, values: list[float], shape: list[int]) -> dict[str, list[float]]:
    tensor = {"name": "x", "datatype": "FP32", "shape": shape, "data": values}
    answer = server.post(f"/v2/models/{model}/infer", {"inputs": [tensor]})
    assert answer.status == 200, answer.error
    return {each["name"]: each["data"] for each in answer.json["outputs"]}


def test_a_model_sees_each_parameter(repository, start):
    add(repository, "plain", SEEN, CONFIG)
    add(
        repository,
        "changed",
        SEEN,
        CONFIG,
        INFERENCE_MODE="false",
        DISABLE_OPTIMIZED_EXECUTION="true",
        DISABLE_CUDNN="1",
        ENABLE_JIT_EXECUTOR="false",
        ENABLE_JIT_PROFILING="false",
        ENABLE_TENSOR_FUSER="false",
        INTRA_OP_THREAD_COUNT="2",
        INTER_OP_THREAD_COUNT="3",
        ENABLE_CACHE_CLEANING="true",
    )
    server = start().wait_ready(100)
    plain = outputs(server, "plain", [0.0], [1])["OUTPUT__0"]
    assert plain[:8] == [1, 0, 1, 1, 1, 1, 1, 1]
    assert outputs(server, "changed", [0.0], [1])["OUTPUT__0"] == [0, 0, 0, 0, 0, 0, 0, 2, 3]


@pytest.mark.timeout(300)  # a compiler at work
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler: install g++")
def test_a_class_is_compiled_where_the_configuration_asks_for_it(repository, start, tmp_path):
    """The switches are texts, as Triton's documentation has them."""
    add(repository, "compiled", COMPILED, ROWS, **{COMPILE: '{"dynamic": "false", "fullgraph": true}'})
    add(repository, "disabled", COMPILED, ROWS, **{COMPILE: '{"disable": "true"}'})
    server = start(environment={"TMPDIR": str(tmp_path)}).wait_ready(280)  # the compiler's cache lies there
    given, plain = (outputs(server, name, [0.1] * 12, [3, 4]) for name in ("compiled", "disabled"))
    assert given["y"] == pytest.approx(plain["y"], abs=1e-5)
    assert (given["compiled"], plain["compiled"]) == ([1.0] * 3, [0.0] * 3)


REFUSED = {
    "backend": ('{"backend": "nowhere"}', "nowhere"),
    "argument": ('{"colour": 1}', "colour"),
    "switch": ('{"fullgraph": "maybe"}', "'fullgraph': expected true or false, got \"maybe\""),
    "list": ("[1]", "expected a JSON object"),
}


def test_arguments_that_torch_does_not_take_are_refused_by_the_parameters_name(repository, start):
    for name, (text, _) in REFUSED.items():
        add(repository, name, COMPILED, ROWS, **{COMPILE: text})
    server = start("--model-control-mode=explicit").wait_ready()
    for name, (_, said) in REFUSED.items():
        error = server.post(f"/v2/repository/models/{name}/load").error
        assert f"parameters '{COMPILE}': " in error and said in error
