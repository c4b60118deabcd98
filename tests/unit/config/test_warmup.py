"""Warm-up samples against the inputs of the configuration, and what is said of a wrong one."""

from __future__ import annotations

import pytest

from naiad.config import pbtxt
from naiad.config.freeze import freeze
from naiad.config.model import WarmUpInput, WarmUpSample
from naiad.errors import ConfigError

IO = """
input { name: "x" data_type: TYPE_FP32 dims: [ -1, 4 ] reshape { shape: [ 4, -1, 1 ] } }
input { name: "o" data_type: TYPE_STRING dims: [ 1 ] optional: true }
output { name: "y" data_type: TYPE_FP32 dims: [ 4 ] }
"""
X = 'inputs { key: "x" value { data_type: TYPE_FP32 dims: [ 3, 4 ] %s } }'


def samples(text: str) -> tuple[WarmUpSample, ...]:
    return freeze(pbtxt.parse(IO + text, "config.pbtxt").message, name="m", source="config.pbtxt").warm_up


def test_a_sample_is_in_the_models_own_shapes():
    text = 'max_batch_size: 8 model_warmup { name: "one" batch_size: 2 count: 5 %s }' % (X % "random_data: true")
    (sample,) = samples(text)
    tensor = WarmUpInput(name="x", datatype="FP32", dims=(4, 3, 1), data="random", file="")
    assert sample == WarmUpSample(name="one", rows=2, count=5, inputs=(tensor,))


def test_what_is_left_out_is_one_run_of_one_row():
    file = X % 'input_data_file: "x.bin"'
    string = 'inputs { key: "o" value { data_type: TYPE_STRING dims: 1 zero_data: true } }'
    one, two = samples(f"max_batch_size: 8 model_warmup {{ {file} }} model_warmup {{ {file} {string} }}")
    assert (one.name, one.rows, one.count) == ("", 1, 1)
    assert (one.inputs[0].data, one.inputs[0].file) == ("file", "x.bin")
    assert [tensor.data for tensor in two.inputs] == ["file", "zero"]


def test_a_model_that_does_not_batch_has_no_rows():
    assert samples("model_warmup { batch_size: 1 %s }" % (X % "zero_data: true"))[0].rows == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (X % "", "input 'x': expected one of zero_data, random_data and input_data_file"),
        ("batch_size: 9 " + X % "zero_data: true", "batch_size: expected 1 to 8, got 9"),
        ("", "inputs: expected 'x' too, which is not optional"),
        ((X % "zero_data: true").replace("FP32", "FP64"), "data_type: expected the input's FP32, got FP64"),
        ((X % "zero_data: true").replace("3, 4", "3, 5"), r"dims: expected numbers that fit \[-1, 4\], got \[3, 5\]"),
        ((X % "zero_data: true").replace("3, 4", "-1, 4"), r"dims: expected numbers .* got \[-1, 4\]"),
        ((X % "zero_data: true").replace('"x"', '"z"'), "the model has no input 'z'; it has x, o"),
    ],
)
def test_a_wrong_sample_is_named(text, message):
    with pytest.raises(ConfigError, match="config.pbtxt: model_warmup 'w'.*" + message):
        samples(f'max_batch_size: 8 model_warmup {{ name: "w" {text} }}')
