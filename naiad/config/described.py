"""Merges what a model says of itself into the configuration that was written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf import json_format

from naiad.backends.base import Backend
from naiad.config.autocomplete import begin
from naiad.config.conflicts import Conflict
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
    conflicts: tuple[Conflict, ...] = ()
    """Where it said otherwise than was written."""


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
    source = partial.source or "auto_complete_config"
    conflicts: list[Conflict] = []
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
        if field in partial.given:
            conflicts += _conflicts(field, before.get(field), value, source)
        given.add(field)
        origins |= _origins(field, before.get(field), value)
        if field not in partial.given:
            origins[field] = MODEL
    return Described(PartialConfig(message, frozenset(given), source), origins, tuple(conflicts))


def _known(field: str) -> str:
    if field not in ModelConfigMessage.DESCRIPTOR.fields_by_name:
        raise ConfigError(f"auto_complete_config: a configuration has no field '{field}'")
    return field


def _conflicts(field: str, before: Any, after: Any, source: str) -> Iterator[Conflict]:
    """What was written and is now another value, or gone; tensors one by one."""
    if field not in ("input", "output"):
        if before != after and not isinstance(before, dict):
            yield Conflict(field, {source: before, MODEL: after}, MODEL)
        return
    kept = {tensor.get("name"): tensor for tensor in after}
    for tensor in before or []:
        path = f"{field}.{tensor['name']}"
        if tensor["name"] not in kept:
            yield Conflict(path, {source: "written", MODEL: "absent"}, MODEL)
            continue
        for part in ("data_type", "dims"):
            told = kept[tensor["name"]].get(part)
            if tensor[part] not in ("TYPE_INVALID", [], told):
                yield Conflict(f"{path}.{part}", {source: tensor[part], MODEL: told}, MODEL)


def _origins(field: str, before: Any, after: Any) -> dict[str, str]:
    """Tensors one by one, so that those which were written keep their origin."""
    if field not in ("input", "output") or not isinstance(after, list):
        return {field: MODEL}
    written = {tensor.get("name"): tensor for tensor in before or []}
    names = [tensor.get("name") for tensor in after if written.get(tensor.get("name")) != tensor]
    return {f"{field}.{name}": MODEL for name in names}
