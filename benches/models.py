"""Writes the same three models as a repository for Triton and as one for Naiad."""

from __future__ import annotations

import shutil
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
EXAMPLE = CHECKOUT / "examples" / "mnist"
LENET = EXAMPLE / "model-repo" / "mnist-cnn" / "1" / "model.pt"
REQUEST = EXAMPLE / "request.json"

MAX_BATCH = 32

_IDENTITY = """name: "identity"
backend: "{backend}"
max_batch_size: {max_batch}
input {{ name: "INPUT0" data_type: TYPE_FP32 dims: [ 16 ] }}
output {{ name: "OUTPUT0" data_type: TYPE_FP32 dims: [ 16 ] }}
dynamic_batching {{ }}
instance_group {{ count: 1 kind: KIND_CPU }}
"""

_WIDE = """name: "wide"
backend: "{backend}"
max_batch_size: 0
input {{ name: "INPUT0" data_type: TYPE_FP32 dims: [ -1 ] }}
output {{ name: "OUTPUT0" data_type: TYPE_FP32 dims: [ -1 ] }}
instance_group {{ count: 1 kind: KIND_CPU }}
"""

_LENET = """name: "lenet"
backend: "{backend}"
max_batch_size: {max_batch}
input {{ name: "{input}" data_type: TYPE_FP32 dims: [ 1, 32, 32 ] }}
output {{ name: "OUTPUT__0" data_type: TYPE_FP32 dims: [ 10 ] }}
dynamic_batching {{ }}
instance_group {{ count: 1 kind: KIND_CPU }}
"""

_TRITON_IDENTITY = """
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        return [
            pb_utils.InferenceResponse(
                [pb_utils.Tensor("OUTPUT0", pb_utils.get_input_tensor_by_name(r, "INPUT0").as_numpy())]
            )
            for r in requests
        ]
"""

_TRITON_LENET = """
import os

import numpy as np
import torch
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        torch.set_num_threads(1)
        folder = os.path.join(args["model_repository"], args["model_version"])
        self.model = torch.jit.load(os.path.join(folder, "model.pt")).eval()
        with torch.inference_mode():
            for batch in (1, 2, 4, 8, 16, 32):
                for _ in range(3):
                    self.model(torch.zeros(batch, 1, 32, 32))

    def execute(self, requests):
        rows = [pb_utils.get_input_tensor_by_name(r, "{input}").as_numpy() for r in requests]
        batch = rows[0] if len(rows) == 1 else np.concatenate(rows)
        with torch.inference_mode():
            result = self.model(torch.from_numpy(batch)).numpy()
        responses, at = [], 0
        for row in rows:
            responses.append(
                pb_utils.InferenceResponse([pb_utils.Tensor("OUTPUT__0", result[at : at + len(row)])])
            )
            at += len(row)
        return responses
"""


def write_triton(folder: Path, *, lenet_input: str) -> None:
    """The models for Triton's Python backend."""
    _write(folder / "identity", _IDENTITY.format(backend="python", max_batch=MAX_BATCH), _TRITON_IDENTITY)
    _write(folder / "wide", _WIDE.format(backend="python"), _TRITON_IDENTITY)
    config = _LENET.format(backend="python", max_batch=MAX_BATCH, input=lenet_input)
    _write(folder / "lenet", config, _TRITON_LENET.replace("{input}", lenet_input))
    shutil.copy2(LENET, folder / "lenet" / "1" / "model.pt")


def write_naiad(folder: Path, *, lenet_input: str) -> None:
    """The models for Naiad's own backends, with the same limits."""
    _write(folder / "identity", _IDENTITY.format(backend="identity", max_batch=MAX_BATCH), None)
    _write(folder / "wide", _WIDE.format(backend="identity"), None)
    _write(folder / "lenet", _LENET.format(backend="pytorch", max_batch=MAX_BATCH, input=lenet_input), None)
    shutil.copy2(LENET, folder / "lenet" / "1" / "model.pt")


def _write(model: Path, config: str, code: str | None) -> None:
    (model / "1").mkdir(parents=True)
    (model / "config.pbtxt").write_text(config)
    if code:
        (model / "1" / "model.py").write_text(code)
