"""What the routes of services work with; the process makes it once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from fastapi import Depends, Request

from naiad.control.services.sources import Sources
from naiad.control.services.store import ServiceStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """Where a caller finds a service."""

    http: str
    """Its v2 URL."""
    grpc: str | None
    """`host:port` of the server that runs it."""
    metrics: str | None
    """URL of that server's metrics."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceRoom:
    """The store, the files, the logs; `reach` tells a caller where a service is, `settle` has the server know it."""

    store: ServiceStore
    sources: Sources
    logs: Path
    reach: Callable[[Request, str], Reach | None]
    settle: Callable[[], bool]


def get_room(request: Request) -> ServiceRoom:
    """The room of this application."""
    room: ServiceRoom = request.app.state.services
    return room


Room = Annotated[ServiceRoom, Depends(get_room)]
