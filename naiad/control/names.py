"""Names of resources: the rule, the slug that is suggested, and the nearest known word."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?", re.ASCII)
SHORTEST, LONGEST = 2, 63
RESERVED = frozenset({"new"})


def problem_with(name: str) -> str | None:
    """What is wrong with a name, or None."""
    if name in RESERVED:
        return f"'{name}' is reserved"
    if not SHORTEST <= len(name) <= LONGEST:
        return f"expected {SHORTEST} to {LONGEST} characters, got {len(name)}"
    if not NAME.fullmatch(name):
        return "expected lower-case letters, digits and '-', beginning with a letter and not ending with '-'"
    return None


def slug(text: str) -> str:
    """The name that is suggested for a text: `ResNet_50` → `resnet-50`."""
    words = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
    words = words if words[:1].isalpha() else f"model-{words}".strip("-")
    words = words[:LONGEST].rstrip("-")
    return words if problem_with(words) is None else f"{words}-model"


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that was probably meant."""
    matches = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return matches[0] if matches else None
