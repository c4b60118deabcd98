"""The one path resolver: names from outside become paths below a root, or an error (C1-C3)."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

from naiad.errors import ConfigError

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._ +@=-]{0,254}")


def is_model_name(name: str) -> bool:
    """Whether a name can be a model directory (wider than C1, as folders of existing repositories are)."""
    return _NAME.fullmatch(name) is not None and name == name.strip() and ".." not in name


def shown(text: str) -> str:
    """A name from outside as it can be printed: control characters, which a terminal would obey, are spelled out."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)


def below(root: Path, relative: str) -> Path:
    """The path `relative` below `root`; raises `ConfigError` if it is absolute, climbs out or leads out by a link."""
    path = PurePosixPath(relative)
    bad = (
        not relative
        or path.is_absolute()
        or "\\" in relative
        or "\0" in relative
        or ":" in relative.split("/", 1)[0]
        or any(part in ("..", ".") for part in relative.split("/"))
    )
    if bad:
        raise ConfigError(f"path '{shown(relative)}': expected a path inside the model's directory")
    base = root.resolve()
    try:
        resolved = (base / path).resolve()
    except (OSError, RuntimeError, ValueError) as error:  # too long, or links in a circle (RuntimeError before 3.13)
        raise ConfigError(f"path '{shown(relative[:200])}': {getattr(error, 'strerror', None) or error}") from error
    if not resolved.is_relative_to(base):
        raise ConfigError(
            f"path '{shown(relative)}' is a link that leads out of the model's directory; "
            "put the file itself there, or make the version's folder a link"
        )
    return resolved
