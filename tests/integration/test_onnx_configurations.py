"""The effective configurations of ONNX files, alone and with part of a config.pbtxt, against golden files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support import golden, onnx_models
from tests.support.onnx_models import model, node, value
from tests.support.repository import Repository
from tests.support.server import Serve, serve

onnx: Any = pytest.importorskip("onnx", reason=onnx_models.REASON)
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install 'naiad[onnx]'")


def image(batch: int | str = "N") -> Any:
    """Scores and the label of an image of any height and width."""
    axes = onnx.helper.make_tensor("axes", onnx.TensorProto.INT64, [2], [2, 3])
    nodes = [
        node("ReduceMean", "image axes", "scores", keepdims=0),
        node("ArgMax", "scores", "label", axis=1, keepdims=0),
    ]
    outputs = [value("scores", "FLOAT", (batch, 3)), value("label", "INT64", (batch,))]
    inputs = [value("image", "FLOAT", (batch, 3, "H", "W"))]
    return model(nodes, inputs, outputs, opsets={"": 18}, initializer=[axes])


def gain() -> Any:
    """A signal times a scalar, and how long it is."""
    nodes = [node("Mul", "signal gain", "louder"), node("Size", "signal", "length")]
    inputs = [value("signal", "FLOAT", ("N", "T")), value("gain", "FLOAT", ())]
    return model(nodes, inputs, [value("louder", "FLOAT", ("N", "T")), value("length", "INT64", ())])


def tokens() -> Any:
    """Two inputs of one type, and text."""
    nodes = [node("Mul", "ids mask", "kept"), node("Identity", "text", "same")]
    inputs = [value("ids", "INT64", ("N", "T")), value("mask", "INT64", ("N", "T")), value("text", "STRING", ("N", 1))]
    return model(nodes, inputs, [value("kept", "INT64", ("N", "T")), value("same", "STRING", ("N", 1))])


# name → (model, config.pbtxt)
CASES: dict[str, tuple[Callable[[], Any], str]] = {
    "onnx-image": (image, ""),
    "onnx-image-fixed": (lambda: image(2), ""),
    "onnx-scalar": (gain, ""),
    "onnx-tokens": (tokens, ""),
    "onnx-batch-size": (image, "max_batch_size: 8"),
    "onnx-no-batching": (image, "max_batch_size: 0"),
    "onnx-own-batching": (image, "max_batch_size: 8 dynamic_batching { max_queue_delay_microseconds: 50 }"),
    "onnx-platform": (image, 'platform: "onnxruntime_onnx" instance_group { count: 2 kind: KIND_CPU }'),
    "onnx-one-output": (image, 'output { name: "scores" label_filename: "labels.txt" }'),
    "onnx-narrower": (image, 'max_batch_size: 4 input { name: "image" dims: [ 3, 32, 32 ] }'),
    "onnx-literal": (image, 'input { name: "image" data_type: TYPE_FP32 dims: [ -1, 3, 32, 32 ] }'),
    "onnx-one-input": (tokens, 'input { name: "mask" data_type: TYPE_INT64 }'),
    "onnx-scalar-written": (gain, 'input [ { name: "gain" dims: [ 1 ] }, { name: "signal" dims: [ -1, -1 ] } ]'),
    "onnx-renamed": (
        tokens,
        """max_batch_size: 2
        input [ { name: "token_ids" data_type: TYPE_INT64 dims: [ -1 ] }, { name: "mask" }, { name: "text" } ]
        parameters { key: "naiad.argument.token_ids" value { string_value: "ids" } }""",
    ),
    "onnx-parameters": (
        image,
        """parameters { key: "intra_op_thread_count" value { string_value: "2" } }
        parameters { key: "session.disable_prepacking" value { string_value: "1" } }
        optimization { graph { level: 1 } }""",
    ),
}


@pytest.fixture(scope="module")
def served(module_repository: Repository, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    repository = module_repository
    for name, (make, text) in CASES.items():
        repository.file(name, make().SerializeToString(), file="model.onnx")
        if text:
            (repository.root / name / "config.pbtxt").write_text(text)
        (repository.root / name / "labels.txt").write_text("red\ngreen\nblue\n")
    with serve(repository.root, tmp_path_factory.mktemp("log") / "log") as server:
        yield server.wait_ready(100)


@pytest.mark.parametrize("name", CASES)
def test_the_effective_configuration_is_the_golden_one(served, module_repository, name):
    golden.assert_golden(served, module_repository.root, "onnx", name)


def test_every_golden_file_has_its_case():
    golden.assert_complete("onnx", CASES)
