"""Normalisation and validation: what Triton fills in, and what it refuses."""

from __future__ import annotations

import pytest

from naiad.config import pbtxt
from naiad.config.freeze import freeze
from naiad.config.model import DynamicBatching, InstanceGroup, ModelConfig, QueuePolicy
from naiad.errors import ConfigError

IO = """
input { name: "x" data_type: TYPE_FP32 dims: [ 4 ] }
output { name: "y" data_type: TYPE_FP32 dims: [ 4 ] }
"""


def frozen(text: str, *, name: str = "m") -> ModelConfig:
    return freeze(pbtxt.parse(text, "config.pbtxt").message, name=name, source="config.pbtxt")


def test_what_is_missing_is_filled_in():
    config = frozen(IO + "max_batch_size: 8 dynamic_batching { }")
    assert config.document["version_policy"] == {"latest": {"num_versions": 1}}
    assert config.document["dynamic_batching"]["preferred_batch_size"] == [8]
    (group,) = config.document["instance_group"]
    assert (group["name"], group["kind"], group["count"]) == ("m", "KIND_CPU", 1)
    assert config.name == config.document["name"] == "m"
    assert config.instance_groups == (InstanceGroup(kind="KIND_CPU", count=1),)


def test_several_groups_are_numbered_and_gpus_mean_gpu():
    (alone,) = frozen(IO + "instance_group { count: 2 }").document["instance_group"]
    assert alone["name"] == "m_0"  # what is written has a number, what is not has none
    config = frozen(IO + 'instance_group [ { count: 2 }, { gpus: [ 1 ] }, { name: "own" kind: KIND_MODEL } ]')
    assert [group["name"] for group in config.document["instance_group"]] == ["m_0", "m_1", "own"]
    assert config.instance_groups == (
        InstanceGroup(kind="KIND_CPU", count=2),
        InstanceGroup(kind="KIND_GPU", count=1, gpus=(1,)),
        InstanceGroup(kind="KIND_MODEL", count=1),
    )


def test_latest_without_a_number_is_one():
    assert frozen(IO + "version_policy { latest { } }").document["version_policy"] == {"latest": {"num_versions": 1}}


def test_a_queue_policy_is_taken_over():
    config = frozen(
        IO
        + """max_batch_size: 8 dynamic_batching { preferred_batch_size: [ 8, 4 ] max_queue_delay_microseconds: 100
        default_queue_policy { timeout_action: DELAY default_timeout_microseconds: 7 allow_timeout_override: true
        max_queue_size: 3 } }"""
    )
    policy = QueuePolicy(max_queue_size=3, default_timeout_us=7, allow_timeout_override=True, timeout_delays=True)
    assert config.dynamic_batching == DynamicBatching(
        preferred_batch_sizes=(4, 8), max_queue_delay_us=100, queue_policy=policy
    )


def test_dynamic_batching_without_a_batch_size_has_no_effect():
    assert frozen(IO + "dynamic_batching { }").dynamic_batching is None


@pytest.mark.parametrize("batch", ["max_batch_size: 2 ", ""], ids=["batched", "a scalar"])
def test_the_model_may_see_an_element_without_dims(batch):
    text = batch + 'input { name: "x" data_type: TYPE_FP32 dims: [ 1 ] reshape { } } ' + IO.split("\n")[2]
    assert frozen(text).inputs[0].model_dims == ()


TENSOR = (
    'input {{ name: "x" data_type: TYPE_FP32 dims: [ {} ] {} }} output {{ name: "y" data_type: TYPE_FP32 dims: 1 }}'
)
BROKEN = {
    "another name": (IO + 'name: "other"', "name: expected the directory's name 'm', got 'other'"),
    "negative batch": (IO + "max_batch_size: -1", "max_batch_size: expected 0 or more, got -1"),
    "preferred too large": (
        IO + "max_batch_size: 4 dynamic_batching { preferred_batch_size: [ 2, 8 ] }",
        "dynamic_batching.preferred_batch_size: expected 1 to max_batch_size 4, got 8",
    ),
    "preferred zero": (
        IO + "max_batch_size: 4 dynamic_batching { preferred_batch_size: [ 0 ] }",
        "dynamic_batching.preferred_batch_size: expected 1 to max_batch_size 4, got 0",
    ),
    "preferred without batching": (
        IO + "dynamic_batching { preferred_batch_size: [ 1 ] }",
        "dynamic_batching.preferred_batch_size: expected 1 to max_batch_size 0, got 1",
    ),
    "dim zero": (TENSOR.format("4, 0", ""), "input 'x'.dims: expected dims of 1 or more, or -1, got [4, 0]"),
    "dim -2": (TENSOR.format("-2", ""), "input 'x'.dims: expected dims of 1 or more, or -1, got [-2]"),
    "no dims": (TENSOR.format("", ""), "input 'x'.dims: expected at least one dim where max_batch_size is 0, got none"),
    "no datatype": (
        IO.replace("data_type: TYPE_FP32 ", "", 1),
        "input 'x'.data_type: expected a datatype such as TYPE_FP32, got none",
    ),
    "no name": (IO.replace('name: "x" ', ""), "input[0].name: expected a name, got none"),
    "twice": (IO + 'input { name: "x" data_type: TYPE_FP32 dims: 1 }', "input 'x': the name stands twice"),
    "reshape elements": (
        TENSOR.format("4", "reshape { shape: [ 3 ] }"),
        "input 'x'.reshape: expected as many elements as [4], got [3]",
    ),
    "reshape variable": (
        TENSOR.format("-1", "reshape { shape: [ 1 ] }"),
        "input 'x'.reshape: expected as many variable dims as [-1], got [1]",
    ),
    "reshape zero": (
        TENSOR.format("4", "reshape { shape: [ 0, 4 ] }"),
        "input 'x'.reshape: expected dims of 1 or more, or -1, got [0, 4]",
    ),
    "processes without end": (
        IO + "instance_group [ { count: 2147483647 }, { count: 1 } ]",
        "instance_group.count: expected at most 1024 instances in all, got 2147483648",
    ),
    "negative count": (IO + "instance_group { count: -2 }", "instance_group.count: expected 1 or more, got -2"),
    "negative reshape": (
        TENSOR.format("4", "reshape { shape: [ -2, -2 ] }"),
        "input 'x'.reshape: expected dims of 1 or more, or -1, got [-2, -2]",
    ),
    "gpus of a CPU": (
        IO + "instance_group { kind: KIND_CPU gpus: [ 0 ] }",
        "instance_group.gpus: expected none with kind KIND_CPU, got [0]",
    ),
    "order and delay": (
        IO
        + "max_batch_size: 2 "
        + "dynamic_batching { preserve_ordering: true default_queue_policy { timeout_action: DELAY } }",
        "dynamic_batching: preserve_ordering does not go with timeout_action DELAY",
    ),
    "sequences": (
        IO + "sequence_batching { }",
        "sequence_batching: sequence batching comes with a later version of Naiad",
    ),
    "ensemble": (IO + "ensemble_scheduling { }", "ensemble_scheduling: ensembles come with a later version of Naiad"),
    "cache": (
        IO + "response_cache { enable: true } model_transaction_policy { decoupled: true }",
        "response_cache: Response Cache does not currently support model m with 'Decoupled' transaction policy. "
        "Please disable the response cache.",
    ),
    "ragged": (
        TENSOR.format("4", "allow_ragged_batch: true"),
        "input 'x'.allow_ragged_batch: ragged batches come with a later version of Naiad",
    ),
    "default priority": (
        IO + "max_batch_size: 2 dynamic_batching { priority_levels: 2 default_priority_level: 3 }",
        "dynamic_batching.default_priority_level: expected 1 to priority_levels 2, got 3",
    ),
    "no default priority": (
        IO + "max_batch_size: 2 dynamic_batching { priority_levels: 2 }",
        "dynamic_batching.default_priority_level: expected 1 to priority_levels 2, got 0",
    ),
    "default priority without levels": (
        IO + "max_batch_size: 2 dynamic_batching { default_priority_level: 1 }",
        "dynamic_batching.default_priority_level: expected none where priority_levels is 0, got 1",
    ),
    "policy of no level": (
        IO + "max_batch_size: 2 dynamic_batching { priority_levels: 2 default_priority_level: 1 "
        "priority_queue_policy { key: 3 value { } } }",
        "dynamic_batching.priority_queue_policy: expected levels of 1 to 2, got 3",
    ),
    "ordered priorities": (
        IO + "max_batch_size: 2 dynamic_batching { priority_levels: 2 default_priority_level: 1 "
        "preserve_ordering: true }",
        "dynamic_batching: preserve_ordering does not go with more than one priority level",
    ),
    "ordered delay of a level": (
        IO + "max_batch_size: 2 dynamic_batching { priority_levels: 1 default_priority_level: 1 "
        "preserve_ordering: true priority_queue_policy { key: 1 value { timeout_action: DELAY } } }",
        "dynamic_batching: preserve_ordering does not go with timeout_action DELAY",
    ),
}


@pytest.mark.parametrize(("text", "message"), BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_configuration_names_file_field_and_cause(text, message):
    with pytest.raises(ConfigError) as caught:
        frozen(text)
    assert str(caught.value) == f"config.pbtxt: {message}"


def test_fields_that_have_no_effect_here_are_accepted():
    text = """
    optimization { graph { level: 1 } priority: PRIORITY_MAX input_pinned_memory { enable: true } }
    model_warmup { name: "w" batch_size: 1 inputs { key: "x" value { data_type: TYPE_FP32 dims: 4 zero_data: true } } }
    metric_tags { key: "team" value: "a" }
    model_transaction_policy { decoupled: true }
    response_cache { enable: false }
    """
    document = frozen(IO + text).document
    assert document["optimization"]["graph"] == {"level": 1}
    assert document["metric_tags"] == {"team": "a"}
