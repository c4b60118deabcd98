"""Who calls: what is known of the key that the gate let through."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyFacts:
    """What the gate knows of a key."""

    name: str
    digest: str
    scopes: frozenset[str]
    services: frozenset[str]
    expires: int | None = None


def get_caller(request: Request) -> KeyFacts:
    """The key that the gate let through; only routes that need a key may ask."""
    caller: KeyFacts | None = request.scope.get("naiad_caller")
    if caller is None:
        raise RuntimeError(f"{request.url.path} asks for a caller but needs no key")
    return caller


Caller = Annotated[KeyFacts, Depends(get_caller)]
