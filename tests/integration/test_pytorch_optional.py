"""Arguments of PyTorch models that are no plain tensors: those that are left out, numbers that may be None, texts."""

from __future__ import annotations

import numpy as np
import pytest
import tritonclient.http as triton

from tests.support.repository import Repository
from tests.support.server import Serve

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'naiad[torch]'")
from tests.support import script_models  # noqa: E402 (it needs torch, too)

CLASS = """
import torch

class Net(torch.nn.Module):
    def forward(self, x, /, scale=2.0, y=None, *, offset=None):
        result = x * scale
        result = result if y is None else result + y
        return result if offset is None else result - offset
"""


class Scripted(torch.nn.Module):
    def forward(
        self, x: torch.Tensor, scale: float = 2.0, y: torch.Tensor | None = None, times: int = 3
    ) -> torch.Tensor:
        result = x * scale * times
        return result if y is None else result + y


def configured(*names: str) -> str:
    inputs = (f'input {{ name: "{name}" data_type: TYPE_FP32 dims: [ 2 ] }}\n' for name in names)
    return 'backend: "pytorch" max_batch_size: 4\n' + "".join(inputs)


def add(repository: Repository, name: str, *inputs: str) -> None:
    folder = repository.root / name
    if name.startswith("class"):
        repository.file(name, CLASS.encode(), file="model.py")
    else:
        script_models.write(Scripted, repository.root, name)
    (folder / "config.pbtxt").write_text(configured(*inputs))


def answer(server: Serve, model: str, **values: list[float]) -> list[float]:
    inputs = [{"name": name, "datatype": "FP32", "shape": [1, 2], "data": data} for name, data in values.items()]
    given = server.post(f"/v2/models/{model}/infer", {"inputs": inputs})
    assert given.status == 200, given.error
    return given.json["outputs"][0]["data"]


def test_what_is_left_out_has_its_default(repository, start):
    add(repository, "script", "x")
    add(repository, "script-gap", "x", "y")
    add(repository, "class", "x")
    add(repository, "class-gap", "x", "y")
    add(repository, "class-keyword", "x", "offset")
    server = start().wait_ready(100)
    x, y = [1.0, 2.0], [10.0, 20.0]
    assert answer(server, "script", x=x) == [6.0, 12.0]
    assert answer(server, "script-gap", x=x, y=y) == [16.0, 32.0]
    assert answer(server, "class", x=x) == [2.0, 4.0]
    assert answer(server, "class-gap", y=y, x=x) == [12.0, 24.0]
    assert answer(server, "class-keyword", x=x, offset=y) == [-8.0, -16.0]


def test_what_has_no_default_is_asked_for(repository, start):
    add(repository, "class", "y")
    add(repository, "script", "x", "y", "scale", "times", "more")
    server = start("--model-control-mode=explicit").wait_ready()
    error = server.post("/v2/repository/models/class/load").error
    assert "x" in error and "required positional argument" in error
    error = server.post("/v2/repository/models/script/load").error
    assert "input: expected 4 as in forward(x, scale, y, times), got 5" in error


class Texts(torch.nn.Module):
    def forward(self, names: list[str], more: int | None = None) -> tuple[list[str], torch.Tensor]:
        added = 0 if more is None else more
        given = [name.upper() for name in names]
        return given, torch.tensor([len(name) + added for name in given])


def test_texts_and_a_number_that_may_be_none(repository, start):
    text = 'backend: "pytorch" max_batch_size: 0 input { name: "names" data_type: TYPE_STRING dims: [ -1 ] }\n'
    more = 'input { name: "more" data_type: TYPE_INT64 dims: [ 1 ] }\n'
    configs = {"texts": text, "more": text + more, "wide": text.replace("[ -1 ]", "[ -1, 1 ]")}
    for name, config in configs.items():
        script_models.write(Texts, repository.root, name)
        (repository.root / name / "config.pbtxt").write_text(config)
    server = start("--strict-readiness=false").wait_settled(*configs, seconds=100)
    names = triton.InferInput("names", [2], "BYTES")
    names.set_data_from_numpy(np.array(["ö", "ab"], dtype=object))
    number = triton.InferInput("more", [1], "INT64")
    number.set_data_from_numpy(np.array([2]))
    with triton.InferenceServerClient(server.address) as client:
        plain, added = client.infer("texts", [names]), client.infer("more", [names, number])
    assert [each.decode() for each in plain.as_numpy("OUTPUT__0")] == ["ö", "AB"]  # TorchScript knows ASCII only
    assert plain.as_numpy("OUTPUT__1").tolist() == [2, 2]
    assert added.as_numpy("OUTPUT__1").tolist() == [4, 4]
    reason = server.index()["wide"]["reason"]
    assert "expected texts of one dim, for TorchScript has lists of them, got [1, 1]" in reason
