"""What contradicts what, and which counts: nothing is settled silently, and what fits both is no conflict."""

from __future__ import annotations

import re
from typing import Any

import pytest

from naiad.backends import pytorch
from naiad.config import declared, pbtxt
from naiad.config.autocomplete import complete
from naiad.config.preview import after_run, preview
from naiad.config.probe import probe_request
from naiad.errors import ConfigError
from naiad.signature.model import Signature, TensorSignature

SOURCE = "config.pbtxt"
INPUT = 'input { name: "x" data_type: TYPE_FP32 dims: [ 4 ] }\n'


def file(*, dims: tuple[int, ...] | None, outputs: dict[str, tuple[int, ...]], **fields: Any) -> Signature:
    example = None if dims is not None else (1, 4)
    given = TensorSignature(name="x", type="T", datatype="FP32", dims=dims, shape=example)
    told = tuple(TensorSignature(name=name, type="T", datatype="FP32", dims=dims) for name, dims in outputs.items())
    return Signature(format="F", backend="pytorch", inputs=(given,), outputs=told, **fields)


TRACED = file(dims=None, outputs={})
DECLARED = file(dims=(-1, 4), outputs={"y": (-1, 10)}, max_batch=8)


@pytest.mark.parametrize("names", [("first", "OUTPUT__0"), ("OUTPUT__1", "last"), ("y", "RESULT[0]")])
def test_no_output_of_the_model_is_given_twice(names):
    """A name that is taken by its place would silently give the values of another."""
    report = seen([-1, 4])
    report["outputs"] *= 2
    report["outputs"][1] = {**report["outputs"][0], "name": "z"}
    with pytest.raises(ConfigError, match=f"output '{re.escape(names[1])}': it is the model's '.', and so is '"):
        conflicts(output("[ 4 ]", name=names[0]) + output("[ 4 ]", name=names[1]), TRACED, report)


@pytest.mark.parametrize("number", ["9" * 9, "9" * 5000])
@pytest.mark.parametrize("name", ["OUTPUT__{}", "RESULT[{}]"])
def test_the_number_in_a_name_may_have_any_length(name, number):
    with pytest.raises(ConfigError, match="the model gives 1"):
        conflicts(output("[ 4 ]") + output("[ 4 ]", name=name.format(number)), TRACED, seen([-1, 4]))


def seen(dims: list[int], *, name: str = "y", datatype: str = "FP32", varying: list[bool] | None = None) -> Any:
    outputs = [{"name": name, "datatype": datatype, "dims": dims}]
    return {"outputs": outputs, "batchable": True, "reason": "", "varying": {"x": varying or [False, False]}}


def output(dims: str, *, name: str = "y", datatype: str = "FP32", extra: str = "") -> str:
    return f'output {{ name: "{name}" data_type: TYPE_{datatype} dims: {dims} {extra} }}\n'


def conflicts(text: str, signature: Signature, report: Any) -> list[tuple[str, dict[str, Any], str]]:
    """What the finished configuration and the preview after a run list alike; without a report, a preview."""
    partial = pbtxt.parse(text, SOURCE) if text else pbtxt.empty()
    if report is None:
        found = preview(partial, pytorch.BACKEND, name="m", signature=signature).conflicts
    else:
        probed = probe_request(partial, signature)
        completed = complete(partial, pytorch.BACKEND, name="m", report=report, probed=probed)
        shown = after_run(partial, pytorch.BACKEND, name="m", signature=signature, run=(probed, report))
        found = completed.conflicts
        assert shown.conflicts == found
    return [(conflict.field, dict(conflict.says), conflict.won) for conflict in found]


BATCHED = "max_batch_size: 8\n" + INPUT


@pytest.mark.parametrize(
    ("text", "signature", "report", "expected"),
    [
        (BATCHED + output("[ 3 ]"), TRACED, seen([-1, 10]),
         ("output.y.dims", {SOURCE: [3], "dry run": [10]}, SOURCE)),
        (BATCHED + output("[ 5, 2 ]"), TRACED, seen([-1, 10]),
         ("output.y.dims", {SOURCE: [5, 2], "dry run": [10]}, SOURCE)),
        (BATCHED + output("[ 3 ]"), DECLARED, seen([-1, 10]),
         ("output.y.dims", {SOURCE: [3], "file": [10], "dry run": [10]}, SOURCE)),
        (BATCHED + output("[ 3 ]"), DECLARED, None, ("output.y.dims", {SOURCE: [3], "file": [10]}, SOURCE)),
        (BATCHED + output("[ 3 ]"), DECLARED, seen([-1, 3]), ("output.y.dims", {SOURCE: [3], "file": [10]}, SOURCE)),
        (INPUT.replace("[ 4 ]", "[ 1, 4 ]") + output("[ 2, 10 ]"), TRACED, seen([1, 10]),
         ("output.y.dims", {SOURCE: [2, 10], "dry run": [1, 10]}, SOURCE)),
        ("", DECLARED, seen([-1, 3]), ("output.y.dims", {"file": [10], "dry run": [3]}, "dry run")),
        ("", DECLARED, seen([-1, 10], datatype="FP16"),
         ("output.y.data_type", {"file": "FP32", "dry run": "FP16"}, "dry run")),
        (BATCHED + output("[ 10 ]", datatype="FP16"), DECLARED, seen([-1, 10], datatype="FP16"),
         ("output.y.data_type", {SOURCE: "FP16", "file": "FP32"}, SOURCE)),
        (BATCHED + output("[ 10 ]", name="z"), DECLARED, seen([-1, 10]),
         ("output.z.name", {SOURCE: "z", "dry run": "y"}, SOURCE)),
        (BATCHED + output("[ 10 ]", name="z"), DECLARED, None, ("output.z.name", {SOURCE: "z", "file": "y"}, SOURCE)),
        (BATCHED.replace("[ 4 ]", "[ -1 ]"), TRACED, seen([-1, 10]),
         ("input.x.dims", {SOURCE: [-1], "dry run": [4]}, SOURCE)),
        (BATCHED.replace("[ 4 ]", "[ -1 ]"), DECLARED, None, ("input.x.dims", {SOURCE: [-1], "file": [4]}, SOURCE)),
        (BATCHED.replace("[ 4 ]", "[ -1 ]"), DECLARED, seen([-1, 10]),
         ("input.x.dims", {SOURCE: [-1], "file": [4]}, SOURCE)),
    ],
)  # fmt: skip
def test_a_contradiction_is_listed_with_what_each_says(text, signature, report, expected):
    assert conflicts(text, signature, report) == [expected]


@pytest.mark.parametrize(
    ("text", "signature", "report"),
    [
        ("", TRACED, seen([-1, 10])),
        ("", DECLARED, seen([-1, 10])),
        (BATCHED + output("[ 10 ]"), DECLARED, seen([-1, 10])),
        (BATCHED + output("[ -1 ]"), DECLARED, seen([-1, 10])),
        (BATCHED + output("[ 10 ]"), TRACED, seen([-1, -1], varying=[False, True])),
        (BATCHED + output("[ 2, 5 ]", extra="reshape { shape: [ 10 ] }"), DECLARED, seen([-1, 10])),
        (BATCHED + output("[ 10 ]", name="OUTPUT__0"), DECLARED, None),
        (BATCHED + output("[ 10 ]", name="z"), TRACED, seen([-1, 10], name="OUTPUT__0")),
        (BATCHED + output("[ 10 ]", name="RESULT[y]"), DECLARED, seen([-1, 10])),
        (BATCHED.replace("[ 4 ]", "[ -1 ]"), TRACED, seen([-1, 10], varying=[False, True])),
        (BATCHED.replace("[ 4 ]", "[ -1 ]"), TRACED, None),
        (BATCHED, file(dims=(-1, -1), outputs={}), seen([-1, 10], varying=[False, True])),
        ("max_batch_size: 8\n" + INPUT, DECLARED, seen([-1, 10])),
    ],
)
def test_what_fits_all_sources_is_no_conflict(text, signature, report):
    assert conflicts(text, signature, report) == []


def test_a_model_that_does_not_run_on_zeros_has_no_opinion():
    text = BATCHED + output("[ 3 ]")
    told = declared.report(probe_request(pbtxt.parse(text, SOURCE), DECLARED), "RuntimeError: no zeros")
    assert conflicts(text, DECLARED, told) == [("output.y.dims", {SOURCE: [3], "file": [10]}, SOURCE)]


def test_one_written_element_may_stand_for_a_scalar():
    scalar = file(dims=(), outputs={"y": ()})
    text = 'input { name: "x" data_type: TYPE_FP32 dims: [ 1 ] }\n' + output("[ 1 ]")
    report = {**seen([]), "batchable": None, "varying": {"x": []}}
    assert conflicts(text, scalar, report) == conflicts(text, scalar, None) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            BATCHED + output("[ 10 ]", datatype="INT64"),
            "data_type: expected TYPE_FP32 as the model gives it, got TYPE_I",
        ),
        ("max_batch_size: 16\n" + INPUT, "max_batch_size: expected at most 8 as in the file, got 16"),
    ],
)
def test_what_made_a_load_fail_still_does(text, message):
    with pytest.raises(ConfigError, match=message):
        conflicts(text, DECLARED, seen([-1, 10]))


def test_what_the_file_alone_excludes_is_refused_without_a_run():
    with pytest.raises(ConfigError, match="max_batch_size: expected at most 8 as in the file, got 16"):
        conflicts("max_batch_size: 16\n" + INPUT, DECLARED, None)


def test_a_conflict_is_a_sentence_and_a_document():
    partial = pbtxt.parse(BATCHED + output("[ 3 ]"), SOURCE)
    (conflict,) = preview(partial, pytorch.BACKEND, name="m", signature=DECLARED).conflicts
    assert str(conflict) == "output.y.dims: config.pbtxt says [3], file says [10]; config.pbtxt counts"
    says = {"config.pbtxt": [3], "file": [10]}
    assert conflict.document() == {"field": "output.y.dims", "says": says, "won": "config.pbtxt"}
