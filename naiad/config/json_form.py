"""The configuration as JSON (W63): proto field names, every default printed, enums as names, int64 as numbers."""

from __future__ import annotations

from typing import Any

from google.protobuf.descriptor import FieldDescriptor

_MESSAGE = FieldDescriptor.CPPTYPE_MESSAGE
_ENUM = FieldDescriptor.CPPTYPE_ENUM


def to_dict(message: Any) -> dict[str, Any]:
    """Scalars, lists and maps are always there; messages and members of a oneof only if they are set.

    `optimization` is printed even if unset, as Triton does.
    """
    out: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            out[field.name] = _map(field, value)
        elif field.is_repeated:
            out[field.name] = [_value(field, item) for item in value]
        elif field.cpp_type == _MESSAGE:
            if message.HasField(field.name) or field.full_name == "inference.ModelConfig.optimization":
                out[field.name] = to_dict(value)
        elif field.containing_oneof is None or message.HasField(field.name):
            out[field.name] = _value(field, value)
    return out


def _map(field: Any, value: Any) -> dict[str, Any]:
    inner = field.message_type.fields_by_name["value"]
    return {str(key): _value(inner, value[key]) for key in sorted(value)}


def _value(field: Any, value: Any) -> Any:
    if field.cpp_type == _MESSAGE:
        return to_dict(value)
    if field.cpp_type == _ENUM:
        return field.enum_type.values_by_number[value].name
    if field.type == FieldDescriptor.TYPE_BYTES:
        return value.decode("latin-1")
    return value
