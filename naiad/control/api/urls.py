"""Builds URLs that the caller of a request can reach: with the host that the caller itself used."""

from __future__ import annotations

from fastapi import Request

from naiad.control.api.context import Context
from naiad.control.api.gate import host_name


def service_url(request: Request, context: Context, name: str) -> str | None:
    """A service's v2 URL; None while the server has no address yet."""
    port = context.server_port()
    if port is None:
        return None
    host = context.advertise or host_name(request.headers["host"]) or "127.0.0.1"
    return f"http://{bracketed(host)}:{port}/v2/models/{name}"


def bracketed(host: str) -> str:
    """A host as URLs write it: IPv6 addresses in brackets."""
    return f"[{host}]" if ":" in host else host
