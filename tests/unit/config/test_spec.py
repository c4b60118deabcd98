"""What the core is told, against the fields that its own type declares."""

from __future__ import annotations

import json
import re
from pathlib import Path

from naiad.config import pbtxt
from naiad.config.freeze import freeze
from naiad.config.spec import DEFAULT_QUEUE_BOUND, model_spec

SPEC = Path(__file__).resolve().parents[3] / "crates/core/src/spec.rs"
IO = """
input { name: "x" data_type: TYPE_STRING dims: [ 1 ] reshape { } optional: true }
output { name: "y" data_type: TYPE_FP32 dims: [ -1, 2 ] }
"""


def spec(text: str) -> dict:
    config = freeze(pbtxt.parse(text, "x").message, name="m", source="x")
    return model_spec(config, version=3, workers=[7, 8], labels={"y": ["cat", "dog"]}, hold_until=5)


def declared(kind: str) -> set[str]:
    """Field names of a struct or of an enum's variant in the core."""
    body = re.search(
        rf"(?:struct {kind}|^    {kind}) \{{\n(.*?)\n *\}}", SPEC.read_text("utf-8"), re.DOTALL | re.MULTILINE
    )
    assert body, kind
    return set(re.findall(r"^\s*(?:pub )?(\w+): ", body[1], re.MULTILINE))


def test_every_field_of_the_core_is_told_and_no_other():
    document = spec(IO + "max_batch_size: 4 dynamic_batching { }")
    assert set(document) == declared("ModelSpec")
    assert set(document["inputs"][0]) == set(document["outputs"][0]) == declared("TensorSpec")
    assert set(document["scheduler"]) - {"kind"} == declared("Dynamic")


def test_values_are_those_of_the_configuration():
    document = spec(IO + 'max_batch_size: 4 backend: "identity" dynamic_batching { max_queue_delay_microseconds: 9 }')
    assert (document["name"], document["version"], document["workers"]) == ("m", 3, [7, 8])
    assert document["platform"] == "identity"  # W62
    assert document["inputs"][0] == {
        "name": "x", "datatype": "BYTES", "dims": [1], "reshape": [], "optional": True, "labels": [],
    }  # fmt: skip
    assert document["outputs"][0]["labels"] == ["cat", "dog"]
    scheduler = document["scheduler"]
    assert (scheduler["kind"], scheduler["preferred_batch_sizes"], scheduler["max_queue_delay_us"]) == (
        "dynamic",
        [4],
        9,
    )
    assert scheduler["hold_until"] == 5
    assert document["max_queue_size"] == DEFAULT_QUEUE_BOUND
    assert json.loads(document["config"])["max_batch_size"] == 4


def test_without_batching_the_scheduler_is_direct():
    text = IO.replace("reshape { }", "") + 'platform: "pytorch_libtorch" backend: "pytorch"'
    document = spec(text)
    assert document["scheduler"] == {"kind": "direct"}
    assert document["platform"] == "pytorch_libtorch"


def test_a_bounded_queue_is_bounded():
    document = spec(IO + "max_batch_size: 4 dynamic_batching { default_queue_policy { max_queue_size: 3 } }")
    assert document["max_queue_size"] == 3


def test_levels_of_priority_have_their_own_policies():
    text = """max_batch_size: 4 dynamic_batching {
        priority_levels: 3 default_priority_level: 2 default_queue_policy { max_queue_size: 3 }
        priority_queue_policy { key: 1 value {
            timeout_action: DELAY default_timeout_microseconds: 7 allow_timeout_override: true max_queue_size: 9 } }
    }"""
    document = spec(IO + text)
    scheduler = document["scheduler"]
    assert (scheduler["priority_levels"], scheduler["default_priority_level"]) == (3, 2)
    (policy,) = scheduler["priority_policies"]
    assert set(policy) == declared("QueuePolicy")
    assert list(policy.values()) == [1, 9, 7, True, True]
    assert scheduler["level_queue_size"] == 3
    assert document["max_queue_size"] == DEFAULT_QUEUE_BOUND, "the bound is each level's"
