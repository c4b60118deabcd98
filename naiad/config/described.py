"""Merges what a model says of itself into the configuration that was written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf import json_format

from naiad.backends.base import Backend
from naiad.config.autocomplete import begin
from naiad.config.json_form import to_dict
from naiad.config.message import ModelConfigMessage
from naiad.config.pbtxt import PartialConfig
from naiad.errors import ConfigError

MODEL = "model"
"""The origin of what a model said."""
_FIXED = frozenset({"name", "platform", "backend", "runtime", "version_policy", "default_model_filename"})


@dataclass(frozen=True, slots=True)
class Described:
    """A configuration that the model has completed."""

    partial: PartialConfig
    origins: Mapping[str, str]
    """Field path → `model`, of what it said."""


def asked(partial: PartialConfig, backend: Backend, *, name: str) -> dict[str, Any]:
    """What the model is handed: the configuration as it was written, as JSON."""
    message = begin(partial, backend).message
    message.name = message.name or name
    return to_dict(message)


def merged(partial: PartialConfig, before: Mapping[str, Any], after: Mapping[str, Any]) -> Described:
    """The configuration with what the model changed in it.

    The model's word counts: it was handed what is written, and refuses what it cannot do. Raises `ConfigError` for what
    it cannot set or what is no configuration.
    """
    message = ModelConfigMessage()
    message.CopyFrom(partial.message)
    origins: dict[str, str] = {}
    given = set(partial.given)
    for field, value in after.items():
        if before.get(field) == value:
            continue
        if field in _FIXED:
            raise ConfigError(f"auto_complete_config: {field}: it cannot be set by the model, got {value!r}")
        message.ClearField(_known(field))
        try:
            json_format.ParseDict({field: value}, message)
        except (json_format.ParseError, TypeError, ValueError, RecursionError) as error:
            raise ConfigError(f"auto_complete_config: {error}") from error
        given.add(field)
        origins |= _origins(field, before.get(field), value)
    source = partial.source or "auto_complete_config"
    return Described(PartialConfig(message, frozenset(given), source), origins)


def _known(field: str) -> str:
    if field not in ModelConfigMessage.DESCRIPTOR.fields_by_name:
        raise ConfigError(f"auto_complete_config: a configuration has no field '{field}'")
    return field


def _origins(field: str, before: Any, after: Any) -> dict[str, str]:
    """Tensors one by one, so that those which were written keep their origin."""
    if field not in ("input", "output") or not isinstance(after, list):
        return {field: MODEL}
    written = {tensor.get("name"): tensor for tensor in before or []}
    names = [tensor.get("name") for tensor in after if written.get(tensor.get("name")) != tensor]
    return {f"{field}.{name}": MODEL for name in names}
