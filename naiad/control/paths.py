"""The one resolver: turns a path from a request into a path under an allowed root, or refuses it (C1)."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from naiad.control.problems import Rejected

_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}", re.ASCII)
_DEEPEST = 16


def under_roots(text: str, roots: Sequence[Path], *, field: str) -> Path:
    """The existing file or folder that `text` names, wherever its links lead still under one of `roots`.

    An absolute path lies under a root; a relative one is looked for in each root in turn.
    """
    _check_text(text, field)
    candidate = Path(text)
    candidates = [candidate] if candidate.is_absolute() else [root / candidate for root in roots]
    inside = [path for path in candidates if _is_inside(path, roots)]
    if not inside:
        raise Rejected.field(
            field,
            f"'{text}' is not under a folder that models may be read from",
            code="PATH_OUTSIDE_ROOTS",
            fix="upload it, or start the platform with --root naming its folder",
        )
    for path in inside:
        if path.exists():
            return path.resolve()
    raise Rejected.field(
        field, f"'{text}' does not exist{_sibling(inside[0])}", code="PATH_NOT_FOUND", fix="name a path that exists"
    )


def under_folder(text: str, folder: Path, *, field: str) -> Path:
    """A path inside `folder` for a file that need not exist yet; each part of `text` is a plain file name."""
    parts = text.split("/")
    if len(parts) > _DEEPEST:
        raise Rejected.field(field, f"expected at most {_DEEPEST} folders, got {len(parts)}", code="PATH_REFUSED")
    for part in parts:
        if not _FILE_NAME.fullmatch(part):
            raise Rejected.field(
                field,
                f"'{part[:80]}' cannot be a file's name here; expected letters, digits, '.', '_' and '-'",
                code="PATH_REFUSED",
            )
    path = folder.joinpath(*parts)
    if not path.resolve().is_relative_to(folder.resolve()):
        raise Rejected.field(field, f"'{text[:80]}' leaves its folder", code="PATH_REFUSED")
    return path


def _check_text(text: str, field: str) -> None:
    if any(ord(letter) < 32 or ord(letter) == 127 for letter in text):
        raise Rejected.field(field, "a path holds no control characters", code="PATH_REFUSED")
    if ".." in Path(text).parts or "\\" in text:
        raise Rejected.field(field, f"'{text[:200]}' holds '..' or '\\'; write the path itself", code="PATH_REFUSED")


def _is_inside(path: Path, roots: Sequence[Path]) -> bool:
    resolved = path.resolve()
    return any(resolved.is_relative_to(root.resolve()) for root in roots)


def _sibling(path: Path) -> str:
    """Names the part that is missing and what is there instead: other case, other blanks."""
    while not path.parent.is_dir() and path.parent != path:
        path = path.parent
    try:
        names = sorted(os.listdir(path.parent))
    except OSError:
        return ""
    alike = [name for name in names if name.strip().lower() == path.name.strip().lower()]
    if alike:
        return f"; '{alike[0]}' does (blanks and case count)"
    shown = ", ".join(f"'{name}'" for name in names[:8] if not name.startswith("."))
    return f"; '{path.parent.name}' holds {shown}" if shown else ""
