"""skops archives tell their estimator, features and classes; broken ones are refused, and nothing is imported."""

from __future__ import annotations

import io
import json
import random
import struct
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from naiad.errors import UnservableFile
from naiad.signature import sklearn as reader
from naiad.signature.model import Signature
from naiad.signature.recognise import read

from .archives import zipped


def json_node(value: Any) -> dict[str, Any]:
    return {"__class__": "str", "__module__": "builtins", "__loader__": "JsonNode", "content": json.dumps(value)}


def sequence(kind: str, *items: Any) -> dict[str, Any]:
    return {"__class__": kind, "__module__": "builtins", "__loader__": f"{kind.title()}Node", "content": list(items)}


def array(file: str) -> dict[str, Any]:
    return {"__class__": "ndarray", "__module__": "numpy", "__loader__": "NdArrayNode", "type": "numpy", "file": file}


def objects(*values: str) -> dict[str, Any]:
    """An array of objects."""
    node = {"__class__": "ndarray", "__module__": "numpy", "__loader__": "NdArrayNode", "type": "json"}
    return {**node, "content": [json_node(value) for value in values]}


def estimator(name: str, **attributes: Any) -> dict[str, Any]:
    module, _, kind = name.rpartition(".")
    names = sequence("list", *({"__class__": "str", "__module__": "builtins", "__loader__": "TypeNode"},) * 3)
    content = {"__class__": "dict", "__module__": "builtins", "__loader__": "DictNode", "content": attributes}
    content["key_types"] = names
    return {"__class__": kind, "__module__": module, "__loader__": "ObjectNode", "content": content}


def pipeline(*steps: dict[str, Any]) -> dict[str, Any]:
    pairs = [sequence("tuple", json_node(f"step{at}"), step) for at, step in enumerate(steps)]
    return estimator("sklearn.pipeline.Pipeline", steps=sequence("list", *pairs))


def npy(descr: str, count: int) -> bytes:
    head = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': ({count},), }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\0" + struct.pack("<H", len(head)) + head.encode()


LOGISTIC = estimator(
    "sklearn.linear_model._logistic.LogisticRegression", n_features_in_=json_node(4), classes_=array("1.npy")
)
SCALER = estimator("sklearn.preprocessing._data.StandardScaler", n_features_in_=json_node(7))


def written(path: Path, schema: Any, classes: bytes = npy("<i8", 3)) -> Path:
    text = schema if isinstance(schema, bytes) else json.dumps(schema, indent=2).encode()
    return zipped(path, {"1.npy": classes, "schema.json": text}, method=zipfile.ZIP_DEFLATED)


def told(path: Path, schema: Any, classes: bytes = npy("<i8", 3)) -> tuple[list[Any], list[Any]]:
    signature = read(written(path / "model.skops", schema, classes))
    return (
        [(tensor.name, tensor.datatype, tensor.dims) for tensor in signature.inputs],
        [(tensor.name, tensor.datatype, tensor.dims) for tensor in signature.outputs],
    )


def test_a_classifier_tells_its_features_and_classes(tmp_path):
    inputs, outputs = told(tmp_path, LOGISTIC)
    assert inputs == [("input", "FP32", (-1, 4))]
    assert outputs == [("label", "INT64", (-1, 1)), ("probabilities", "FP32", (-1, 3))]


@pytest.mark.parametrize(
    ("classes", "label"),
    [("<i8", "INT64"), ("<U10", "BYTES"), ("|b1", "BOOL"), ("<f8", "FP32"), ("|u1", "INT64"), ("|S3", "BYTES")],
)
def test_labels_have_the_datatype_of_the_classes(tmp_path, classes, label):
    assert told(tmp_path, LOGISTIC, npy(classes, 3))[1][0] == ("label", label, (-1, 1))


def test_classes_may_be_objects(tmp_path):
    model = estimator("sklearn.naive_bayes.GaussianNB", n_features_in_=json_node(2), classes_=objects("a", "b"))
    assert told(tmp_path, model)[1] == [("label", "BYTES", (-1, 1)), ("probabilities", "FP32", (-1, 2))]


def test_a_pipeline_takes_what_its_first_step_takes_and_gives_what_its_last_gives(tmp_path):
    for model in (pipeline(SCALER, LOGISTIC), pipeline(pipeline(SCALER), json_node("passthrough"), pipeline(LOGISTIC))):
        inputs, outputs = told(tmp_path, model)
        assert inputs == [("input", "FP32", (-1, 7))]
        assert [name for name, *_ in outputs] == ["label", "probabilities"]


def test_texts_are_one_string_a_row(tmp_path):
    texts = estimator("sklearn.feature_extraction.text.TfidfVectorizer")
    assert told(tmp_path, pipeline(texts, LOGISTIC))[0] == [("input", "BYTES", (-1, 1))]


def test_a_search_is_what_it_found_best(tmp_path):
    search = estimator("sklearn.model_selection._search.GridSearchCV", best_estimator_=pipeline(SCALER, LOGISTIC))
    assert told(tmp_path, search)[0] == [("input", "FP32", (-1, 7))]


@pytest.mark.parametrize(
    ("kind", "attributes", "outputs"),
    [
        ("sklearn.svm._classes.SVC", {}, ["label"]),
        ("sklearn.svm._classes.SVC", {"probability": json_node(True)}, []),
        ("sklearn.linear_model._ridge.RidgeClassifier", {}, ["label"]),
        ("sklearn.linear_model._stochastic_gradient.SGDClassifier", {}, []),
        ("mine.LogisticRegression", {}, []),
    ],
)
def test_probabilities_are_told_where_they_are_certain(tmp_path, kind, attributes, outputs):
    model = estimator(kind, n_features_in_=json_node(4), classes_=array("1.npy"), **attributes)
    assert [name for name, *_ in told(tmp_path, model)[1]] == outputs


def test_features_have_their_names(tmp_path):
    names = objects("width", "height")
    model = estimator("sklearn.cluster.KMeans", n_features_in_=json_node(2), feature_names_in_=names)
    (features,) = read(written(tmp_path / "model.skops", model)).inputs
    assert (features.type, features.by_convention) == ("2 features: width, height", True)


def test_a_method_that_is_asked_for_gives_what_the_dry_run_sees(tmp_path):
    path = written(tmp_path / "model.skops", LOGISTIC)
    assert read(path, {"method": "decision_function"}).outputs == ()


@pytest.mark.parametrize("count", [None, "4", -1, 0, 1.5, True, 1 << 40, [4], {"a": 4}])
def test_a_count_that_is_none_is_not_believed(tmp_path, count):
    model = estimator("sklearn.cluster.KMeans", n_features_in_=json_node(count))
    signature = read(written(tmp_path / "model.skops", model))
    assert (signature.inputs, signature.describes) == ((), True)


# -- hostile archives -------------------------------------------------------------------------------------------------

DEEP = b'{"__loader__": "ObjectNode", "content": ' * 20_000
BROKEN = {
    "nothing": b"",
    "no json": b"{",
    "a list": b"[]",
    "a number": b"1",
    "no estimator": b"{}",
    "deep objects": DEEP,
    "deep lists": b"[" * 50_000,
    "no text": b"\xff\xfe\xff",
    "half": json.dumps(LOGISTIC).encode()[:200],
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_schema_that_is_none_is_refused(tmp_path, case):
    with pytest.raises(UnservableFile) as caught:
        read(written(tmp_path / "model.skops", BROKEN[case]))
    assert caught.value.code == "TRUNCATED"
    assert "skops.io.dump" in caught.value.fix


@pytest.mark.parametrize(
    "schema", [b" " * (64 << 20), b"[" + b"1," * 3_000_000 + b"1]", b'{"a":' + b"[[],[]]," * 500_000 + b"}"]
)
def test_a_bomb_is_read_up_to_its_bound(tmp_path, monkeypatch, schema):
    path = written(tmp_path / "model.skops", schema)
    taken = []
    plain = zipfile.ZipExtFile.read

    def counting(self: zipfile.ZipExtFile, size: int | None = -1) -> bytes:
        data = plain(self, size)
        taken.append(len(data))
        return data

    monkeypatch.setattr(zipfile.ZipExtFile, "read", counting)
    monkeypatch.setattr(json, "loads", lambda *_, **__: pytest.fail("it was parsed"))
    signature = read(path)
    assert (signature.inputs, signature.describes) == ((), True)
    assert sum(taken) <= reader.MAX_SCHEMA + 1


def test_a_directory_that_claims_ten_gigabytes_is_not_believed(tmp_path):
    path = written(tmp_path / "model.skops", LOGISTIC)
    data = bytearray(path.read_bytes())
    at = data.rindex(b"PK\x01\x02")
    data[at + 24 : at + 28] = struct.pack("<I", 0xFFFFFFFE)
    path.write_bytes(data)
    try:
        assert read(path).format.startswith("scikit-learn")
    except UnservableFile as error:
        assert error.code == "TRUNCATED"


def test_an_archive_in_an_archive_is_data(tmp_path):
    inner = written(tmp_path / "inner.zip", LOGISTIC).read_bytes()
    for _ in range(5):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr("schema.json", inner)
        inner = buffer.getvalue()
    (tmp_path / "model.skops").write_bytes(inner)
    with pytest.raises(UnservableFile, match="not readable"):
        read(tmp_path / "model.skops")


@pytest.mark.parametrize(
    "header",
    [b"", b"\x93NUMPY\x01\0\xff\xff", b"\x93NUMPY\x02\0" + bytes(200), npy("<i8", 3)[:20], npy("O", 3), npy("<c8", 3),
     b"\x93NUMPY\x01\0" + struct.pack("<H", 80) + b"{'descr': '<i8', 'shape': (99999999999999,)}".ljust(80)],
)  # fmt: skip
def test_classes_that_are_not_readable_leave_the_outputs_to_the_dry_run(tmp_path, header):
    assert told(tmp_path, LOGISTIC, header)[1] == []


@pytest.mark.parametrize("file", ["../../etc/passwd", "gone.npy", "", "schema.json", 7])
def test_members_that_a_schema_names_are_looked_for_in_the_archive_alone(tmp_path, file):
    model = estimator("sklearn.naive_bayes.GaussianNB", n_features_in_=json_node(2), classes_=array("x"))
    model["content"]["content"]["classes_"]["file"] = file
    assert told(tmp_path, model)[1] == []


def test_every_flipped_byte_is_read_or_refused(tmp_path):
    good = written(tmp_path / "good.skops", pipeline(SCALER, LOGISTIC)).read_bytes()
    text = json.dumps(pipeline(SCALER, LOGISTIC)).encode()
    draw, path = random.Random(3), tmp_path / "model.skops"
    for at in [*range(0, len(good), 3), *range(len(good))[-80:]]:
        path.write_bytes(good[:at] + bytes([good[at] ^ 0xFF]) + good[at + 1 :])
        assert isinstance(_read_or_refuse(path), Signature | UnservableFile)
    for _ in range(300):
        at, byte = draw.randrange(len(text)), draw.randrange(256)
        written(path, text[:at] + bytes([byte]) + text[at + 1 :])
        assert isinstance(_read_or_refuse(path), Signature | UnservableFile)


def _read_or_refuse(path: Path) -> Signature | UnservableFile:
    try:
        return read(path)
    except UnservableFile as error:
        return error


def test_no_framework_is_imported(tmp_path):
    path = written(tmp_path / "model.skops", pipeline(SCALER, LOGISTIC))
    code = "import sys, pathlib; from naiad.signature.recognise import read; read(pathlib.Path(sys.argv[1])); "
    code += "sys.exit(bool({'sklearn', 'skops', 'numpy', 'joblib'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code, path], check=False, timeout=60).returncode == 0
