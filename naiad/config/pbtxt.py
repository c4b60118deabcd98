"""Reads config.pbtxt: the text form of the message, with errors that name file, line and column."""

from __future__ import annotations

import difflib
import json
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf import json_format, text_format

from naiad.config.message import ModelConfigMessage
from naiad.errors import ConfigError


@dataclass(frozen=True, slots=True)
class PartialConfig:
    """A configuration as it was given: possibly empty, possibly without most fields."""

    message: Any
    given: frozenset[str]
    """Top-level fields that were written, defaults included (`max_batch_size: 0` counts)."""
    source: str
    """What messages call it: `config.pbtxt`, `load parameter 'config'` or "" where there is none."""


EMPTY_SOURCE = ""
MAX_BYTES = 1 << 20
"""A text of this size takes seconds to parse; those that people write have some kilobytes."""


def empty() -> PartialConfig:
    """No configuration at all."""
    return PartialConfig(ModelConfigMessage(), frozenset(), EMPTY_SOURCE)


def parse(text: str, source: str) -> PartialConfig:
    """The text form; raises `ConfigError` with line, column and a did-you-mean."""
    message = ModelConfigMessage()
    try:
        text_format.Parse(text, message)
    except text_format.ParseError as error:
        raise ConfigError(_explain(error, text, source)) from error
    return PartialConfig(message, _top_level(text), source)


def parse_json(text: str, source: str) -> PartialConfig:
    """The JSON form (a load call's `config`); raises `ConfigError`."""
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError(f"{source}:{error.lineno}:{error.colno}: {error.msg}") from error
    except ValueError as error:  # a number of thousands of digits
        raise ConfigError(f"{source}: expected numbers of 64 bits: {error}") from error
    except RecursionError as error:
        raise ConfigError(f"{source}: nested too deeply") from error
    if not isinstance(document, dict):
        raise ConfigError(f"{source}: expected a JSON object, got {type(document).__name__}")
    try:
        message = json_format.ParseDict(document, ModelConfigMessage())
    except (json_format.ParseError, TypeError, ValueError, RecursionError) as error:
        raise ConfigError(f"{source}: {error}") from error
    return PartialConfig(message, frozenset(_snake(name) for name in document), source)


def read(directory: Path, *, config_name: str | None) -> PartialConfig:
    """The configuration of a model directory; empty if it has none. Raises `ConfigError`."""
    candidates = [f"configs/{config_name}.pbtxt"] if config_name else []
    for name in [*candidates, "config.pbtxt"]:
        path = directory / name
        if os.path.lexists(path):
            return parse(_text(path, name), name)
    return empty()


def _text(path: Path, name: str) -> str:
    """What a file holds; raises `ConfigError` for what is no file, too, for it was meant as a configuration."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise ConfigError(f"{name}: expected a file, got a folder, a pipe or a device")
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise ConfigError(f"{name}: expected at most {MAX_BYTES} bytes, got more")
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{name}: expected UTF-8 text, got byte {error.object[error.start]:#x}") from error
    except OSError as error:
        raise ConfigError(f"{name} cannot be read: {error.strerror}") from error


def _snake(name: str) -> str:
    return re.sub(r"(?<!^)([A-Z])", lambda match: "_" + match[1].lower(), name)


def _top_level(text: str) -> frozenset[str]:
    """Names of fields at depth 0, so that a written default is told from an absent field."""
    names, depth = set(), 0
    for match in re.finditer(r'"(?:\\.|[^"\\])*"|\'(?:\\.|[^\'\\])*\'|#[^\n]*|[{}<>\[\]]|\w+', text):
        token = match[0]
        if token[0] in "{<[":
            depth += 1
        elif token[0] in "}>]":
            depth -= 1
        elif depth == 0 and token in ModelConfigMessage.DESCRIPTOR.fields_by_name:
            names.add(token)
    return frozenset(names)


def _explain(error: text_format.ParseError, text: str, source: str) -> str:
    line, column = error.GetLine() or 1, error.GetColumn() or 1
    cause = re.sub(r"^(\d+):(\d+) : ", "", str(error))
    hint = _did_you_mean(cause)
    lines = text.splitlines()
    written = lines[line - 1] if 0 < line <= len(lines) else ""
    # The parser repeats the line in some of its messages.
    cause = cause.removeprefix(f"'{written}': ").rstrip(".")
    return f"{source}:{line}:{column}: {cause}{hint}" + (f" (in: {written.strip()[:80]})" if written.strip() else "")


def _did_you_mean(cause: str) -> str:
    """The name that was probably meant, of those that stand in the same place."""
    fields, values = _names()
    unknown = re.search(r'type "([\w.]+)" has no (field|value) named "?(\w+)', cause)
    if not unknown:
        return ""
    known = (fields if unknown[2] == "field" else values).get(unknown[1], [])
    prefixed = [name for name in known if name == f"TYPE_{unknown[3]}" or name == f"KIND_{unknown[3]}"]
    near = prefixed or difflib.get_close_matches(unknown[3], known, n=1)
    return f"; did you mean '{near[0]}'?" if near else ""


def _names() -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Field names by message and value names by enum, over every type that the configuration reaches."""
    fields: dict[str, list[str]] = {}
    values: dict[str, list[str]] = {}
    waiting = [ModelConfigMessage.DESCRIPTOR]
    while waiting:
        current = waiting.pop()
        if current.full_name in fields:
            continue
        fields[current.full_name] = sorted(field.name for field in current.fields)
        for field in current.fields:
            if field.message_type is not None:
                waiting.append(field.message_type)
            if field.enum_type is not None:
                values[field.enum_type.full_name] = sorted(value.name for value in field.enum_type.values)
    return fields, values
