"""Reads `--http-restricted-api` and `--grpc-restricted-protocol`: which categories ask for which header."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from naiad import keys
from naiad.errors import ConfigError

CATEGORIES = (
    "health", "metadata", "inference", "shared-memory", "model-config", "model-repository", "statistics", "trace",
    "logging",
)  # fmt: skip

_KEY = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", re.ASCII)


def rows(texts: Iterable[str]) -> list[dict[str, Any]]:
    """`category,…:key=value` each; the value leaves as its digest. Raises `ConfigError`."""
    taken: set[str] = set()
    found = []
    for text in texts:
        names, colon, pair = text.partition(":")
        key, equals, value = pair.partition("=")
        if not colon or not equals or not _KEY.fullmatch(key) or not value:
            # The text holds the value, which no message shows.
            raise ConfigError("expected CATEGORY[,CATEGORY…]:KEY=VALUE")
        categories = [name.strip() for name in names.split(",")]
        for name in categories:
            if name not in CATEGORIES:
                raise ConfigError(f"unknown category '{name}'; known: {', '.join(CATEGORIES)}")
            if name in taken:
                raise ConfigError(f"category '{name}' is in more than one group")
            taken.add(name)
        found.append({"categories": categories, "key": key, "digest": keys.digest(value)})
    return found
