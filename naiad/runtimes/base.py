"""What every place where services run offers: a server that can be reached, and word of when that changes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from naiad.keys import Secret


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A server that has bound its ports; a new one has a new `boot_id`."""

    http: str
    grpc: str | None
    metrics: str | None
    boot_id: str
    pid: int
    key: Secret


class Runtime(Protocol):
    """Starts and watches the server that services run on."""

    def start(self) -> None:
        """Starts the server; returns once it has bound, or raises with the server's own words."""

    def running(self) -> Running | None:
        """The server as it is now; None while it is being started again."""

    def on_change(self, listener: Callable[[], None]) -> None:
        """Calls `listener` when the answer of `running` changes; it must return at once."""

    def stop(self) -> None:
        """Ends the server: running requests finish first."""
