"""Names of environments: the rule that keeps them inside their folder (C1)."""

from __future__ import annotations

import re

_NAME = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])", re.ASCII)


def is_name(text: str) -> bool:
    """Whether this can be the name of an environment: 2 to 63 lower-case letters, digits and '-'."""
    return _NAME.fullmatch(text) is not None
