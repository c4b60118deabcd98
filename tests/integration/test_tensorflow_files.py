"""TensorFlow files as they come: the configurations that they give, against golden files, and how broken ones fail."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support import golden
from tests.support.repository import Repository
from tests.support.server import Serve, serve
from tests.support.tensorflow_models import Models

# name → (model, its file in the version folder, config.pbtxt)
CASES = {
    "tensorflow-plain": ("add-sub", "model.savedmodel", ""),
    "tensorflow-serving": ("add-sub", "", ""),
    "tensorflow-texts": ("texts", "texts.savedmodel", ""),
    "tensorflow-shapes": ("shapes", "model.savedmodel", ""),
    "tensorflow-types": ("types", "model.savedmodel", ""),
    "tensorflow-keras": ("pair.keras", "model.keras", ""),
    "tensorflow-signature": (
        "several", "model.savedmodel",
        """platform: "tensorflow_savedmodel"
        input { name: "x" data_type: TYPE_FP32 dims: [ 2, 3 ] }
        parameters { key: "TF_SIGNATURE_DEF" value { string_value: "half" } }""",
    ),
    "tensorflow-batch-size": ("add-sub", "model.savedmodel", "max_batch_size: 4"),
    "tensorflow-one-output": ("add-sub", "model.savedmodel", 'output { name: "sum" label_filename: "labels.txt" }'),
}  # fmt: skip


def truncated(file: Path) -> None:
    data = (file / "saved_model.pb").read_bytes()
    (file / "saved_model.pb").write_bytes(data[: len(data) // 2])


def unknown_operator(file: Path) -> None:
    data = (file / "saved_model.pb").read_bytes()
    assert b"AddV2" in data
    (file / "saved_model.pb").write_bytes(data.replace(b"AddV2", b"AddV9"))


def damaged_weights(file: Path) -> None:
    path = next((file / "variables").glob("variables.data-*"))
    path.write_bytes(bytes(len(path.read_bytes())))


def damaged_index(file: Path) -> None:
    (file / "variables" / "variables.index").write_bytes(b"index")


def damaged_archive(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-300])


def nothing(file: Path) -> None:
    pass


# name → (model, what is done to its file, config.pbtxt, stage, code, cause)
BROKEN: dict[str, tuple[str, Callable[[Path], None], str, str, str, str]] = {
    "graph": ("add-sub", truncated, "", "signature", "TRUNCATED", "is no SavedModel or breaks off"),
    "variables": (
        "exported", lambda file: shutil.rmtree(file / "variables"), "", "signature", "TRUNCATED",
        "'model.savedmodel' lacks variables/variables.index",
    ),
    "operator": (
        "add-sub", unknown_operator, "", "load", "MISSING_OP",
        "'model.savedmodel' uses the operator 'AddV9', which this TensorFlow does not have",
    ),
    "weights": ("exported", damaged_weights, "", "load", "FILE_UNREADABLE", "Checksum does not match"),
    "index": ("exported", damaged_index, "", "load", "FILE_UNREADABLE", "'model.savedmodel': file is too short"),
    "archive": ("functional.keras", damaged_archive, "", "signature", "TRUNCATED", "a zip archive that breaks off"),
    "lambda": ("lambda.keras", nothing, "", "signature", "UNSAFE_CODE", "holds a Lambda layer 'lambda'"),
    "signature": (
        "several", nothing, "", "signature", "CONFIG_INVALID",
        "has several signatures and no 'serving_default': half, twice",
    ),
    "tags": ("old", nothing, "", "signature", "CONFIG_INVALID", "has no graph with the tags 'serve'"),
    "rank": (
        "several", nothing, 'parameters { key: "signature" value { string_value: "half" } }', "configuration",
        "CONFIG_INVALID", "it takes (x), but not their shapes",
    ),
    "datatype": (
        "add-sub", nothing, 'input [ { name: "a" data_type: TYPE_INT32 dims: [ -1, 4 ] }, { name: "b" } ]',
        "configuration", "DTYPE_MISMATCH", "expected TYPE_FP32 as declared in the file",
    ),
    "shape": (
        "add-sub", nothing, 'max_batch_size: 2 input [ { name: "a" dims: [ 5 ] }, { name: "b" } ]',
        "configuration", "IO_MISMATCH", "as in the declared shape [-1, 4], got [-1, 5]",
    ),
    "threads": (
        "add-sub", nothing, 'parameters { key: "TF_NUM_INTER_THREADS" value { string_value: "many" } }', "load",
        "CONFIG_INVALID", "parameters 'TF_NUM_INTER_THREADS': expected a number of threads, got 'many'",
    ),
    "operators": (
        "add-sub", nothing, 'parameters { key: "TF_INIT_OPS_FILE" value { string_value: "../x.json" } }', "load",
        "CONFIG_INVALID", "parameters 'TF_INIT_OPS_FILE': expected a file's name, got '../x.json'",
    ),
    "graphdef": (
        "add-sub", nothing, 'platform: "tensorflow_graphdef"', "configuration", "FORMAT_NOT_SERVED",
        "frozen graphs are not served",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def served(
    tensorflow_models: Models, module_repository: Repository, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Serve]:
    root = module_repository.root
    for name, (model, file, text) in CASES.items():
        tensorflow_models.install(model, root, model=name, file=file or ".", config=text)
        (root / name / "labels.txt").write_text("one\ntwo\n")
    for name, (model, spoil, text, *_) in BROKEN.items():
        spoil(tensorflow_models.install(model, root, model=name, config=text))
    with serve(root, tmp_path_factory.mktemp("log") / "serve.log") as server:
        yield server.wait_settled(*CASES, *BROKEN, seconds=110)


@pytest.mark.parametrize("name", CASES)
def test_the_effective_configuration_is_the_golden_one(served, module_repository, name):
    golden.assert_golden(served, module_repository.root, "tensorflow", name)


def test_every_golden_file_has_its_case():
    golden.assert_complete("tensorflow", CASES)


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_model_says_what_is_wrong(served, name):
    *_, stage, code, cause = BROKEN[name]
    row = served.index()[name]
    assert row["state"] == "UNAVAILABLE"
    record = next(r for r in served.records() if r.get("model") == name and r["level"] == "error")
    assert (record["stage"], record["code"]) == (stage, code), record
    assert cause in record["cause"]
    assert cause in row["reason"]
    for text in (row["reason"], record["cause"], record.get("fix", "")):
        assert "/tmp" not in text
        assert "pytest" not in text


def test_broken_models_end_no_server(served):
    assert served.get("/v2/health/live").status == 200
    assert served.process.poll() is None
