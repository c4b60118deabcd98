"""Models that need as much memory as they are asked for, one for each backend."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tests.support import estimators, onnx_models
from tests.support.repository import Repository
from tests.support.tensorflow_models import Models

MUCH = 1 << 27
"""Ones that are added up: half a gigabyte of them."""
NEIGHBOURS, ROWS = 20_000, 600
"""Of scikit-learn's model, whose distances take 96 MB."""
TENSORS = """max_batch_size: 0
input {{ name: "n" data_type: TYPE_INT64 dims: [ 1 ] }}
output {{ name: "{output}" data_type: TYPE_FP32 dims: [ 1 ] }}
"""
BODY = """
def execute(self, requests):
    responses = []
    for request in requests:
        n = int(pb_utils.get_input_tensor_by_name(request, "n").as_numpy()[0])
        count = np.ones(n, np.float32).sum().reshape(1)
        responses.append(pb_utils.InferenceResponse([pb_utils.Tensor("count", count)]))
    return responses
"""
Tensors = dict[str, np.ndarray]
Make = Callable[[Repository, str, Callable[[], Models]], Tensors]


@dataclass(frozen=True, slots=True)
class Hungry:
    """How the model of one backend is made and asked."""

    make: Make
    """Adds it to a repository under a name and gives the right answer to `little`."""
    little: Tensors
    much: Tensors
    needs: tuple[str, ...] = ()
    """Modules."""
    fix: str = ""

    def absent(self) -> str:
        """Why it cannot be tried here; "" if it can."""
        missing = [module for module in self.needs if importlib.util.find_spec(module) is None]
        return f"{missing[0]} is not installed: {self.fix}" if missing else ""


def _count(output: str) -> Tensors:
    return {output: np.array([5], np.float32)}


def _numbers(dtype: type) -> tuple[Tensors, Tensors]:
    return {"n": np.array([5], dtype)}, {"n": np.array([MUCH], dtype)}


def _pytorch(repository: Repository, name: str, _: Any) -> Tensors:
    import torch

    class Count(torch.nn.Module):
        def forward(self, n: torch.Tensor) -> torch.Tensor:
            return torch.ones([int(n)]).sum().reshape(1)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript goes out of use
        torch.jit.script(Count()).save(str(_folder(repository, name) / "model.pt"))
    text = 'backend: "pytorch" ' + TENSORS.format(output="OUTPUT__0")
    (repository.root / name / "config.pbtxt").write_text(text)
    return _count("OUTPUT__0")


def _onnx(repository: Repository, name: str, _: Any) -> Tensors:
    import onnx

    one = onnx.helper.make_tensor("one", onnx.TensorProto.FLOAT, [1], [1.0])
    nodes = [
        onnx_models.node("ConstantOfShape", "n", "ones", value=one),
        onnx_models.node("ReduceSum", "ones", "count", keepdims=1),
    ]
    given, taken = onnx_models.value("n", "INT64", [1]), onnx_models.value("count", "FLOAT", [1])
    onnx_models.save(onnx_models.model(nodes, [given], [taken]), _folder(repository, name) / "model.onnx")
    return _count("count")


def _tensorflow(repository: Repository, name: str, models: Callable[[], Models]) -> Tensors:
    models().install("hungry", repository.root, model=name)
    return _count("count")


def _sklearn(repository: Repository, name: str, _: Any) -> Tensors:
    from sklearn.neighbors import KNeighborsRegressor

    angles = np.linspace(0, np.pi / 2, NEIGHBOURS)
    model = KNeighborsRegressor(1, algorithm="brute", metric="cosine")  # which has no loop that saves memory
    model.fit(np.stack([np.cos(angles), np.sin(angles)], 1), angles)
    estimators.save(model, _folder(repository, name))
    (repository.root / name / "config.pbtxt").write_text(f"max_batch_size: {ROWS}")
    return {"output": model.predict(_circle(3))}


def _python(repository: Repository, name: str, _: Any) -> Tensors:
    repository.python(name, BODY, config='backend: "python" ' + TENSORS.format(output="count"))
    return _count("count")


def _circle(rows: int) -> np.ndarray:
    """Points that lie between axes [rows, 2]."""
    angles = np.linspace(0.1, 1.5, rows)
    return np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)


def _folder(repository: Repository, name: str) -> Path:
    folder = repository.root / name / "1"
    folder.mkdir(parents=True)
    return folder


MODELS = {
    "pytorch": Hungry(_pytorch, *_numbers(np.int64), ("torch",), "pip install 'naiad[torch]'"),
    "onnxruntime": Hungry(_onnx, *_numbers(np.int64), ("onnx", "onnxruntime"), "pip install 'naiad[onnx]' onnx"),
    "tensorflow": Hungry(_tensorflow, *_numbers(np.int32), ("tensorflow",), "pip install 'naiad[tensorflow]'"),
    "sklearn": Hungry(
        _sklearn, {"input": _circle(3)}, {"input": _circle(ROWS)}, ("sklearn", "skops"), "pip install 'naiad[sklearn]'"
    ),
    "python": Hungry(_python, *_numbers(np.int64)),
}
"""By backend."""
