"""What the routes of keys work with; the process makes it once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from naiad.control.keys.store import KeyStore


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRoom:
    """The store; `settle` waits for the server to know."""

    store: KeyStore
    settle: Callable[[], bool]


def get_room(request: Request) -> KeyRoom:
    """The room of this application."""
    room: KeyRoom = request.app.state.keys
    return room


Room = Annotated[KeyRoom, Depends(get_room)]
