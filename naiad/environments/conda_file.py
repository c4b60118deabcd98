"""Reads an environment.yaml: channels, conda packages, pip requirements, and nothing that could be more than text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from naiad.environments.errors import WrongSpecification

_KNOWN = ("name", "channels", "dependencies", "prefix")
MAX_BRACKETS = 1000
"""More than a file has that lists packages; the parser's time grows with their square."""
# No URL, path or file: each would be fetched from wherever it points to, past the channels.
_PACKAGE = re.compile(
    r"(?:[A-Za-z0-9][A-Za-z0-9._-]*::)?(?P<name>[A-Za-z0-9_][A-Za-z0-9._-]*)(?:[ =<>!~][A-Za-z0-9 =<>!~,|*.+_()-]*)?",
    re.ASCII,
)
_FILES = (".conda", ".tar.bz2")


@dataclass(frozen=True, slots=True, kw_only=True)
class CondaFile:
    """What an environment.yaml asks for; its name and prefix are of no interest."""

    channels: tuple[str, ...]
    dependencies: tuple[str, ...]
    """Match specifications of conda packages, Python's apart."""
    pip: tuple[str, ...]
    """Requirements below `- pip:`."""


def read(text: str) -> CondaFile:
    """Parses the file; raises `WrongSpecification` that names the line or the field."""
    document = _parsed(text)
    unknown = [key for key in document if key not in _KNOWN]
    if unknown:
        known = ", ".join(_KNOWN[:3])
        raise WrongSpecification("spec", f"unknown key '{str(unknown[0])[:80]}'; known: {known}")
    packages: list[str] = []
    requirements: list[str] = []
    for place, entry in enumerate(_list(document, "dependencies")):
        if isinstance(entry, dict) and list(entry) == ["pip"]:
            requirements += _texts(_list(entry, "pip"), "pip")
        else:
            packages += _texts([entry], "dependencies", first=place)
    names = {entry: _package(entry) for entry in packages}
    channels = tuple(name for name in _texts(_list(document, "channels"), "channels") if name != "nodefaults")
    dependencies = tuple(entry for entry in packages if names[entry] != "python")
    return CondaFile(channels=channels, dependencies=dependencies, pip=tuple(requirements))


def _parsed(text: str) -> dict[Any, Any]:
    if text.count("[") + text.count("{") > MAX_BRACKETS:
        raise WrongSpecification("spec", f"more than {MAX_BRACKETS} brackets")
    try:
        # Scalars stay texts: `1.10` is a version and no number. Aliases, which can grow without end, are refused.
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, Loader=yaml.BaseLoader)):
            raise WrongSpecification("spec", "expected plain lists, got an alias")
        document = yaml.load(text, Loader=yaml.BaseLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f"line {mark.line + 1}: " if mark is not None else ""
        raise WrongSpecification("spec", f"{line}{getattr(error, 'problem', None) or 'no YAML'}") from error
    except RecursionError as error:
        raise WrongSpecification("spec", "nested too deeply") from error
    if document is None or document == "":
        return {}
    if not isinstance(document, dict):
        raise WrongSpecification("spec", "expected channels and dependencies, got no mapping")
    return document


def _package(entry: str) -> str:
    """The name of the package that an entry asks for; raises `WrongSpecification` for anything but name and version."""
    match = _PACKAGE.fullmatch(entry)
    if match is None or entry.endswith(_FILES):
        text = f"dependencies: expected a package such as 'numpy>=2' or 'conda-forge::numpy=2.1', got '{entry[:80]}'"
        raise WrongSpecification("spec", text)
    return match["name"].lower()


def _list(document: dict[Any, Any], key: str) -> list[Any]:
    value = document.get(key) or []
    if not isinstance(value, list):
        raise WrongSpecification("spec", f"{key}: expected a list, got '{str(value)[:80]}'")
    return value


def _texts(values: list[Any], key: str, *, first: int = 0) -> Iterator[str]:
    for place, value in enumerate(values, first):
        if not isinstance(value, str) or not value.strip() or not value.isprintable():
            raise WrongSpecification("spec", f"{key}[{place}]: expected a text, got '{str(value)[:80]}'")
        yield value.strip()
