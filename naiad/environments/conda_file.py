"""Reads an environment.yaml: the few forms that such files have, and nothing that could be more than text (D6)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from naiad.environments.errors import WrongSpecification

_IGNORED = frozenset({"name", "prefix"})
_KEY = re.compile(r"([A-Za-z_][A-Za-z0-9_-]*)\s*:(?:\s+(.*))?$")
_PLAIN = re.compile(r"[^\x00-\x1f!&*|>{}%`]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class CondaFile:
    """What an environment.yaml asks for; its name and prefix are of no interest."""

    channels: tuple[str, ...]
    dependencies: tuple[str, ...]
    """Match specifications of conda packages, Python's apart."""
    pip: tuple[str, ...]
    """Requirements below `- pip:`."""


def read(text: str) -> CondaFile:
    """Parses the file; raises `WrongSpecification` with the line that is not understood."""
    lists: dict[str, list[str]] = {"channels": [], "dependencies": [], "pip": []}
    section, pip_indent = "", 0
    for number, raw in enumerate(text.splitlines(), 1):
        line = re.sub(r"(^|\s)#.*$", "", raw).rstrip()
        if not line or line == "---":
            continue
        if "\t" in line:
            raise _wrong(number, line.strip())
        indent = len(line) - len(line.lstrip(" "))
        body = line.strip()
        item = body[1:].strip() if body.startswith("- ") or body == "-" else None
        if item is None:
            if indent:
                raise _wrong(number, body)
            section, pip_indent = _section(number, body, lists), 0
        elif section == "dependencies" and item.replace(" ", "") == "pip:":
            pip_indent = indent + 1
        elif section == "dependencies" and pip_indent and indent >= pip_indent:
            lists["pip"].append(_scalar(number, item))
        elif section in lists:
            pip_indent = 0
            lists[section].append(_scalar(number, item))
        elif section not in _IGNORED:
            raise _wrong(number, body)
    dependencies = tuple(entry for entry in lists["dependencies"] if not re.match(r"python([\s=<>!~]|$)", entry))
    channels = tuple(channel for channel in lists["channels"] if channel != "nodefaults")
    return CondaFile(channels=channels, dependencies=dependencies, pip=tuple(lists["pip"]))


def _section(number: int, body: str, lists: dict[str, list[str]]) -> str:
    match = _KEY.fullmatch(body)
    if match is None:
        raise _wrong(number, body)
    key, value = match[1], (match[2] or "").strip()
    if key not in {"channels", "dependencies"} | _IGNORED:
        known = ", ".join(("name", "channels", "dependencies"))
        raise WrongSpecification("spec", f"line {number}: unknown key '{key}'; known: {known}")
    if key in _IGNORED or not value:
        return key
    if not (value.startswith("[") and value.endswith("]")):
        raise _wrong(number, body)
    lists[key] += [_scalar(number, part.strip()) for part in value[1:-1].split(",") if part.strip()]
    return key


def _scalar(number: int, text: str) -> str:
    if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
        text = text[1:-1]
    if not text or not _PLAIN.fullmatch(text.replace(">", "").replace("*", "").replace("|", "").replace("!=", "")):
        raise _wrong(number, text)
    if text[0] in "!&*|>[{" or ": " in text:
        raise _wrong(number, text)
    return text


def _wrong(number: int, text: str) -> WrongSpecification:
    return WrongSpecification("spec", f"line {number}: expected channels or dependencies, got '{text[:80]}'")
