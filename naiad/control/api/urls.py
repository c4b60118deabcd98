"""Builds URLs that the caller of a request can reach: with the host that the caller itself used."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fastapi import Request

from naiad.control.api.gate import host_name
from naiad.control.services.room import Reach
from naiad.runtimes.base import Running


@dataclass(frozen=True, slots=True, kw_only=True)
class Urls:
    """Where the server is, as seen from outside; `advertise` wins over the caller's own word."""

    server: Callable[[], Running | None]
    advertise: str | None = None

    def service(self, request: Request, name: str) -> Reach | None:
        """Where a service is; None while the server has no address yet."""
        running = self.server()
        if running is None:
            return None
        host = bracketed(self.advertise or host_name(request.headers["host"]) or "127.0.0.1")
        return Reach(
            http=f"http://{host}:{_port(running.http)}/v2/models/{name}",
            grpc=f"{host}:{_port(running.grpc)}" if running.grpc else None,
            metrics=f"http://{host}:{_port(running.metrics)}/metrics" if running.metrics else None,
        )


def bracketed(host: str) -> str:
    """A host as URLs write it: IPv6 addresses in brackets."""
    return f"[{host}]" if ":" in host else host


def _port(address: str) -> str:
    return address.rpartition(":")[2]
