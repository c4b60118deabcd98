"""What the routes of environments work with; the process makes it once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from fastapi import Depends, Request

from naiad.control.environments.store import EnvironmentStore
from naiad.environments.reach import Reach
from naiad.environments.store import Store as Builds


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvironmentRoom:
    """The store, what was built, and the folders and hosts that packages may come from."""

    store: EnvironmentStore
    builds: Builds
    roots: Sequence[Path]
    reach: Reach


def get_room(request: Request) -> EnvironmentRoom:
    """The room of this application."""
    room: EnvironmentRoom = request.app.state.environments
    return room


Room = Annotated[EnvironmentRoom, Depends(get_room)]
