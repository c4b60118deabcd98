"""What a model says of itself, merged into what was written."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from naiad.backends.python import BACKEND
from naiad.config import pbtxt
from naiad.config.described import asked, merged
from naiad.errors import ConfigError

X = {"name": "X", "data_type": "TYPE_FP32", "dims": [3]}
WRITTEN = """max_batch_size: 4
input { name: "X" data_type: TYPE_FP32 dims: [ 3 ] }
"""


def after(text: str, **changes: Any):
    partial = pbtxt.parse(text, "config.pbtxt")
    before = asked(partial, BACKEND, name="m")
    return merged(partial, before, {**copy.deepcopy(before), **changes})


def test_the_model_is_handed_the_whole_configuration():
    before = asked(pbtxt.parse(WRITTEN, "config.pbtxt"), BACKEND, name="m")
    assert (before["name"], before["backend"], before["max_batch_size"]) == ("m", "python", 4)
    assert before["input"][0]["dims"] == [3]
    assert before["output"] == []
    assert "dynamic_batching" not in before


def test_what_it_adds_is_there_with_its_origin():
    told = after(WRITTEN, max_batch_size=8, dynamic_batching={}, output=[X])
    message = told.partial.message
    assert message.max_batch_size == 8
    assert message.HasField("dynamic_batching")
    assert [tensor.name for tensor in message.output] == ["X"]
    assert told.origins == {
        "max_batch_size": "model",
        "dynamic_batching": "model",
        "output": "model",
        "output.X": "model",
    }
    assert {"max_batch_size", "dynamic_batching", "output", "input"} <= told.partial.given


def test_what_it_says_otherwise_than_was_written_is_a_conflict():
    told = after(WRITTEN, max_batch_size=8, input=[{**X, "dims": [4]}], output=[X])
    assert [str(conflict) for conflict in told.conflicts] == [
        "max_batch_size: config.pbtxt says 4, model says 8; model counts",
        "input.X.dims: config.pbtxt says [3], model says [4]; model counts",
    ]
    (gone,) = after(WRITTEN, input=[{**X, "name": "Z"}]).conflicts
    assert str(gone) == "input.X: config.pbtxt says written, model says absent; model counts"


def test_what_it_completes_is_no_conflict():
    assert after('input { name: "X" }', max_batch_size=8, input=[X], output=[X]).conflicts == ()


def test_a_written_tensor_keeps_its_origin():
    partial = pbtxt.parse(WRITTEN, "config.pbtxt")
    before = asked(partial, BACKEND, name="m")
    told = merged(partial, before, {**before, "input": [*before["input"], {**X, "name": "Z"}]})
    assert [tensor.name for tensor in told.partial.message.input] == ["X", "Z"]
    assert told.origins == {"input.Z": "model"}


def test_nothing_said_changes_nothing():
    told = after(WRITTEN)
    assert told.partial.message == pbtxt.parse(WRITTEN, "config.pbtxt").message
    assert told.origins == {}


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"name": "other"}, "auto_complete_config: name: it cannot be set by the model, got 'other'"),
        ({"backend": "pytorch"}, "auto_complete_config: backend: it cannot be set by the model"),
        ({"colour": "red"}, "auto_complete_config: a configuration has no field 'colour'"),
        ({"input": [{**X, "data_type": "FP32"}]}, "auto_complete_config: .*FP32"),
        ({"input": [{**X, "dims": "all"}]}, "auto_complete_config: "),
        ({"max_batch_size": "many"}, "auto_complete_config: "),
        ({"input": 7}, "auto_complete_config: "),
    ],
)
def test_what_is_no_configuration_is_refused(changes, text):
    with pytest.raises(ConfigError, match=text):
        after(WRITTEN, **changes)
