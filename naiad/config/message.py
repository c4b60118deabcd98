"""The model configuration message, in a descriptor pool of our own.

Package `inference` in the default pool belongs to tritonclient, whose own copy would clash with ours. The descriptor
set is generated from `model_config.proto`; `gen/README` names the command.
"""

from __future__ import annotations

from importlib import resources
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import Message


def _load() -> type[Message]:
    files = descriptor_pb2.FileDescriptorSet.FromString(
        resources.files("naiad.config").joinpath("gen/model_config.binpb").read_bytes()
    )
    pool = descriptor_pool.DescriptorPool()
    for file in files.file:
        pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("inference.ModelConfig"))


ModelConfigMessage: Any = _load()
"""The class of `inference.ModelConfig`."""

_DATATYPES = ModelConfigMessage.DESCRIPTOR.file.enum_types_by_name["DataType"]


def v2_name(number: int) -> str:
    """The v2 name of a datatype number: `TYPE_STRING` is `BYTES`; empty for TYPE_INVALID."""
    name: str = _DATATYPES.values_by_number[number].name.removeprefix("TYPE_")
    return {"STRING": "BYTES", "INVALID": ""}.get(name, name)


def number_of(v2: str) -> int:
    """The datatype number of a v2 name; raises `KeyError`."""
    name = "STRING" if v2 == "BYTES" else v2
    return int(_DATATYPES.values_by_name[f"TYPE_{name}"].number)
