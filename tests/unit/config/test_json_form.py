from __future__ import annotations

import json

from naiad.config import pbtxt
from naiad.config.freeze import freeze
from naiad.config.json_form import to_dict
from naiad.config.message import ModelConfigMessage


def test_every_default_is_printed():  # W63
    document = to_dict(ModelConfigMessage())
    assert document["runtime"] == document["platform"] == document["name"] == ""
    assert document["max_batch_size"] == 0
    assert document["input"] == document["output"] == document["instance_group"] == document["model_warmup"] == []
    assert document["parameters"] == document["metric_tags"] == document["cc_model_filenames"] == {}
    assert document["optimization"] == {
        "priority": "PRIORITY_DEFAULT", "gather_kernel_buffer_threshold": 0, "eager_batching": False,
    }  # fmt: skip
    for absent in ("dynamic_batching", "sequence_batching", "ensemble_scheduling", "version_policy", "response_cache"):
        assert absent not in document


def test_int64_are_numbers_and_enums_are_names():  # W63
    partial = pbtxt.parse(
        """
        version_policy { specific { versions: [ 1, 9007199254740993 ] } }
        input { name: "x" data_type: TYPE_STRING format: FORMAT_NCHW dims: [ -1, 3 ] reshape { shape: [ 3, -1 ] } }
        dynamic_batching { priority_levels: 2 default_priority_level: 1
                           priority_queue_policy { key: 2 value { timeout_action: DELAY } } }
        parameters { key: "b" value { string_value: "2" } }
        parameters { key: "a" value { string_value: "1" } }
        """,
        "x",
    )
    document = to_dict(partial.message)
    assert document["version_policy"] == {"specific": {"versions": [1, 9007199254740993]}}
    (tensor,) = document["input"]
    assert (tensor["data_type"], tensor["format"], tensor["dims"]) == ("TYPE_STRING", "FORMAT_NCHW", [-1, 3])
    assert tensor["reshape"] == {"shape": [3, -1]}
    policy = document["dynamic_batching"]["priority_queue_policy"]
    assert policy["2"]["timeout_action"] == "DELAY"
    assert document["parameters"] == {"a": {"string_value": "1"}, "b": {"string_value": "2"}}
    assert "9007199254740993" in json.dumps(document)


def test_members_of_a_oneof_are_printed_if_set():
    partial = pbtxt.parse('model_warmup { inputs { key: "x" value { zero_data: false dims: 1 } } }', "x")
    assert to_dict(partial.message)["model_warmup"][0]["inputs"]["x"] == {
        "data_type": "TYPE_INVALID", "dims": [1], "zero_data": False,
    }  # fmt: skip


def test_what_is_printed_reads_back_as_the_same():
    text = 'backend: "identity" max_batch_size: 8 dynamic_batching { } ' + "".join(
        f'{kind} {{ name: "{kind}0" data_type: TYPE_FP32 dims: [ 4, -1 ] }} ' for kind in ("input", "output")
    )
    config = freeze(pbtxt.parse(text, "x").message, name="m", source="x")
    again = pbtxt.parse_json(json.dumps(config.document), "y")
    assert to_dict(again.message) == config.document
    assert to_dict(pbtxt.parse(config.text, "z").message) == config.document
