"""Formats on a GPU: instances of KIND_GPU answer as their framework does on the CPU, from the device that they got."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from tritonclient import http

from naiad.server import devices
from tests.support.formats import BY_NAME, rows

pytestmark = [
    pytest.mark.skipif(not devices.gpus(), reason="needs an NVIDIA GPU (/dev/nvidia0); there is none here"),
    pytest.mark.timeout(300),
]
GROUP = "instance_group { kind: KIND_GPU }\n"


@pytest.mark.parametrize("name", ["torchscript", "torchscript-scripted", "torch-class"])
def test_a_format_of_torch_answers_from_the_gpu(repository, start, name):
    if reason := BY_NAME[name].absent():
        pytest.skip(reason)
    answers = BY_NAME[name].write(repository.root / name)
    with (repository.root / name / "config.pbtxt").open("a") as config:
        config.write(GROUP)
    server = start().wait_ready()
    for batch, expected in answers.items():
        given = http.InferInput("x", [batch, rows(batch).shape[1]], "FP32")
        given.set_data_from_numpy(rows(batch))
        with http.InferenceServerClient(server.address) as client:
            got = client.infer(name, [given]).as_numpy("OUTPUT__0")
        np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-4)  # TF32 may be on
    worker = next(record["pid"] for record in server.records() if record["message"] == "worker ready")
    assert worker in on_a_gpu()


def test_onnxruntime_takes_its_cuda_provider(repository, start):
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install 'naiad[onnx]'")
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has no CUDA provider: pip install onnxruntime-gpu")
    answers = BY_NAME["onnx"].write(repository.root / "onnx")
    (repository.root / "onnx" / "config.pbtxt").write_text(GROUP)
    server = start().wait_ready()
    given = http.InferInput("x", [1, rows(1).shape[1]], "FP32")
    given.set_data_from_numpy(rows(1))
    with http.InferenceServerClient(server.address) as client:
        got = client.infer("onnx", [given]).as_numpy("y")
    np.testing.assert_allclose(got, answers[1], rtol=1e-3, atol=1e-4)


def on_a_gpu() -> set[int]:
    """Processes that hold memory of a GPU, as the driver says, or, without its tool, as their open devices say."""
    if shutil.which("nvidia-smi"):
        line = ["nvidia-smi", "--query-compute-apps=pid", "--format=csv,noheader"]
        printed = subprocess.run(line, capture_output=True, text=True, check=True, timeout=60).stdout
        if printed.strip():
            return {int(word) for word in printed.split()}
    devices_of = {path.parts[2] for path in Path("/proc").glob("[0-9]*/fd/*") if _is_gpu(path)}
    return {int(pid) for pid in devices_of}


def _is_gpu(descriptor: Path) -> bool:
    try:
        return str(descriptor.readlink()).startswith("/dev/nvidia")
    except OSError:
        return False
