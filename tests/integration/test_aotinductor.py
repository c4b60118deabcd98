"""Packages of AOTInductor through a real server: answers, checks of shapes, machines that they do not fit."""

from __future__ import annotations

import json
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton

from tests.support.repository import Repository
from tests.support.server import Serve, serve

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'naiad[torch]'")
from tests.support import torch_models  # noqa: E402 (it needs torch, too)

pytestmark = [
    pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler to make the package with: install g++"),
    pytest.mark.timeout(300),  # compiling takes half a minute, more where the processors are shared
]
EXPLICIT = "--model-control-mode=explicit"
# Images of any size, which the file does not take: nothing else would let them through.
UNCHECKED = """backend: "pytorch" max_batch_size: 8
input { name: "image" data_type: TYPE_FP32 dims: [ 1, -1, -1 ] }
output { name: "OUTPUT__0" data_type: TYPE_FP32 dims: [ 10 ] }
"""


@pytest.fixture(scope="module")
def package(tmp_path_factory) -> tuple[Path, Any]:
    path = tmp_path_factory.mktemp("package") / "model.pt2"
    inputs = [{"name": "image", "datatype": "FP32", "dims": [-1, 1, 28, 28]}]
    return path, torch_models.compile_digits(path, **{"naiad.inputs": json.dumps(inputs), "naiad.max_batch": "64"})


def changed(package: Path, to: Path, **metadata: str | None) -> Path:
    """The package with other metadata, or without some of it."""
    with zipfile.ZipFile(package) as source, zipfile.ZipFile(to, "w") as target:
        for name in source.namelist():
            content = source.read(name)
            if name.endswith("_metadata.json"):
                told = {**json.loads(content), **metadata}
                content = json.dumps({key: value for key, value in told.items() if value is not None}).encode()
            target.writestr(name, content)
    return to


@pytest.fixture(scope="module")
def server(package, module_repository: Repository, tmp_path_factory) -> Iterator[Serve]:
    repository, folder = module_repository, tmp_path_factory.mktemp("changed")
    repository.file("digits", package[0].read_bytes(), file="model.pt2")
    silent = changed(package[0], folder / "a.pt2", **{"naiad.inputs": None, "naiad.max_batch": None})
    repository.file("silent", silent.read_bytes(), file="model.pt2")
    arm = changed(package[0], folder / "c.pt2", AOTI_MACHINE="aarch64")
    repository.file("arm", arm.read_bytes(), file="model.pt2")
    cuda = changed(package[0], folder / "d.pt2", AOTI_DEVICE_KEY="cuda")
    repository.file("cuda", cuda.read_bytes(), file="model.pt2")
    with serve(repository.root, tmp_path_factory.mktemp("log") / "serve.log", EXPLICIT) as running:
        for name in ("digits", "silent"):
            answer = running.wait_ready().post(f"/v2/repository/models/{name}/load")
            assert answer.status == 200, answer.error
        yield running


def images(count: int, size: int = 28) -> np.ndarray:
    return np.random.default_rng(count).random((count, 1, size, size), dtype=np.float32)


def infer(server: Serve, model: str, name: str, array: np.ndarray) -> np.ndarray:
    tensor = triton.InferInput(name, list(array.shape), "FP32")
    tensor.set_data_from_numpy(array)
    with triton.InferenceServerClient(server.address) as client:
        return client.infer(model, [tensor]).as_numpy("OUTPUT__0")


@pytest.mark.parametrize(("model", "name"), [("digits", "image"), ("silent", "INPUT__0")])
def test_a_package_serves_without_a_configuration(server, package, model, name):
    """Names come from its metadata, or shapes from the checks in its source; one image works, too."""
    meta = server.get(f"/v2/models/{model}").json
    assert [(t["name"], t["datatype"], t["shape"]) for t in meta["inputs"]] == [(name, "FP32", [-1, 1, 28, 28])]
    assert [(t["name"], t["shape"]) for t in meta["outputs"]] == [("OUTPUT__0", [-1, 10])]
    # The file may be run with 64 images, but torch has compiled it for at most 15: its source tells.
    assert server.get(f"/v2/models/{model}/config").json["max_batch_size"] == 15
    for count in (1, 2, 7):
        with torch.inference_mode():
            expected = package[1](torch.from_numpy(images(count))).numpy()
        np.testing.assert_allclose(infer(server, model, name, images(count)), expected, rtol=1e-4, atol=1e-5)


def test_a_wrong_shape_is_refused_by_the_server(server):
    with pytest.raises(triton.InferenceServerException, match=r"\[-1,1,28,28\]") as caught:
        infer(server, "digits", "image", images(2, 20))
    assert caught.value.status() == "400"


def test_what_the_server_lets_through_the_library_refuses(repository, start, package):
    repository.file("m", package[0].read_bytes(), file="model.pt2")
    (repository.root / "m" / "config.pbtxt").write_text(UNCHECKED)
    server = start("--strict-model-config=true").wait_ready()
    with pytest.raises(triton.InferenceServerException, match="unmatched dim value at 2, expected: 28, but got: 20"):
        infer(server, "m", "image", images(2, 20))
    with torch.inference_mode():
        expected = package[1](torch.from_numpy(images(3))).numpy()
    np.testing.assert_allclose(infer(server, "m", "image", images(3)), expected, rtol=1e-4, atol=1e-5)


def test_a_configuration_that_claims_other_sizes_is_refused(repository, start, package):
    repository.file("m", package[0].read_bytes(), file="model.pt2")
    (repository.root / "m" / "config.pbtxt").write_text(UNCHECKED.replace("1, -1, -1", "1, 20, 20"))
    answer = start(EXPLICIT).wait_ready().post("/v2/repository/models/m/load")
    assert answer.status == 400
    assert "(IO_MISMATCH)" in answer.error


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("arm", "was compiled for linux aarch64, this is linux"),
        ("cuda", "was compiled for cuda, the instance runs on cpu"),
    ],
)
def test_a_package_of_another_machine_is_refused(server, model, words):
    answer = server.post(f"/v2/repository/models/{model}/load")
    assert answer.status == 400
    assert words in answer.error


def test_no_unpacked_library_is_left_behind(server):
    assert not list(Path(tempfile.gettempdir()).glob("naiad-aoti-*"))
