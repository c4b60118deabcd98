"""Builds URLs that the caller of a request can reach: with the host that the caller itself used."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fastapi import Request

from naiad.control.api.gate import host_name


@dataclass(frozen=True, slots=True, kw_only=True)
class Urls:
    """Where the server is, as seen from outside; `advertise` wins over the caller's own word."""

    server_port: Callable[[], int | None]
    advertise: str | None = None

    def service(self, request: Request, name: str) -> str | None:
        """A service's v2 URL; None while the server has no address yet."""
        port = self.server_port()
        if port is None:
            return None
        host = self.advertise or host_name(request.headers["host"]) or "127.0.0.1"
        return f"http://{bracketed(host)}:{port}/v2/models/{name}"


def bracketed(host: str) -> str:
    """A host as URLs write it: IPv6 addresses in brackets."""
    return f"[{host}]" if ":" in host else host
