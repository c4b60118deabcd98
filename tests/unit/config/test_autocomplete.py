"""Merging: what was written, what the file says, what the dry run saw."""

from __future__ import annotations

from typing import Any

import pytest

from naiad.backends import identity, pytorch
from naiad.config import pbtxt
from naiad.config.autocomplete import complete
from naiad.config.json_form import to_dict
from naiad.config.model import Completed
from naiad.config.pbtxt import PartialConfig
from naiad.config.preview import preview
from naiad.config.probe import ProbeRequest, probe_request
from naiad.errors import ConfigError
from naiad.signature.model import Signature, TensorSignature


def written(text: str) -> PartialConfig:
    return pbtxt.parse(text, "config.pbtxt") if text else pbtxt.empty()


def traced(*inputs: tuple[str, str, tuple[int, ...]], output: str = "Tensor") -> Signature:
    tensors = tuple(
        TensorSignature(name=name, type="Tensor", datatype=datatype, shape=shape) for name, datatype, shape in inputs
    )
    return Signature(format="TorchScript (traced)", backend="pytorch", inputs=tensors, output_type=output)


IMAGE = traced(("image", "FP32", (1, 1, 32, 32)))
SCRIPTED = Signature(
    format="TorchScript (scripted)",
    backend="pytorch",
    inputs=(TensorSignature(name="x", type="Tensor"), TensorSignature(name="n", type="int")),
    output_type="Tensor",
)


def report(*, batchable: bool | None, reason: str = "", **varying: list[bool]) -> dict[str, Any]:
    first = -1 if batchable else 1
    outputs = [{"name": "OUTPUT__0", "datatype": "FP32", "dims": [first, 10]}]
    return {"outputs": outputs, "batchable": batchable, "reason": reason, "varying": varying}


def finish(text: str, signature: Signature, seen: dict[str, Any]) -> Completed:
    partial = written(text)
    probed = probe_request(partial, signature)
    return complete(partial, pytorch.BACKEND, name="m", report=seen, probed=probed)


# -- without configuration --------------------------------------------------------------------------------------------


def test_a_traced_file_is_probed_as_it_was_traced():
    entry = {"name": "image", "argument": "image", "datatype": "FP32", "dims": [1, 1, 32, 32]}
    entry["traced"] = [1, 1, 32, 32]
    assert probe_request(written(""), IMAGE) == ProbeRequest([entry], batched=True)


def test_a_batchable_model_batches_and_each_value_has_its_origin():
    done = finish("", IMAGE, report(batchable=True, image=[False, False, True, True]))
    config = done.config
    assert config.max_batch_size == 32
    assert [(t.name, t.datatype, t.dims) for t in config.inputs] == [("image", "FP32", (1, -1, -1))]
    assert [(t.name, t.datatype, t.dims) for t in config.outputs] == [("OUTPUT__0", "FP32", (10,))]
    assert config.dynamic_batching is not None and config.dynamic_batching.max_queue_delay_us == 0
    assert done.origins["max_batch_size"] == "dry run"
    assert done.origins["input.image"] == "file"
    assert done.origins["input.image.dims"] == "dry run"
    assert done.origins["output.OUTPUT__0"] == "dry run"
    assert done.notes == ()


def test_a_frozen_batch_is_zero_with_the_reason():
    done = finish("", IMAGE, report(batchable=False, reason="a run at batch 2 fails: RuntimeError: view"))
    assert done.config.max_batch_size == 0
    assert done.config.inputs[0].dims == (1, 1, 32, 32)
    assert done.config.dynamic_batching is None
    assert done.notes == ("no batching: a run at batch 2 fails: RuntimeError: view",)


def test_a_file_that_does_not_tell_its_inputs_says_what_to_write():
    with pytest.raises(ConfigError) as caught:
        probe_request(written(""), SCRIPTED)
    assert str(caught.value) == (
        "the file does not tell its inputs: its forward() takes (x, n), but not their shapes (CONFIG_INVALID); "
        'write input { name: "x" data_type: TYPE_… dims: [ … ] } input { name: "n" data_type: TYPE_INT64 dims: [ 1 ] } '
        "into config.pbtxt, or save the model with torch.jit.trace"
    )


# -- with part of a configuration -------------------------------------------------------------------------------------


def test_a_written_zero_is_not_overruled():
    partial = written("max_batch_size: 0")
    probed = probe_request(partial, IMAGE)
    assert probed.batched is False
    done = complete(partial, pytorch.BACKEND, name="m", report=report(batchable=None), probed=probed)
    assert done.config.max_batch_size == 0
    assert done.origins["max_batch_size"] == "config.pbtxt"


def test_a_written_batch_size_stays():
    done = finish("max_batch_size: 4", IMAGE, report(batchable=True))
    assert done.config.max_batch_size == 4
    assert done.config.inputs[0].dims == (1, 32, 32)
    assert done.config.dynamic_batching is None  # nobody asked for it


def test_written_inputs_are_taken_literally():
    text = 'input { name: "image" data_type: TYPE_FP32 dims: [ -1, 1, 32, 32 ] }'
    done = finish(text, IMAGE, report(batchable=None))
    assert done.config.max_batch_size == 0
    assert done.config.inputs[0].dims == (-1, 1, 32, 32)
    assert done.origins["input"] == "config.pbtxt"


def test_a_missing_datatype_comes_from_the_file():
    done = finish('max_batch_size: 8 input { name: "image" dims: [ 1, 32, 32 ] }', IMAGE, report(batchable=True))
    assert done.config.inputs[0].datatype == "FP32"
    assert done.origins["input.image.data_type"] == "file"


def test_outputs_may_be_renamed_and_left_half_written():
    done = finish(
        'max_batch_size: 8 input { name: "image" dims: [ 1, 32, 32 ] } output { name: "probabilities" }',
        IMAGE,
        report(batchable=True),
    )
    assert [(t.name, t.datatype, t.dims) for t in done.config.outputs] == [("probabilities", "FP32", (10,))]
    assert done.origins["output.probabilities.data_type"] == "dry run"


def test_an_input_of_any_name_maps_onto_the_only_argument():
    partial = written('max_batch_size: 2 input { name: "INPUT__0" data_type: TYPE_FP32 dims: [ 1, 32, 32 ] }')
    assert probe_request(partial, IMAGE).inputs[0]["argument"] == "image"
    partial = written('max_batch_size: 2 input { name: "digit" data_type: TYPE_FP32 dims: [ 1, 32, 32 ] }')
    assert probe_request(partial, IMAGE).inputs[0]["argument"] == "image"


def test_a_written_argument_decides():
    two = traced(("a", "FP32", (1, 4)), ("b", "INT64", (1, 4)))
    partial = written(
        """input [ { name: "first" data_type: TYPE_INT64 dims: [ 1, 4 ] },
                   { name: "a" data_type: TYPE_FP32 dims: [ 1, 4 ] } ]
        parameters { key: "naiad.argument.first" value { string_value: "b" } }"""
    )
    assert [entry["argument"] for entry in probe_request(partial, two).inputs] == ["b", "a"]


TENSOR = 'input {{ name: "image" data_type: TYPE_{} dims: [ {} ] }}'
BROKEN_INPUTS = {
    "datatype": (
        TENSOR.format("INT64", "1, 1, 32, 32"),
        "input 'image': data_type: expected TYPE_FP32 as traced, got TYPE_INT64 (DTYPE_MISMATCH); "
        'write input { name: "image" data_type: TYPE_FP32 dims: [ 1, 1, 32, 32 ] } into config.pbtxt',
    ),
    "rank": (
        TENSOR.format("FP32", "1, 28, 28"),
        "input 'image': dims: expected 4 dims with the batch as in the traced shape [1, 1, 32, 32], "
        "got [1, 28, 28] (IO_MISMATCH); "
        'write input { name: "image" data_type: TYPE_FP32 dims: [ 1, 1, 32, 32 ] } into config.pbtxt',
    ),
    "doubled batch": (
        "max_batch_size: 8 " + TENSOR.format("FP32", "-1, 1, 32, 32"),
        "input 'image': dims: expected 4 dims with the batch as in the traced shape [1, 1, 32, 32], "
        "got [-1, -1, 1, 32, 32] (IO_MISMATCH); "
        'write input { name: "image" data_type: TYPE_FP32 dims: [ 1, 32, 32 ] } into config.pbtxt',
    ),
    "count": (
        TENSOR.format("FP32", "1, 1, 32, 32") + 'input { name: "mask" data_type: TYPE_BOOL dims: [ 1 ] }',
        "input: expected 1 as in forward(image), got 2",
    ),
}


@pytest.mark.parametrize(("text", "message"), BROKEN_INPUTS.values(), ids=BROKEN_INPUTS.keys())
def test_inputs_that_contradict_the_file_are_refused(text, message):
    with pytest.raises(ConfigError) as caught:
        probe_request(written(text), IMAGE)
    assert str(caught.value) == f"config.pbtxt: {message}"


PAIR = """input [ {{ name: "{}" data_type: TYPE_FP32 dims: [ 1, 4 ] }},
               {{ name: "{}" data_type: TYPE_FP32 dims: [ 1, 4 ] }} ]"""


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ("x", "y"),
            "input 'x': expected the name of an argument of forward(a, b), or INPUT__0 to INPUT__1; "
            "write parameters 'naiad.argument.x' to map it",
        ),
        (("b", "INPUT__1"), "input 'INPUT__1': it is argument 'b', and so is 'b'"),
    ],
)
def test_an_ambiguous_mapping_is_refused(names, message):
    two = traced(("a", "FP32", (1, 4)), ("b", "FP32", (1, 4)))
    with pytest.raises(ConfigError) as caught:
        probe_request(written(PAIR.format(*names)), two)
    assert str(caught.value) == f"config.pbtxt: {message}"


def test_an_input_without_a_datatype_anywhere_is_refused():
    with pytest.raises(ConfigError) as caught:
        probe_request(written('input [ { name: "x" dims: 4 }, { name: "n" dims: 1 } ]'), SCRIPTED)
    assert str(caught.value) == ("config.pbtxt: input 'x': data_type: expected a datatype such as TYPE_FP32, got none")


BROKEN_OUTPUTS = {
    "datatype": (
        'output { name: "OUTPUT__0" data_type: TYPE_INT32 dims: [ 1, 10 ] }',
        "output 'OUTPUT__0': data_type: expected TYPE_FP32 as the model gives it, got TYPE_INT32 (DTYPE_MISMATCH); "
        'write output { name: "OUTPUT__0" data_type: TYPE_FP32 dims: [ 1, 10 ] } into config.pbtxt',
    ),
    "too many": (
        'output [ { name: "a" }, { name: "b" } ]',
        "output 'b': the model gives 1 (OUTPUT__0)",
    ),
}


@pytest.mark.parametrize(("text", "message"), BROKEN_OUTPUTS.values(), ids=BROKEN_OUTPUTS.keys())
def test_outputs_that_contradict_the_model_are_refused(text, message):
    with pytest.raises(ConfigError) as caught:
        finish(text, IMAGE, report(batchable=None))
    assert str(caught.value) == f"config.pbtxt: {message}"


def test_a_batch_size_that_the_model_cannot_take_is_refused():
    with pytest.raises(ConfigError) as caught:
        finish("max_batch_size: 8", IMAGE, report(batchable=False, reason="a run at batch 2 fails"))
    assert str(caught.value) == (
        "config.pbtxt: max_batch_size: expected 0, for the model does not batch (a run at batch 2 fails), "
        "got 8 (BATCH_FROZEN); write max_batch_size: 0 into config.pbtxt, "
        "or save the model with a first dimension that may vary"
    )


# -- identity: nothing to probe ---------------------------------------------------------------------------------------

IDENTITY = 'backend: "identity" input { name: "INPUT0" data_type: TYPE_FP32 dims: [ -1 ] } '


def test_a_full_configuration_needs_no_dry_run():
    text = IDENTITY + 'output { name: "OUTPUT0" data_type: TYPE_FP32 dims: [ -1 ] }'
    done = complete(written(text), identity.BACKEND, name="m", report=None, probed=None)
    assert (done.config.backend, done.config.max_batch_size, done.config.default_model_filename) == ("identity", 0, "")


@pytest.mark.parametrize(("text", "missing"), [(IDENTITY, "output"), ("", "input")])
def test_what_cannot_be_found_out_must_be_written(text, missing):
    with pytest.raises(ConfigError) as caught:
        complete(written(text), identity.BACKEND, name="m", report=None, probed=None)
    assert str(caught.value) == (
        f"config.pbtxt: no {missing}, and backend 'identity' cannot find it out (CONFIG_INVALID); "
        "write name, data_type and dims into config.pbtxt"
    )


# -- the preview that `naiad inspect` prints --------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", "max_batch_size: 4", "max_batch_size: 0"])
def test_the_preview_guesses_what_a_load_will_find(text):
    seen = preview(written(text), pytorch.BACKEND, name="m", signature=IMAGE)
    loaded = finish(text, IMAGE, report(batchable=None if text.endswith(" 0") else True))
    document = loaded.config.document
    effective = to_dict(seen.effective)
    assert seen.open == ("output.OUTPUT__0",)
    assert {**effective, "output": document["output"]} == document


def test_the_preview_leaves_open_what_nothing_tells():
    seen = preview(written(""), pytorch.BACKEND, name="m", signature=SCRIPTED)
    assert seen.open == ("input.x", "input.n", "output.OUTPUT__0")
    half = written('max_batch_size: 2 input { name: "image" dims: [ 1, 32, 32 ] } output { name: "y" }')
    seen = preview(half, pytorch.BACKEND, name="m", signature=IMAGE)
    assert seen.open == ("output.y",)
    assert seen.origins["input.image.data_type"] == "file"


def test_the_preview_refuses_what_a_load_would_refuse():
    for text, message in BROKEN_INPUTS.values():
        with pytest.raises(ConfigError) as caught:
            preview(written(text), pytorch.BACKEND, name="m", signature=IMAGE)
        assert str(caught.value) == f"config.pbtxt: {message}"


# -- files that declare their dims -----------------------------------------------------------------------------------

DECLARED = Signature(
    format="ONNX",
    backend="onnxruntime",
    inputs=(TensorSignature(name="image", type="tensor(float)", datatype="FP32", dims=(-1, 3, -1, -1)),),
    outputs=(TensorSignature(name="scores", type="tensor(float)", datatype="FP32", dims=(-1, 10)),),
    max_batch=16,
)


def test_declared_dims_go_to_the_dry_run_as_they_are():
    probed = probe_request(written(""), DECLARED)
    entry = {"name": "image", "argument": "image", "datatype": "FP32", "dims": [-1, 3, -1, -1], "declared": True}
    assert probed == ProbeRequest([entry], batched=True, max_batch=16, outputs={"scores": (-1, 10)})
    assert probed.at({"image": [1, 3, 32, 32]}).inputs[0]["dims"] == [1, 3, 32, 32]


def test_the_file_bounds_the_batch_and_open_dims_stay_open():
    seen = {
        "outputs": [{"name": "scores", "datatype": "FP32", "dims": [-1, 10]}],
        "batchable": True,
        "reason": "",
        "varying": {"image": [False, False, True, True]},
    }
    done = finish("", DECLARED, seen)
    assert done.config.max_batch_size == 16
    assert done.config.inputs[0].dims == (3, -1, -1)
    assert "input.image.dims" not in done.origins  # the file says it, not the dry run


def test_an_output_that_is_declared_open_stays_open_but_a_wrong_rank_does_not_count():
    outputs = [{"name": "scores", "datatype": "FP32", "dims": [4, 10]}]
    seen = {"outputs": outputs, "batchable": False, "reason": "x", "varying": {}}
    assert finish("", DECLARED, seen).config.outputs[0].dims == (-1, 10)
    outputs[0]["dims"] = [4, 10, 1]
    assert finish("", DECLARED, seen).config.outputs[0].dims == (4, 10, 1)


@pytest.mark.parametrize("dims", ["4, 3, 8, 8", "-1, 3, -1, -1"])
def test_written_dims_may_be_narrower_than_declared(dims):
    wanted = [int(dim) for dim in dims.split(",")]
    text = f'input {{ name: "image" data_type: TYPE_FP32 dims: [ {dims} ] }}'
    assert probe_request(written(text), DECLARED).inputs[0]["dims"] == wanted


def test_written_dims_that_the_file_excludes_are_refused():
    text = 'input { name: "image" data_type: TYPE_FP32 dims: [ -1, 1, 8, 8 ] }'
    with pytest.raises(ConfigError) as caught:
        probe_request(written(text), DECLARED)
    assert str(caught.value) == (
        "config.pbtxt: input 'image': dims: expected 4 dims with the batch as in the declared shape "
        "[-1, 3, -1, -1], got [-1, 1, 8, 8] (IO_MISMATCH); "
        'write input { name: "image" data_type: TYPE_FP32 dims: [ -1, 3, -1, -1 ] } into config.pbtxt'
    )


def test_a_preview_shows_what_the_file_declares():
    seen = preview(written(""), pytorch.BACKEND, name="m", signature=DECLARED)
    assert seen.open == ()
    assert seen.message.max_batch_size == 16
    assert list(seen.message.output[0].dims) == [10]
    assert seen.origins["output.scores"] == "file"


def test_a_written_size_is_the_only_one_that_is_tried():
    text = 'input { name: "image" data_type: TYPE_FP32 dims: [ 1, -1, 32 ] } max_batch_size: 4'
    (entry,) = probe_request(written(text), IMAGE).inputs
    assert (entry["dims"], entry["fixed"]) == ([1, 1, 32, 32], [False, True, False, True])
    (entry,) = probe_request(written(text.replace("dims: [ 1,", "dims: [ 3,")), DECLARED).inputs
    assert "fixed" not in entry
