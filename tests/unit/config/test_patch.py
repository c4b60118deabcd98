"""Lines that mend a configuration, and what programs of torch.export add to its completion."""

from __future__ import annotations

import pytest

from naiad.backends import pytorch
from naiad.config import patch, pbtxt
from naiad.config.autocomplete import complete
from naiad.config.probe import probe_request
from naiad.errors import ConfigError
from naiad.signature.model import Signature, TensorSignature

TRACED = Signature(
    format="TorchScript (traced)",
    backend="pytorch",
    inputs=(TensorSignature(name="image", type="Tensor", datatype="FP32", shape=(1, 1, 32, 32)),),
)
EXPORTED = Signature(
    format="torch.export",
    backend="pytorch",
    inputs=(
        TensorSignature(name="ids", type="Tensor", datatype="INT64", dims=(-1, -1), shape=(2, 6), path="ARGS[0]"),
        TensorSignature(name="mask", type="Tensor", datatype="BOOL", dims=(-1, -1), shape=(2, 6), path="KWARGS[mask]"),
    ),
    max_batch=16,
)
SCRIPTED = Signature(
    format="TorchScript (scripted)", backend="pytorch", inputs=(TensorSignature(name="x", type="Dict[str, Tensor]"),)
)


def written(text: str) -> pbtxt.PartialConfig:
    return pbtxt.parse(text, "config.pbtxt")


def tensor(kind: str, name: str, datatype: str = "FP32", dims: str = "[ 1 ]") -> str:
    return f'{kind} {{ name: "{name}" data_type: TYPE_{datatype} dims: {dims} }} '


def test_a_dry_run_at_other_dims_than_the_traced_ones_says_what_to_write():
    wrong = probe_request(written("max_batch_size: 4 " + tensor("input", "image", dims="[ 1, 28, 28 ]")), TRACED)
    assert patch.of_traced(wrong.inputs, batched=wrong.batched) == (
        'write input { name: "image" data_type: TYPE_FP32 dims: [ 1, 32, 32 ] } into config.pbtxt'
    )
    right = probe_request(written(""), TRACED)
    assert patch.of_traced(right.inputs, batched=right.batched) == ""


def test_inputs_are_known_by_their_place_in_the_call():
    text = tensor("input", "KWARGS[mask]", "BOOL", "[ -1, -1 ]") + tensor("input", "ARGS[0]", "INT64", "[ -1, -1 ]")
    probed = probe_request(written(text), EXPORTED)
    assert [(entry["name"], entry["argument"], entry["example"]) for entry in probed.inputs] == [
        ("KWARGS[mask]", "mask", [2, 6]),
        ("ARGS[0]", "ids", [2, 6]),
    ]


def report(*outputs: str) -> dict:
    seen = [{"name": name, "datatype": "FP32", "dims": [-1, at]} for at, name in enumerate(outputs, 1)]
    return {"outputs": seen, "batchable": True, "reason": "", "varying": {}}


def test_the_files_range_bounds_the_batch():
    for text, size in (("", 16), ("max_batch_size: 9", 9)):
        partial = written(text)
        probed = probe_request(partial, EXPORTED)
        done = complete(partial, pytorch.BACKEND, name="m", report=report("OUTPUT__0"), probed=probed)
        assert done.config.max_batch_size == size
    partial = written("max_batch_size: 17")
    with pytest.raises(ConfigError) as caught:
        probed = probe_request(partial, EXPORTED)
        complete(partial, pytorch.BACKEND, name="m", report=report("OUTPUT__0"), probed=probed)
    assert (caught.value.code, caught.value.what) == (
        "IO_MISMATCH",
        "config.pbtxt: max_batch_size: expected at most 16 as in the file, got 17",
    )


@pytest.mark.parametrize(("name", "dim"), [("RESULT[b]", 2), ("RESULT[1]", 2), ("RESULT", 1), ("y__1", 2), ("b", 2)])
def test_outputs_are_known_by_their_place_in_the_result(name, dim):
    partial = written(f'max_batch_size: 4 output {{ name: "{name}" }}')
    probed = probe_request(partial, EXPORTED)
    done = complete(partial, pytorch.BACKEND, name="m", report=report("a", "b"), probed=probed)
    assert [(output.name, output.dims) for output in done.config.outputs] == [(name, (dim,))]


def test_a_run_that_fails_decides_unless_everything_is_written_and_nothing_is_told():
    both = tensor("input", "x") + tensor("output", "y")
    assert probe_request(written(tensor("input", "x")), SCRIPTED).decides
    assert not probe_request(written(both), SCRIPTED).decides
    assert not probe_request(written(both), None).decides
    assert probe_request(written(both.replace('"x"', '"image"').replace("[ 1 ]", "[ 1, 1, 8, 8 ]")), TRACED).decides


def test_a_dictionarys_keys_are_the_inputs_that_are_written():
    probed = probe_request(written(tensor("input", "a") + tensor("input", "b")), SCRIPTED)
    assert [entry["name"] for entry in probed.inputs] == ["a", "b"]
    with pytest.raises(ConfigError, match="the file does not tell its inputs"):
        probe_request(written(""), SCRIPTED)


@pytest.mark.parametrize(("text", "batch"), [("max_batch_size: 4", 4), ("", 0)])
def test_rows_that_do_not_keep_apart_are_batched_only_where_that_is_written(text, batch):
    partial = written(text)
    seen = {**report("y"), "batchable": False, "mixed": True, "reason": "rows change"}
    done = complete(partial, pytorch.BACKEND, name="m", report=seen, probed=probe_request(partial, TRACED))
    assert done.config.max_batch_size == batch
    assert [note for note in done.notes if "rows" in note] == [
        "max_batch_size is as written, though rows of a batch do not keep apart: rows change"
        if batch
        else "no batching: rows change"
    ]
