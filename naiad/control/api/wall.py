"""The ASGI side of the gate: stands before the router, matches the route, answers what is refused."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from typing import Any

from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from naiad.control.api.access import UPLOADS
from naiad.control.api.errors import of_refusal, problem
from naiad.control.api.gate import Gate, Refused, text_headers
from naiad.control.problems import TooLarge

MOST_JSON_BYTES = 4 << 20
_WITH_BODY = frozenset({"POST", "PUT", "PATCH"})
_MOST_HEADERS, _MOST_HEADER_BYTES = 100, 16 << 10


class Wall:
    """Lets a request through to the application, or answers it."""

    def __init__(self, app: ASGIApp, *, gate: Gate, routes: Callable[[], Sequence[BaseRoute]]) -> None:
        self._app = app
        self._gate = gate
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request; the application's start and end pass as they are."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        identifier = secrets.token_hex(8)
        scope["naiad_request_id"] = identifier
        headers = text_headers(scope)
        template = self._template(scope)
        judged = self._gate.judge(scope["method"], template, headers)
        refused = judged if isinstance(judged, Refused) else _wrong_body(scope, template, headers)
        if isinstance(refused, Refused):
            await problem(refused.status, refused.detail, request_id=identifier)(scope, receive, send)
            return
        scope["naiad_caller"] = judged
        counted = receive if template == UPLOADS else _counted(receive)
        try:
            await self._app(scope, counted, send)
        except TooLarge as refusal:
            await of_refusal(refusal, request_id=identifier)(scope, receive, send)

    def _template(self, scope: Scope) -> str | None:
        """The path of the route that the router will take; None if it will find none."""
        for route in self._routes():
            match, _ = route.matches(scope)
            if match is Match.FULL:
                return getattr(route, "path", None)
        return None


def _wrong_body(scope: Scope, template: str | None, headers: list[tuple[str, str]]) -> Refused | None:
    if len(headers) > _MOST_HEADERS or sum(len(name) + len(value) for name, value in headers) > _MOST_HEADER_BYTES:
        return Refused(
            status=400, detail=f"expected at most {_MOST_HEADERS} headers of {_MOST_HEADER_BYTES} bytes in all"
        )
    if scope["method"] not in _WITH_BODY or template is None or template == UPLOADS:
        return None
    named = dict(headers)
    has_body = named.get("content-length", "0") != "0" or "transfer-encoding" in named
    media_type = named.get("content-type", "").partition(";")[0].strip().lower()
    if has_body and media_type != "application/json":
        return Refused(status=415, detail=f"expected 'Content-Type: application/json', got '{media_type[:80]}'")
    return None


def _counted(receive: Receive) -> Receive:
    total = 0

    async def counting() -> Message:
        nonlocal total
        message: Any = await receive()
        total += len(message.get("body", b""))
        if total > MOST_JSON_BYTES:
            raise TooLarge(f"a body of this route has at most {MOST_JSON_BYTES} bytes")
        return message  # type: ignore[no-any-return]

    return counting
