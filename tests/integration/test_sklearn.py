"""scikit-learn's estimators through a real server: answers are those of the library called directly."""

from __future__ import annotations

import json
import os
import sys
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from naiad.cli import inspect as command
from naiad.server.dry_run import DryRunOptions
from naiad.signature.recognise import read
from tests.support import estimators
from tests.support.estimators import TREE, iris, parameters, save, species
from tests.support.repository import Repository
from tests.support.server import Serve, serve

EXPLICIT = "--model-control-mode=explicit"
TRUSTED = parameters(naiad__trust_pickle="true")
PICKLE_IO = """
max_batch_size: 8
input { name: "input" data_type: TYPE_FP32 dims: [ 4 ] }
output { name: "label" data_type: TYPE_INT64 dims: [ 1 ] reshape { shape: [ ] } }
output { name: "probabilities" data_type: TYPE_FP32 dims: [ 3 ] }
"""


@pytest.fixture(scope="module")
def fitted() -> dict[str, Any]:
    """Model name → estimator."""
    estimators.need()
    import numpy as np
    from sklearn.decomposition import PCA
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
    from sklearn.ensemble import RandomForestRegressor, VotingClassifier
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.multioutput import MultiOutputClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    rows, classes = iris()
    texts = ["good wine", "bad wine", "good bread", "bad bread"] * 5
    return {
        "logistic": LogisticRegression(max_iter=500).fit(rows, classes),
        "pipeline": make_pipeline(StandardScaler(), LogisticRegression()).fit(rows, species(classes)),
        "margins": SVC().fit(rows, classes),
        "forest": RandomForestRegressor(n_estimators=5, n_jobs=-1, random_state=0).fit(rows, rows[:, 0] * 2),
        "lines": Ridge().fit(rows, rows[:, :2]),
        "turned": PCA(2).fit(rows),
        "texts": make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(texts, [1, 0, 1, 0] * 5),
        "wide": LogisticRegression(max_iter=500).fit(rows, classes),
        "distance": LogisticRegression(max_iter=500).fit(rows, classes),
        "targets": MultiOutputClassifier(LogisticRegression()).fit(rows, np.stack([classes, classes % 2], axis=1)),
        "voted": VotingClassifier(
            [("a", LogisticRegression()), ("b", LinearDiscriminantAnalysis())], voting="soft"
        ).fit(rows, classes),
        "short": Ridge().fit(rows, rows[:, 0] * 2),
    }


CONFIGURED = {
    "forest": parameters(trusted_types=TREE),
    "wide": 'input { name: "input" data_type: TYPE_FP64 dims: [ 4 ] } output { name: "probabilities" '
    "data_type: TYPE_FP64 dims: [ 3 ] } max_batch_size: 4",
    "short": 'input { name: "input" data_type: TYPE_BF16 dims: [ 4 ] } max_batch_size: 8',
    "distance": parameters(method="decision_function", methods="predict"),
    "voted": parameters(trusted_types="sklearn.utils._bunch.Bunch"),
}


@pytest.fixture(scope="module")
def server(
    fitted: dict[str, Any], module_repository: Repository, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Serve]:
    for name, model in fitted.items():
        save(model, module_repository.root / name / "1")
        if name in CONFIGURED:
            (module_repository.root / name / "config.pbtxt").write_text(CONFIGURED[name])
    with serve(module_repository.root, tmp_path_factory.mktemp("log") / "serve.log") as running:
        yield running.wait_ready()


@pytest.fixture(scope="module")
def explicit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Serve]]:
    """(repository, a server that loads what it is asked to load)."""
    estimators.need()
    root = Repository(tmp_path_factory.mktemp("explicit")).root
    with serve(root, tmp_path_factory.mktemp("log") / "serve.log", EXPLICIT) as running:
        yield root, running.wait_ready()


def ask(server: Serve, model: str, rows: Any, *, datatype: str = "FP32") -> dict[str, Any]:
    """Outputs by name, as arrays."""
    import numpy as np

    data = rows.reshape(-1).tolist()
    tensor = {"name": "input", "shape": list(rows.shape), "datatype": datatype, "data": data}
    answer = server.post(f"/v2/models/{model}/infer", {"inputs": [tensor]})
    assert answer.status == 200, answer.body
    kinds = {"FP32": "f4", "FP64": "f8", "INT64": "i8", "BYTES": object}
    return {
        output["name"]: np.array(output["data"], kinds[output["datatype"]]).reshape(output["shape"])
        for output in answer.json["outputs"]
    }


def io(server: Serve, model: str) -> tuple[list[Any], list[Any], int]:
    """(inputs, outputs, batch size) of the configuration."""
    config = server.get(f"/v2/models/{model}/config").json
    told = [[(t["name"], t["data_type"][5:], t["dims"]) for t in config[kind]] for kind in ("input", "output")]
    return told[0], told[1], config["max_batch_size"]


LABELS = ("label", "INT64", [1])
COMPLETED = {
    "logistic": ([("input", "FP32", [4])], [LABELS, ("probabilities", "FP32", [3])], 32),
    "pipeline": ([("input", "FP32", [4])], [("label", "STRING", [1]), ("probabilities", "FP32", [3])], 32),
    "margins": ([("input", "FP32", [4])], [LABELS], 32),
    "forest": ([("input", "FP32", [4])], [("output", "FP32", [1])], 32),
    "lines": ([("input", "FP32", [4])], [("output", "FP32", [2])], 32),
    "turned": ([("input", "FP32", [4])], [("output", "FP32", [2])], 32),
    "texts": ([("input", "STRING", [1])], [LABELS, ("probabilities", "FP32", [2])], 32),
    "wide": ([("input", "FP64", [4])], [("probabilities", "FP64", [3])], 4),
    "short": ([("input", "BF16", [4])], [("output", "FP32", [1])], 8),
    "distance": ([("input", "FP32", [4])], [("output", "FP32", [3])], 32),
    "targets": ([("input", "FP32", [4])], [("label", "INT64", [2])], 32),
    "voted": ([("input", "FP32", [4])], [LABELS, ("probabilities", "FP32", [3])], 32),
}


@pytest.mark.parametrize("name", COMPLETED)
def test_a_file_alone_tells_the_configuration(server, name):
    assert io(server, name) == COMPLETED[name]


@pytest.mark.parametrize("name", ["logistic", "pipeline", "margins", "targets", "voted"])
def test_labels_and_probabilities_are_those_of_the_library(server, fitted, name):
    import numpy as np

    rows = iris()[0][::7]
    given = ask(server, name, rows)
    assert given["label"].reshape(-1).tolist() == fitted[name].predict(rows).reshape(-1).tolist()
    if name not in ("margins", "targets"):
        assert np.array_equal(given["probabilities"], fitted[name].predict_proba(rows).astype("f4"))


def test_bf16_is_read_as_numbers_and_not_as_bits(server, fitted):
    import numpy as np

    rows = np.round(iris()[0][:5])  # which BF16 holds as they are
    given = ask(server, "short", rows, datatype="BF16")
    np.testing.assert_allclose(given["output"].reshape(-1), fitted["short"].predict(rows), rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "method"),
    [("forest", "predict"), ("lines", "predict"), ("turned", "transform"), ("distance", "decision_function")],
)
def test_values_are_those_of_the_library(server, fitted, name, method):
    import numpy as np

    rows = iris()[0][::7]
    expected = getattr(fitted[name], method)(rows)
    given = ask(server, name, rows)["output"]
    assert np.allclose(given, expected.astype("f4").reshape(given.shape), rtol=1e-6, atol=1e-6)


def test_datatypes_are_those_that_are_written(server, fitted):
    import numpy as np

    rows = iris()[0][:3].astype("f8") + 1e-9
    given = ask(server, "wide", rows, datatype="FP64")
    assert np.array_equal(given["probabilities"], fitted["wide"].predict_proba(rows))


def test_texts_are_strings(server, fitted):
    import numpy as np

    rows = np.array([["good cheese"], ["bad wine"]], dtype=object)
    given = ask(server, "texts", rows, datatype="BYTES")
    assert given["label"].reshape(-1).tolist() == fitted["texts"].predict(rows[:, 0]).tolist() == [1, 0]


def test_requests_at_the_same_time_are_batched(server, fitted):
    rows = iris()[0]
    expected = fitted["logistic"].predict(rows).tolist()
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda at: ask(server, "logistic", rows[at : at + 1])["label"].item(), range(150)))
    assert answers == expected
    (stats,) = server.get("/v2/models/logistic/stats").json["model_stats"]
    assert stats["execution_count"] < stats["inference_count"]


def test_a_wrong_number_of_features_is_the_clients_error(server):
    answer = server.infer("logistic", [1.0, 2.0], name="input")
    assert answer.status == 400
    assert "[-1,4]" in answer.error.replace(" ", "")


def test_a_worker_has_the_threads_that_it_may_have(server):
    """The forest was fitted to use every processor; its worker has its own thread and one that waits for the server."""
    for name in ("forest", "logistic"):
        ask(server, name, iris()[0][:4])
        pid = next(r["pid"] for r in server.records() if r["message"] == "worker ready" and r["model"] == name)
        threads = [Path(f"/proc/{pid}/task/{task}/comm").read_text() for task in os.listdir(f"/proc/{pid}/task")]
        assert len(threads) <= 3, threads


# -- what is not trusted ----------------------------------------------------------------------------------------------


def failure(server: Serve, model: str, body: Any = None) -> dict[str, Any]:
    """The record of a load that fails."""

    def records() -> list[dict[str, Any]]:
        return [r for r in server.records() if r["message"] == f"failed to load '{model}'"]

    before = len(records())
    answer = server.post(f"/v2/repository/models/{model}/load", body)
    assert answer.status == 400, answer.body
    return server.until(lambda: records()[before:], 20, "the log does not tell")[-1]


def load(server: Serve, model: str) -> None:
    answer = server.post(f"/v2/repository/models/{model}/load")
    assert answer.status == 200, answer.body


def test_types_that_are_not_trusted_are_named(explicit, fitted):
    root, server = explicit
    save(fitted["forest"], root / "types" / "1")
    record = failure(server, "types")
    assert record["code"] == "UNTRUSTED_TYPES"
    assert record["cause"] == f"'model.skops' holds types that skops does not trust: {TREE}"
    assert f'string_value: "{TREE}"' in record["fix"]


class Canary:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.write_text, (self.path, "x"))


FILES = ["model.pkl", "model.joblib"]


@pytest.mark.parametrize("file", FILES)
def test_a_pickle_runs_only_if_the_repository_trusts_it(explicit, tmp_path, file):
    root, server = explicit
    name, canary = f"canary-{file[6:]}", tmp_path / "canary"
    save(Canary(canary), root / name / "1", file)
    record = failure(server, name)
    assert (record["code"], record["stage"]) == ("UNSAFE_PICKLE", "signature")
    assert "skops.io.dump" in record["fix"]
    word = {"parameters": {"naiad.trust_pickle": {"string_value": "true"}}, "backend": "sklearn"}
    assert failure(server, name, {"parameters": {"config": json.dumps(word)}})["code"] == "UNSAFE_PICKLE"
    assert not canary.exists(), "a client of the server has made it open a pickle"
    (root / name / "config.pbtxt").write_text(TRUSTED + PICKLE_IO)
    assert failure(server, name)["code"] == "NOT_A_MODEL"
    assert canary.exists()


@pytest.mark.parametrize(("file", "written"), [(file, written) for file in FILES for written in ("", PICKLE_IO)])
def test_a_trusted_pickle_serves_as_it_is_written_or_describes_itself(explicit, fitted, file, written):
    root, server = explicit
    name = f"trusted-{file[6:]}-{bool(written)}"
    save(fitted["logistic"], root / name / "1", file)
    (root / name / "config.pbtxt").write_text(TRUSTED + written)
    load(server, name)
    expected = COMPLETED["logistic"]
    assert io(server, name) == (*expected[:2], 8 if written else expected[2])
    rows = iris()[0][:8]
    assert ask(server, name, rows)["label"].reshape(-1).tolist() == fitted["logistic"].predict(rows).tolist()


def test_a_trusted_pickle_may_take_texts(explicit, fitted):
    root, server = explicit
    save(fitted["texts"], root / "pickled-texts" / "1", "model.pkl")
    (root / "pickled-texts" / "config.pbtxt").write_text(TRUSTED)
    load(server, "pickled-texts")
    assert io(server, "pickled-texts") == COMPLETED["texts"]


def test_inspect_opens_a_trusted_pickle_only_if_it_may_run_it(tmp_path, fitted, capsys):
    save(fitted["logistic"], tmp_path / "m" / "1", "model.pkl")
    (tmp_path / "m" / "config.pbtxt").write_text(TRUSTED)
    assert command.inspect(tmp_path / "m", "json") == 0
    assert json.loads(capsys.readouterr().out)["open"] == ["input", "output"]
    assert command.inspect(tmp_path / "m", "json", run=DryRunOptions()) == 0
    document = json.loads(capsys.readouterr().out)
    assert [tensor["name"] for tensor in document["config"]["input"]] == ["input"]
    assert [tensor["name"] for tensor in document["config"]["output"]] == ["label", "probabilities"]


def test_a_schema_too_long_to_read_is_described_by_the_worker(explicit):
    """A forest of many trees: the schema has a value for each node."""
    from sklearn.ensemble import RandomForestClassifier

    root, server = explicit
    forest = RandomForestClassifier(n_estimators=600, max_depth=1, random_state=0).fit(*iris())
    assert read(save(forest, root / "many" / "1")).describes
    (root / "many" / "config.pbtxt").write_text(parameters(trusted_types=TREE))
    load(server, "many")
    assert io(server, "many") == COMPLETED["logistic"]
    rows = iris()[0][:8]
    assert ask(server, "many", rows)["label"].reshape(-1).tolist() == forest.predict(rows).tolist()


def test_what_the_saving_program_defined_itself_is_named(explicit, monkeypatch):
    """A pickle holds a function by its name only, and `__main__` is another program in the worker."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer

    def doubled(rows: Any) -> Any:
        return rows * 2

    doubled.__module__, doubled.__qualname__ = "__main__", "doubled"
    monkeypatch.setattr(sys.modules["__main__"], "doubled", doubled, raising=False)
    root, server = explicit
    model = make_pipeline(FunctionTransformer(doubled), LogisticRegression(max_iter=1000)).fit(*iris())
    save(model, root / "own" / "1", "model.pkl")
    (root / "own" / "config.pbtxt").write_text(TRUSTED)
    record = failure(server, "own")
    assert record["code"] == "MISSING_MODULE"
    assert record["cause"] == "'model.pkl' needs 'doubled', which the program that saved it defined itself"
    assert "put it into a module" in record["fix"]


@pytest.mark.parametrize("file", ["model.skops", "model.pkl"])
def test_an_estimator_that_was_never_fitted_says_so(explicit, file):
    from sklearn.linear_model import LogisticRegression

    root, server = explicit
    name = f"unfitted-{file[6:]}"
    save(LogisticRegression(), root / name / "1", file)
    (root / name / "config.pbtxt").write_text(TRUSTED)
    record = failure(server, name)
    assert (record["code"], "after fit()" in record["fix"]) == ("NOT_A_MODEL", True)
    assert record["cause"] == f"'{file}' holds a LogisticRegression that was never fitted"


@pytest.mark.parametrize("file", ["model.skops", "model.pkl"])
def test_columns_that_are_chosen_by_name_are_refused(explicit, file):
    """Rows have no names: such a model would load and then fail at every request."""
    from sklearn.compose import ColumnTransformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(ColumnTransformer([("scaled", StandardScaler(), [1])]), LogisticRegression()).fit(*iris())
    ((step, scaler, _), *rest) = model[0].transformers_
    model[0].transformers_ = [(step, scaler, ["width"]), *rest]  # as a table's columns are kept
    root, server = explicit
    name = f"columns-{file[6:]}"
    save(model, root / name / "1", file)
    (root / name / "config.pbtxt").write_text(TRUSTED + parameters(trusted_types="builtins.slice"))
    record = failure(server, name)
    assert record["code"] == "IO_UNSUPPORTED", record
    assert record["cause"] == "the model chooses columns by name (width), and rows come without names"
    assert "skl2onnx.to_onnx" in record["fix"]


# -- what does not fit ------------------------------------------------------------------------------------------------


def test_another_version_of_the_library_is_in_the_log(explicit, fitted):
    import sklearn

    root, server = explicit
    path = save(fitted["logistic"], root / "old" / "1")
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    now = f'\\"{sklearn.__version__}\\"'.encode()
    assert now in members["schema.json"]
    members["schema.json"] = members["schema.json"].replace(now, b'\\"1.2.0\\"')
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    load(server, "old")
    told = server.until(
        lambda: [r["message"] for r in server.records() if "InconsistentVersionWarning" in r["message"]],
        20,
        "no warning",
    )
    assert "1.2.0" in told[0]


def test_a_parameter_without_a_meaning_is_named(server):
    def named() -> list[str]:
        return [r["message"] for r in server.records() if "does not use it" in r["message"]]

    server.until(named, 10, "no parameter is named")
    assert set(named()) == {"WARNING: parameter methods: the sklearn backend does not use it"}


@pytest.mark.parametrize(
    ("name", "text", "code", "words"),
    [
        (
            "backend",
            'backend: "pytorch" default_model_filename: "model.skops"',
            "BACKEND_MISMATCH",
            'backend: "sklearn"',
        ),
        ("dims", 'input { name: "input" data_type: TYPE_FP32 dims: [ 5 ] }', "IO_MISMATCH", "[-1, 4]"),
        ("method", parameters(method="transform"), "CONFIG_INVALID", "decision_function, predict"),
    ],
)
def test_a_configuration_that_does_not_fit_has_its_code(explicit, fitted, name, text, code, words):
    root, server = explicit
    save(fitted["logistic"], root / name / "1")
    (root / name / "config.pbtxt").write_text(text)
    record = failure(server, name)
    assert record["code"] == code
    assert words in record["cause"] + record.get("fix", "")
