"""Keras archives are read without Keras: inputs, and whether code would have to run."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

from naiad.errors import UnservableFile
from naiad.signature.model import Signature
from naiad.signature.recognise import read


def archive(path: Path, config: object, *, raw: bytes | None = None) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("metadata.json", "{}")
        file.writestr("config.json", json.dumps(config) if raw is None else raw)
        file.writestr("model.weights.h5", b"\x89HDF")
    return path


def layer(kind: str, name: str, **config: object) -> dict[str, object]:
    return {"module": "keras.layers", "class_name": kind, "config": {"name": name, **config}, "registered_name": None}


def functional(*layers: object, **config: object) -> dict[str, object]:
    return {"module": "keras", "class_name": "Functional", "config": {"layers": list(layers), **config}}


def entrance(name: str, *shape: int | None, dtype: object = "float32", key: str = "batch_shape") -> dict[str, object]:
    return layer("InputLayer", name, dtype=dtype, **{key: list(shape)})


def refusal(path: Path) -> UnservableFile:
    with pytest.raises(UnservableFile) as caught:
        read(path)
    assert caught.value.fix
    return caught.value


def inputs(signature: Signature) -> list[tuple[object, ...]]:
    return [(t.name, t.datatype, t.shape, t.dims) for t in signature.inputs]


# -- as Keras wrote them -----------------------------------------------------------------------------------------------


def test_a_functional_model_tells_its_inputs(tensorflow_models):
    signature = read(tensorflow_models.path("functional.keras"))
    assert (signature.format, signature.backend) == ("Keras (Functional)", "tensorflow")
    assert inputs(signature) == [("features", "FP32", None, (-1, 8))]


def test_inputs_of_a_dictionary_come_in_the_order_of_its_keys(tensorflow_models):
    signature = read(tensorflow_models.path("pair.keras"))
    assert inputs(signature) == [("a", "FP32", None, (-1, 3)), ("b", "INT32", None, (-1, 4))]


def test_a_sequential_model_tells_its_input(tensorflow_models):
    signature = read(tensorflow_models.path("sequential.keras"))
    assert signature.format == "Keras (Sequential)"
    assert [(t.datatype, t.dims) for t in signature.inputs] == [("FP32", (-1, 8))]


def test_a_lambda_layer_is_refused_by_name(tensorflow_models):
    error = refusal(tensorflow_models.path("lambda.keras"))
    assert error.what == "'lambda.keras' holds a Lambda layer 'lambda', whose code would run when it is loaded"
    assert (error.kind, error.code) == ("code", "UNSAFE_CODE")


# -- as others may have written them -----------------------------------------------------------------------------------


def test_the_content_decides_and_not_the_name(tmp_path):
    assert read(archive(tmp_path / "net.zip", functional(entrance("x", None, 2)))).backend == "tensorflow"


def test_datatypes_policies_and_older_names_are_read(tmp_path):
    policy = {"module": "keras", "class_name": "DTypePolicy", "config": {"name": "bfloat16"}}
    model = functional(
        entrance("t", None, 1, dtype="string"),
        entrance("h", None, None, 3, dtype=policy),
        entrance("o", None, 2, key="batch_input_shape"),
        entrance("q", None, 2, dtype="complex64"),
        input_layers=[["t", 0, 0], ["h", 0, 0], ["o", 0, 0], ["q", 0, 0]],
    )
    assert inputs(read(archive(tmp_path / "m.keras", model))) == [
        ("t", "BYTES", None, (-1, 1)),
        ("h", "BF16", None, (-1, -1, 3)),
        ("o", "FP32", None, (-1, 2)),
        ("q", None, None, (-1, 2)),
    ]


def test_where_no_layer_takes_the_input_its_shape_is_what_the_model_was_built_with(tmp_path):
    model = {"module": "keras", "class_name": "Sequential", "config": {"layers": [layer("Dense", "d")]}}
    told = archive(tmp_path / "a.keras", {**model, "build_config": {"input_shape": [None, 5]}})
    assert inputs(read(told)) == [("input_0", "FP32", None, (-1, 5))]
    called = archive(tmp_path / "b.keras", {**model, "build_config": {"input_shape": [1, 5]}})
    assert inputs(read(called)) == [("input_0", "FP32", (1, 5), None)]
    unbuilt = read(archive(tmp_path / "c.keras", model))
    assert unbuilt.warnings == ("the file does not tell the inputs of the model; begin it with an Input layer",)
    assert not unbuilt.complete


CODE = {
    "a Lambda in a model in a model": (
        functional(functional(layer("Lambda", "deep"))), "holds a Lambda layer 'deep', whose code would run"
    ),
    "bytecode": (
        functional(layer("Dense", "d", activation={"class_name": "__lambda__", "config": {"value": "4w=="}})),
        "holds a Lambda layer, whose code would run",
    ),
    "a registered class": (
        {"module": None, "class_name": "Net", "config": {"name": "n"}, "registered_name": "mine>Net"},
        "holds mine>Net 'n', a class that is not one of Keras' own",
    ),
    "a module": (
        functional({"module": "os", "class_name": "system", "config": "true", "registered_name": None}),
        "holds os.system, a class that is not one of Keras' own",
    ),
    "a module that is called alike": (
        functional({"module": "keras_evil.layers", "class_name": "Dense", "config": {}}),
        "holds keras_evil.layers.Dense",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("model", "what"), CODE.values(), ids=CODE.keys())
def test_code_is_refused_wherever_it_stands(tmp_path, model, what):
    error = refusal(archive(tmp_path / "m.keras", model))
    assert error.code == "UNSAFE_CODE"
    assert what in error.what


NESTED = b'{"config":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
HOSTILE = {
    "no JSON": b"\x00\x01",
    "nothing": b"",
    "a list": b"[]",
    "no model": b'{"class_name": "Functional"}',
    "deep": NESTED,
    "a bomb": b'{"config": {}, "x": "' + b" " * (64 << 20) + b'"}',
}


@pytest.mark.parametrize("raw", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_configurations_are_refused(tmp_path, raw):
    error = refusal(archive(tmp_path / "m.keras", {}, raw=raw))
    assert (error.kind, error.code) == ("truncated", "TRUNCATED")


STRANGE = [
    functional(None, 5, "x", {"class_name": "InputLayer"}, {"class_name": "InputLayer", "config": []}),
    functional(entrance("x", "two", 3), input_layers=[["x"], 7, {"k": [["x", 0, 0]]}]),
    functional(entrance("x", *[1] * 40), input_layers={"a": 1}),
    functional(entrance("x", None, 2, dtype=7), layers=3),
    {"config": {"build_input_shape": [-5, True]}, "build_config": []},
    {"config": {}, "build_config": {"input_shape": {"a": [1]}}},
]


@pytest.mark.parametrize("model", STRANGE)
def test_strange_configurations_are_read_as_far_as_they_go(tmp_path, model):
    assert not read(archive(tmp_path / "m.keras", model)).complete


def test_a_member_that_is_damaged_is_a_refusal(tmp_path):
    path = archive(tmp_path / "m.keras", functional(entrance("x", None, 2)))
    data = bytearray(path.read_bytes())
    at = data.index(b"config.json") + len("config.json")
    data[at : at + 8] = b"\xff" * 8
    path.write_bytes(data)
    assert refusal(path).code == "TRUNCATED"
