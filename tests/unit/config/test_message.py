"""The message against the .proto that it is generated from, and against the numbers that Triton's clients use."""

from __future__ import annotations

import importlib
import subprocess
import sys
from importlib import resources
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool

from naiad.config.message import ModelConfigMessage, number_of, v2_name


def messages(descriptor: Any) -> dict[str, Any]:
    """Every message that is reachable, by full name."""
    found: dict[str, Any] = {}
    waiting = [descriptor]
    while waiting:
        current = waiting.pop()
        if current.full_name not in found:
            found[current.full_name] = current
            waiting += [field.message_type for field in current.fields if field.message_type is not None]
    return found


def enums(descriptor: Any) -> dict[str, dict[str, int]]:
    found = {}
    for message in messages(descriptor).values():
        for field in message.fields:
            if field.enum_type is not None:
                found[field.enum_type.full_name] = {value.name: value.number for value in field.enum_type.values}
    return found


def shape(field: Any) -> tuple[Any, ...]:
    of = field.message_type or field.enum_type
    oneof = field.containing_oneof.name if field.containing_oneof else ""
    return field.number, field.type, field.is_repeated, of.full_name if of else "", oneof


def test_the_descriptor_set_is_what_the_proto_gives(tmp_path):
    pytest.importorskip("grpc_tools", reason="grpcio-tools is not installed")
    room = resources.files("naiad.config")
    out = tmp_path / "set.binpb"
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{room}", f"--descriptor_set_out={out}"]
    ended = subprocess.run([*command, "model_config.proto"], capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stderr
    made = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes())
    kept = descriptor_pb2.FileDescriptorSet.FromString(room.joinpath("gen/model_config.binpb").read_bytes())
    assert kept == made, "run the command of naiad/config/gen/README"


def test_every_field_has_tritons_name_and_number():
    try:
        module = importlib.import_module("tritonclient.grpc.model_config_pb2")
    except (ImportError, RuntimeError):
        pytest.skip("tritonclient[grpc] is not installed: it needs protobuf < 7")
    theirs = module.ModelConfig.DESCRIPTOR
    ours = ModelConfigMessage.DESCRIPTOR
    assert set(messages(ours)) == set(messages(theirs))
    for name, message in messages(theirs).items():
        mine = {field.name: shape(field) for field in messages(ours)[name].fields}
        assert mine == {field.name: shape(field) for field in message.fields}, name
    assert enums(ours) == enums(theirs)


def test_the_pool_is_our_own():
    # tritonclient registers inference.ModelConfig in the default pool; a second one there would be an error.
    assert ModelConfigMessage.DESCRIPTOR.file.pool is not descriptor_pool.Default()


@pytest.mark.parametrize(
    ("number", "name"), [(0, ""), (1, "BOOL"), (9, "INT64"), (10, "FP16"), (13, "BYTES"), (14, "BF16")]
)
def test_datatypes_have_v2_names(number, name):
    assert v2_name(number) == name
    if name:
        assert number_of(name) == number


def test_an_unknown_datatype_is_no_number():
    with pytest.raises(KeyError):
        number_of("FP8")
