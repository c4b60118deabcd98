"""Instance groups against the GPUs of the machine."""

from __future__ import annotations

import pytest

from naiad.config import pbtxt
from naiad.config.freeze import freeze
from naiad.errors import ConfigError
from naiad.server import devices

IO = """
input { name: "x" data_type: TYPE_FP32 dims: [ 4 ] }
output { name: "y" data_type: TYPE_FP32 dims: [ 4 ] }
"""
CPU = {"kind": "cpu"}
MODEL = {"kind": "model"}


def message(text: str):
    return pbtxt.parse(IO + text, "x").message


@pytest.fixture
def machine(monkeypatch):
    """Sets the GPUs of the machine."""
    return lambda *numbers: monkeypatch.setattr(devices, "gpus", lambda: list(numbers))


@pytest.mark.parametrize(
    ("group", "name"),
    [("{ kind: KIND_GPU }", "m_0"), ("[ { }, { gpus: [ 0 ] } ]", "m_1"), ('{ name: "g" kind: KIND_GPU }', "g")],
)
def test_a_group_for_a_gpu_that_is_not_there_is_refused_in_tritons_words(machine, group, name):
    machine()
    with pytest.raises(ConfigError) as caught:
        devices.check(message(f"instance_group {group}"), name="m")
    assert caught.value.what == f"instance group {name} of model m has kind KIND_GPU but no GPUs are available"
    assert caught.value.fix == "write kind: KIND_CPU, or leave instance_group out"


def test_groups_for_the_cpu_ask_for_nothing(machine):
    machine()
    text = "instance_group [ { kind: KIND_CPU }, { kind: KIND_MODEL }, { kind: KIND_AUTO } ]"
    devices.check(message(text), name="m")
    assert devices.first(message(text)) == devices.first(message("")) == CPU
    assert devices.of_instances(freeze(message(text), name="m", source="x")) == [CPU, MODEL, CPU]
    assert devices.first(message("instance_group { kind: KIND_MODEL }")) == MODEL


def test_instances_lie_on_the_gpus_that_they_ask_for(machine):
    machine(0, 2)
    text = "instance_group [ { count: 2 gpus: [ 2 ] }, { kind: KIND_GPU }, { kind: KIND_CPU } ]"
    devices.check(message(text), name="m")
    config = freeze(message(text), name="m", source="x")
    on = [{"kind": "cuda", "id": number} for number in (2, 2, 0)]
    assert devices.of_instances(config) == [*on, CPU]
    assert devices.first(message(text)) == on[0]
    with pytest.raises(ConfigError, match=r"expected some of \[0, 2\], got \[1\]"):
        devices.check(message("instance_group { gpus: [ 1 ] }"), name="m")
