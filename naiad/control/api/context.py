"""What the routes work with, and what they may know about a request's caller."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from fastapi import Depends, Request

from naiad.control.api.gate import Hosts, KeyFacts
from naiad.control.keys.store import KeyStore
from naiad.control.services.sources import Sources
from naiad.control.services.store import ServiceStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """The parts of the platform that the routes call; made once, by the process."""

    services: ServiceStore
    keys: KeyStore
    sources: Sources
    logs: Path
    hosts: Hosts
    server_port: Callable[[], int | None]
    settle: Callable[[], bool]
    advertise: str | None = None


def get_context(request: Request) -> Context:
    """The context of this application."""
    context: Context = request.app.state.context
    return context


def get_caller(request: Request) -> KeyFacts:
    """The key that the gate let through; only routes that need a key may ask."""
    caller: KeyFacts | None = request.scope.get("naiad_caller")
    if caller is None:
        raise RuntimeError(f"{request.url.path} asks for a caller but needs no key")
    return caller


ContextPart = Annotated[Context, Depends(get_context)]
Caller = Annotated[KeyFacts, Depends(get_caller)]
