"""The ASGI side of the gate: stands before the router and lets pass only what the table of routes lists (A1).

The route is matched here, on the same decoded path and by the same patterns as the router's; a path or verb that is
not in the table never reaches the application, so a route that somebody forgot to list is closed, not open.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping

from starlette.routing import compile_path
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

    def __init__(self, app: ASGIApp, *, gate: Gate, access: Mapping[tuple[str, str], str]) -> None:
        self._app = app
        self._gate = gate
        self._routes = [(verb, path, compile_path(path)[0]) for verb, path in access]

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
        verbs = self._matching(scope["path"])
        template = verbs.get(scope["method"])
        judged = self._gate.judge(scope["method"], template, headers)
        refused = judged if isinstance(judged, Refused) else _wrong(scope, verbs, headers)
        if isinstance(refused, Refused):
            await problem(refused.status, refused.detail, request_id=identifier)(scope, receive, send)
            return
        scope["naiad_caller"] = judged
        if template != UPLOADS:
            body = await _whole_body(receive)
            if body is None:
                refusal = TooLarge(f"a body of this route has at most {MOST_JSON_BYTES} bytes")
                await of_refusal(refusal, request_id=identifier)(scope, receive, send)
                return
            receive = _replayed(body, receive)
        await self._app(scope, receive, send)

    def _matching(self, path: str) -> dict[str, str]:
        """The verbs that do something at this path, each with its route."""
        found: dict[str, str] = {}
        for verb, template, pattern in self._routes:
            if verb not in found and pattern.match(path):
                found[verb] = template
        return found


def _wrong(scope: Scope, verbs: dict[str, str], headers: list[tuple[str, str]]) -> Refused | None:
    """What else keeps a request out once its key is good."""
    verb, path = scope["method"], scope["path"]
    if not verbs:
        return Refused(status=404, detail=f"there is no {verb} {path[:200]}")
    if verb not in verbs:
        return Refused(status=405, detail=f"{path[:200]} takes {', '.join(sorted(verbs))}, not {verb}")
    if len(headers) > _MOST_HEADERS or sum(len(name) + len(value) for name, value in headers) > _MOST_HEADER_BYTES:
        return Refused(
            status=400, detail=f"expected at most {_MOST_HEADERS} headers of {_MOST_HEADER_BYTES} bytes in all"
        )
    if verb not in _WITH_BODY or verbs[verb] == UPLOADS:
        return None
    named = dict(headers)
    has_body = named.get("content-length", "0") != "0" or "transfer-encoding" in named
    media_type = named.get("content-type", "").partition(";")[0].strip().lower()
    if has_body and media_type != "application/json":
        return Refused(status=415, detail=f"expected 'Content-Type: application/json', got '{media_type[:80]}'")
    return None


async def _whole_body(receive: Receive) -> bytes | None:
    """The body, read before anything is made of it; None if it is too large."""
    body = bytearray()
    more = True
    while more and len(body) <= MOST_JSON_BYTES:
        message = await receive()
        body += message.get("body", b"")
        more = message["type"] == "http.request" and message.get("more_body", False)
    return bytes(body) if len(body) <= MOST_JSON_BYTES else None


def _replayed(body: bytes, receive: Receive) -> Receive:
    """Gives a body that was read already, then whatever comes after it."""
    given = False

    async def receiving() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receiving
