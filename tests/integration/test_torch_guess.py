"""Scripted TorchScript without a configuration: served where its inputs can be guessed, else refused."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton

from naiad.cli import inspect
from tests.support.repository import Repository
from tests.support.server import Serve, serve

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'naiad[torch]'")
from tests.support import script_models as models  # noqa: E402 (it needs torch, too)

KINDS = (models.Cnn, models.Pooled, models.Mlp, models.Text, models.Two, models.Users, models.Signal, models.Steps)
REFUSED = (models.Masked, models.Bytes, models.Picky)
EXPLICIT = "--model-control-mode=explicit"
DATATYPES = {"float32": "FP32", "int64": "INT64"}


@pytest.fixture(scope="module")
def made(module_repository: Repository) -> dict[str, Any]:
    """The models of the repository, as torch calls them."""
    found = {kind.__name__.lower(): models.write(kind, module_repository.root, kind.__name__.lower()) for kind in KINDS}
    for kind in REFUSED:
        models.write(kind, module_repository.root, kind.__name__.lower())
    found["written"] = models.write(models.Two, module_repository.root, "written")
    (module_repository.root / "written" / "config.pbtxt").write_text("max_batch_size: 4")
    return found


@pytest.fixture(scope="module")
def server(made, module_repository, tmp_path_factory) -> Iterator[Serve]:
    log = tmp_path_factory.mktemp("log") / "serve.log"
    loads = [f"--load-model={name}" for name in made]
    with serve(module_repository.root, log, EXPLICIT, *loads) as running:
        yield running.wait_ready(100)


def infer(server: Serve, model: str, *arrays: np.ndarray) -> np.ndarray:
    """The first output for arrays in the order of the model's inputs."""
    names = [tensor["name"] for tensor in server.get(f"/v2/models/{model}").json["inputs"]]
    inputs = []
    for name, array in zip(names, arrays, strict=True):
        tensor = triton.InferInput(name, list(array.shape), DATATYPES[array.dtype.name])
        tensor.set_data_from_numpy(array)
        inputs.append(tensor)
    with triton.InferenceServerClient(server.address) as client:
        result = client.infer(model, inputs)
        return result.as_numpy(result.get_response()["outputs"][0]["name"])


def floats(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).random(shape, dtype=np.float32)


def ids(*shape: int, below: int = 7) -> np.ndarray:
    return np.random.default_rng(sum(shape)).integers(0, below, shape)


@pytest.mark.parametrize(
    ("name", "inputs", "batch", "arrays"),
    [
        ("cnn", {"image": [1, 32, 32]}, 32, [floats(3, 1, 32, 32)]),
        ("pooled", {"image": [-1, -1, 4]}, 32, [floats(2, 9, 17, 4)]),
        ("mlp", {"x": [784]}, 32, [floats(5, 784)]),
        ("text", {"ids": [-1]}, 32, [ids(3, 11, below=50)]),
        ("two", {"x": [4], "y": [5]}, 32, [floats(2, 4), floats(2, 5)]),
        ("users", {"user": [], "item": []}, 32, [ids(6), ids(6)]),
        ("signal", {"sound": [-1]}, 32, [floats(2, 50)]),
        ("steps", {"x": [-1, 3]}, 0, [floats(7, 3)]),
        ("written", {"x": [4], "y": [5]}, 4, [floats(2, 4), floats(2, 5)]),
    ],
)
def test_a_scripted_model_serves_by_a_guess(server, made, name, inputs, batch, arrays):
    config = server.get(f"/v2/models/{name}/config").json
    assert {tensor["name"]: tensor["dims"] for tensor in config["input"]} == inputs
    assert config["max_batch_size"] == batch
    expected = made[name](*(torch.from_numpy(array) for array in arrays))
    expected = next(iter(expected.values())) if isinstance(expected, dict) else expected
    given = infer(server, name, *arrays)
    np.testing.assert_allclose(given, expected.detach().numpy(), rtol=1e-4, atol=1e-5)


def test_the_log_says_that_it_is_a_guess(server, made):
    said = [record["message"] for record in server.records() if record.get("model") == "cnn"]
    assert (
        "inputs are a guess from the model's weights, and ran: image [1, 32, 32]; what config.pbtxt says counts instead"
    ) in said
    steps = [record["message"] for record in server.records() if record.get("model") == "steps"]
    assert "no batching: output 'OUTPUT__0' of one row changes with another row of the batch" in steps


@pytest.mark.parametrize(
    ("name", "cause", "fix"),
    [
        (
            "masked",
            "the file does not tell its inputs: its forward() takes (ids, mask), but not their shapes",
            'write max_batch_size: 8 input { name: "ids" data_type: TYPE_INT64 dims: [ -1 ] } input { name: "mask" '
            "data_type: TYPE_… dims: [ … ] } into config.pbtxt, or save the model with torch.jit.trace",
        ),
        (
            "bytes",
            "its forward() takes (image), but not their shapes",
            'write max_batch_size: 8 input { name: "image" data_type: TYPE_… dims: [ … ] } into config.pbtxt',
        ),
        (
            "picky",
            "a dry run with zeros (image FP32 [-1, 1, -1, -1]) fails: RuntimeError: none of 2",
            'write max_batch_size: 8 input { name: "image" data_type: TYPE_FP32 dims: [ 1, -1, -1 ] } into '
            "config.pbtxt, with what the model takes: this is a guess from its weights",
        ),
    ],
)
def test_what_cannot_be_guessed_is_refused_with_what_to_write(server, name, cause, fix):
    error = server.post(f"/v2/repository/models/{name}/load").error
    assert cause in error and fix in error


def shown(path: Any, form: str, **options: Any) -> str:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        assert inspect.inspect(path, form, **options) == 0
    return printed.getvalue()


def test_a_look_into_the_file_says_that_a_load_guesses(made, module_repository):
    rows = [" ".join(line.split()) for line in shown(module_repository.root / "two", "table").splitlines()]
    assert "input.x ? guess at load" in rows
    assert any(row.startswith("note: the file does not tell the shapes of its inputs: a load guesses") for row in rows)


def test_a_dry_run_marks_what_it_guessed(made, module_repository):
    from naiad.server.dry_run import DryRunOptions

    document = json.loads(shown(module_repository.root / "two", "json", run=DryRunOptions()))
    origins = document["origins"]
    assert (origins["input.x"], origins["input.y"], origins["max_batch_size"]) == ("guess", "guess", "dry run")
    assert [tensor["dims"] for tensor in document["config"]["input"]] == [[4], [5]]
    assert any(note.startswith("inputs are a guess from the model's weights") for note in document["notes"])
