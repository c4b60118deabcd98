"""Files that declare all they take: what is merged with them, and what counts where the model does not run on zeros."""

from __future__ import annotations

from typing import Any

import pytest

from naiad.backends import identity, onnxruntime
from naiad.config import declared, pbtxt
from naiad.config.autocomplete import complete
from naiad.config.model import Completed, TensorConfig
from naiad.config.preview import preview
from naiad.config.probe import probe_request
from naiad.config.recognition import agree_on_backend
from naiad.errors import ConfigError, UnservableFile
from naiad.signature.model import Signature, TensorSignature

Row = tuple[str, str, tuple[int, ...] | None]


def file_of(inputs: list[Row], outputs: list[Row]) -> Signature:
    def tensors(rows: list[Row]) -> tuple[TensorSignature, ...]:
        return tuple(TensorSignature(name=n, type="tensor", datatype=d, dims=dims) for n, d, dims in rows)

    return Signature(format="ONNX", backend="onnxruntime", inputs=tensors(inputs), outputs=tensors(outputs))


PAIR = file_of([("ids", "INT64", (-1, -1)), ("mask", "INT64", (-1, -1))], [("scores", "FP32", (-1,))])
STATE = file_of([("x", "FP32", (-1, 8)), ("sr", "INT64", ())], [("y", "FP32", (-1, 1)), ("n", "INT64", ())])


def finish(text: str, signature: Signature, seen: dict[str, Any] | None = None) -> Completed:
    """The finished configuration; without a report the dry run failed."""
    partial = pbtxt.parse(text, "config.pbtxt") if text else pbtxt.empty()
    probed = probe_request(partial, signature)
    report = seen or declared.report(probed, "RuntimeError: no zeros")
    assert report is not None
    return complete(partial, onnxruntime.BACKEND, name="m", report=report, probed=probed)


def shapes(tensors: tuple[TensorConfig, ...]) -> list[tuple[str, str, tuple[int, ...], tuple[int, ...] | None]]:
    return [(tensor.name, tensor.datatype, tensor.dims, tensor.reshape) for tensor in tensors]


def test_open_first_dims_everywhere_are_the_batch():
    done = finish("", PAIR)
    assert done.config.max_batch_size == 4
    assert shapes(done.config.inputs) == [("ids", "INT64", (-1,), None), ("mask", "INT64", (-1,), None)]
    assert shapes(done.config.outputs) == [("scores", "FP32", (1,), ())]
    assert done.notes == (
        "a dry run with zeros fails, so what the file declares is taken as it is: RuntimeError: no zeros",
    )


def test_a_tensor_without_a_first_dim_ends_batching_and_a_scalar_is_one_element():
    done = finish("", STATE)
    assert done.config.max_batch_size == 0
    assert shapes(done.config.inputs) == [("x", "FP32", (-1, 8), None), ("sr", "INT64", (1,), ())]
    assert shapes(done.config.outputs) == [("y", "FP32", (-1, 1), None), ("n", "INT64", (1,), ())]
    assert done.notes[1] == "no batching: the file declares no open first dimension for 'sr'"


def test_a_batch_size_that_the_file_excludes_is_refused():
    with pytest.raises(ConfigError, match=r"expected 0, for the model does not batch .* got 4 \(BATCH_FROZEN\)"):
        finish("max_batch_size: 4", STATE)


@pytest.mark.parametrize(
    "signature",
    [file_of([("x", "FP32", (-1,))], []), file_of([("x", "FP32", (-1,))], [("y", "FP32", None)])],
    ids=["no outputs", "an output without a shape"],
)
def test_a_file_that_leaves_something_open_needs_its_dry_run(signature):
    assert declared.report(probe_request(pbtxt.empty(), signature), "x") is None


@pytest.mark.parametrize(
    ("text", "merged"),
    [
        ("max_batch_size: 8", True),
        ("max_batch_size: 1", False),
        ("max_batch_size: 0", False),
        ('max_batch_size: 8 input [ { name: "ids" }, { name: "mask" } ]', True),
        ('max_batch_size: 8 input [ { name: "ids" }, { name: "mask" } ] output { name: "scores" }', False),
    ],
)
def test_requests_are_merged_where_triton_merges_them(text, merged):
    assert (finish(text, PAIR).config.dynamic_batching is not None) is merged
    seen = preview(pbtxt.parse(text, "x"), onnxruntime.BACKEND, name="m", signature=PAIR)
    assert seen.effective.HasField("dynamic_batching") is merged


PARTIAL = {
    "no dims": 'input { name: "mask" } output { name: "scores" }',
    "one output": 'output { name: "scores" label_filename: "" }',
    "one input of two": 'input { name: "mask" data_type: TYPE_INT64 }',
}


@pytest.mark.parametrize("text", PARTIAL.values(), ids=PARTIAL.keys())
def test_fields_that_are_not_written_come_from_the_file(text):
    done = finish(text, PAIR)
    assert done.config.max_batch_size == 4
    assert sorted(shapes(done.config.inputs)) == [("ids", "INT64", (-1,), None), ("mask", "INT64", (-1,), None)]
    assert shapes(done.config.outputs) == [("scores", "FP32", (1,), ())]


def test_dims_that_are_written_are_taken_literally_and_the_rest_is_filled():
    done = finish('input { name: "mask" dims: [ -1, 64 ] }', PAIR)
    assert done.config.max_batch_size == 0
    assert shapes(done.config.inputs) == [("mask", "INT64", (-1, 64), None), ("ids", "INT64", (-1, -1), None)]
    assert done.origins["input.mask.data_type"] == done.origins["input.ids"] == "file"


def test_one_written_element_stands_for_a_scalar():
    done = finish('input { name: "sr" data_type: TYPE_INT64 dims: [ 1 ] }', STATE)
    assert shapes(done.config.inputs)[0] == ("sr", "INT64", (1,), ())


BROKEN = {
    "a name too many": (
        'input [ { name: "ids" }, { name: "mask" }, { name: "x" } ]',
        "input: expected 2 as in the file (ids, mask), got 3",
    ),
    "another name": (
        'input { name: "token_ids" }',
        "input 'token_ids': expected a name of the file (ids, mask), or INPUT__0 to INPUT__1; "
        "write parameters 'naiad.argument.token_ids' to map it",
    ),
    "another type": (
        'input { name: "ids" data_type: TYPE_FP32 }',
        "input 'ids': data_type: expected TYPE_INT64 as declared in the file, got TYPE_FP32 (DTYPE_MISMATCH)",
    ),
    "another rank": (
        'input { name: "ids" dims: [ 8 ] }',
        "input 'ids': dims: expected 2 dims with the batch as in the declared shape [-1, -1], got [8] (IO_MISMATCH)",
    ),
}


@pytest.mark.parametrize(("text", "message"), BROKEN.values(), ids=BROKEN.keys())
def test_what_contradicts_the_file_is_refused(text, message):
    with pytest.raises(ConfigError) as caught:
        finish(text, PAIR)
    told = str(caught.value).removesuffix(f"; {caught.value.fix}") if caught.value.fix else str(caught.value)
    assert told == f"config.pbtxt: {message}"
    assert bool(caught.value.fix) == message.endswith("MISMATCH)")


def test_a_file_without_shapes_says_what_to_write():
    with pytest.raises(ConfigError) as caught:
        probe_request(pbtxt.empty(), file_of([("x", "FP32", None)], []))
    assert str(caught.value) == (
        "the file does not tell its inputs: it takes (x), but not their shapes (CONFIG_INVALID); "
        'write max_batch_size: 8 input { name: "x" data_type: TYPE_FP32 dims: [ … ] } into config.pbtxt'
    )


def test_a_file_of_another_backend_is_refused():
    with pytest.raises(UnservableFile) as caught:
        agree_on_backend(PAIR, identity.BACKEND, "model.pt")
    assert caught.value.code == "BACKEND_MISMATCH"
    assert caught.value.what == ("'model.pt' is of format ONNX, which backend 'onnxruntime' runs, and not 'identity'")
    agree_on_backend(PAIR, onnxruntime.BACKEND, "model.onnx")
