"""skops archives: which scikit-learn estimator, how many features, which classes, without importing either library.

Source: `schema.json` as skops 0.11 to 0.16 writes it: a tree of nodes with `__class__`, `__module__`, `__loader__` and
`content`; arrays lie beside it as `.npy` members.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from naiad.errors import UnservableFile
from naiad.signature.archive import Archive
from naiad.signature.model import Signature, TensorSignature

MAX_SCHEMA = 4 << 20
MAX_VALUES = 60_000
"""Bytes and values of a schema that is read; a forest of 150 trees has so many. The worker tells of a larger one."""
MAX_STEPS = 1_000
MAX_HEADER = 4096
"""Bytes of an array in which its datatype and shape stand."""
MAX_FEATURES = 1 << 24
INPUT, LABEL, PROBABILITIES, OUTPUT = "input", "label", "probabilities", "output"

_KEPT = ("n_features_in_", "feature_names_in_", "classes_", "steps", "probability", "best_estimator_")
_TEXT = frozenset({"CountVectorizer", "HashingVectorizer", "TfidfVectorizer"})
"""First steps that take texts."""
_PLAIN = frozenset({"LinearSVC", "Perceptron", "PassiveAggressiveClassifier", "RidgeClassifier", "RidgeClassifierCV"})
"""Classifiers without `predict_proba`."""
_PROBABLE = re.compile(
    r"LogisticRegression(CV)?|.*(Forest|Trees|Tree|Boosting|Neighbors|NB|MLP|Bagging|AdaBoost)(Classifier)?"
    r"|(Linear|Quadratic)DiscriminantAnalysis|GaussianProcessClassifier"
)
"""Classifiers that always have it."""


@dataclass(frozen=True, slots=True)
class _Node:
    """An object of the schema: its class and those of its attributes that tell something."""

    name: str
    attributes: dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Array:
    """An array that lies in a member."""

    file: str


def read_skops(path: Path, archive: Archive, parameters: Mapping[str, str]) -> Signature:
    """The signature of a skops archive; raises `UnservableFile`.

    Input `input` is FP32 [-1, features], or BYTES [-1, 1] where the first step takes texts. A classifier gives
    `label` [-1, 1] and, where it has them, `probabilities` FP32 [-1, classes]; a parameter `method` asks for others.
    """
    text = archive.head("schema.json", MAX_SCHEMA + 1)
    if text is None:
        raise _broken(path, "its schema.json is damaged")
    if len(text) > MAX_SCHEMA or text.count(b",") + text.count(b"[") + text.count(b"{") > MAX_VALUES:
        return Signature(format="scikit-learn (skops)", backend="sklearn", inputs=(), describes=True)
    try:
        model = json.loads(text, object_pairs_hook=_shrunk)
    except (ValueError, RecursionError) as error:
        why = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise _broken(path, f"its schema.json is not readable: {why}") from error
    if not isinstance(model, _Node):
        raise _broken(path, "its schema.json describes no estimator")
    signature = _signature(model, archive)
    return replace(signature, outputs=()) if "method" in parameters else signature


def _broken(path: Path, why: str) -> UnservableFile:
    fix = "save it again: skops.io.dump(model, 'model.skops')"
    return UnservableFile(f"'{path.name}' is no skops archive: {why}", fix, kind="skops", code="TRUNCATED")


def _shrunk(pairs: list[tuple[str, Any]]) -> Any:
    """A node of the schema as what matters of it, so that the whole tree is never held; other objects are dropped."""
    node = dict(pairs)
    content = node.get("content")
    kind = node.get("__loader__")
    if kind is None:  # the content of a dictionary's node
        return {key: node[key] for key in _KEPT if key in node}
    if kind == "JsonNode":
        return _value(content)
    if kind == "NdArrayNode" and isinstance(node.get("file"), str):
        return _Array(node["file"])
    if kind in ("ListNode", "TupleNode", "NdArrayNode", "DictNode"):
        return content
    name, module = node.get("__class__"), node.get("__module__")
    if kind == "TypeNode" or not isinstance(name, str) or not isinstance(module, str):
        return None
    return _Node(f"{module}.{name}", content if isinstance(content, dict) else {})


def _value(text: Any) -> Any:
    """A JsonNode's number, text or truth; containers are of no use here."""
    if not isinstance(text, str) or len(text) > 1000 or text[:1] in ("[", "{"):
        return None
    try:
        return json.loads(text)
    except ValueError:
        return None


def _steps(model: _Node) -> list[_Node]:
    """The estimators of a pipeline in their order, also of one that is a step of another; else the model itself."""
    found: list[_Node] = []
    waiting = [model]
    while waiting and len(found) < MAX_STEPS:
        node = _chosen(waiting.pop(0))
        steps = node.attributes.get("steps") if node.name.rpartition(".")[2] == "Pipeline" else None
        if not isinstance(steps, list):
            found.append(node)
            continue
        pairs = [step for step in steps if isinstance(step, list) and len(step) == 2]
        waiting[:0] = [estimator for _, estimator in pairs if isinstance(estimator, _Node)]
    return found or [model]


def _chosen(node: _Node) -> _Node:
    """The estimator that a search has found best, for a search."""
    best = node.attributes.get("best_estimator_") if node.name.endswith("SearchCV") else None
    return best if isinstance(best, _Node) else node


def _signature(model: _Node, archive: Archive) -> Signature:
    steps = _steps(model)
    first, last = steps[0], steps[-1]
    kind = last.name.rpartition(".")[2]
    format_ = f"scikit-learn (skops, {kind[:100]})"
    outputs = _outputs(last, _header(archive, last.attributes.get("classes_")))
    if first.name.rpartition(".")[2] in _TEXT:
        text = TensorSignature(name=INPUT, type="texts", datatype="BYTES", dims=(-1, 1))
        return Signature(format=format_, backend="sklearn", inputs=(text,), outputs=outputs)
    counts = [step.attributes.get("n_features_in_") for step in (model, first)]
    count = next((n for n in counts if type(n) is int and 0 < n <= MAX_FEATURES), None)
    if count is None:  # a property of the estimator knows it, or nothing: a worker tells
        return Signature(format=format_, backend="sklearn", inputs=(), outputs=outputs, describes=True)
    names = first.attributes.get("feature_names_in_")
    told = isinstance(names, list) and len(names) == count and all(isinstance(name, str) for name in names)
    type_ = f"{count} features" + (f": {', '.join(names)}"[:1000] if told and isinstance(names, list) else "")
    features = TensorSignature(name=INPUT, type=type_, datatype="FP32", dims=(-1, count), by_convention=True)
    return Signature(format=format_, backend="sklearn", inputs=(features,), outputs=outputs)


def _outputs(last: _Node, classes: tuple[str, int] | None) -> tuple[TensorSignature, ...]:
    """Those of a classifier that is known to have probabilities or none; others are told by the dry run."""
    kind = last.name.rpartition(".")[2]
    if classes is None or not last.name.startswith("sklearn."):
        return ()
    datatype, count = classes
    label = TensorSignature(name=LABEL, type="class", datatype=datatype, dims=(-1, 1))
    if kind in _PLAIN or (kind in ("SVC", "NuSVC") and last.attributes.get("probability") is not True):
        return (label,)
    if _PROBABLE.fullmatch(kind) is None:
        return ()
    return (label, TensorSignature(name=PROBABILITIES, type="probability", datatype="FP32", dims=(-1, count)))


_LABELS = {"i": "INT64", "u": "INT64", "b": "BOOL", "f": "FP32", "U": "BYTES", "S": "BYTES"}


def _header(archive: Archive, classes: Any) -> tuple[str, int] | None:
    """The datatype of the labels and how many classes there are; None where nothing tells."""
    if isinstance(classes, list):  # an array of objects is written as a list
        texts = classes and all(isinstance(name, str) for name in classes)
        return ("BYTES", len(classes)) if texts else None
    if not isinstance(classes, _Array):
        return None
    head = archive.head(classes.file, MAX_HEADER)
    if head is None or head[:7] != b"\x93NUMPY\x01" or len(head) < 10:
        return None
    (length,) = struct.unpack_from("<H", head, 8)
    text = head[10 : 10 + length].decode("latin-1")
    found = re.search(r"'descr': '[<>|=]([a-zA-Z])\d*'.*'shape': \((\d{1,9}),\)", text)
    if found is None or found[1] not in _LABELS:
        return None
    return _LABELS[found[1]], int(found[2])
