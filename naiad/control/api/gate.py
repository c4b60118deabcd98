"""The one gate in front of the whole API: host, origin, key, scope; decided on the matched route (A1, A2, F2).

`decide` is the same rule as the core's gate; both are held to `tests/golden/gate.json`.
"""

from __future__ import annotations

import hmac
import ipaddress
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from naiad import keys
from naiad.control.caller import KeyFacts

MISSING_KEY = (
    "missing or invalid API key: send it as 'Authorization: Bearer <key>' or 'X-API-Key: <key>'"  # the core's text
)
ANYWHERE = "-"
_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
_SAME_SITE = frozenset({"same-origin", "same-site", "none"})


class Ring(Protocol):
    """Finds keys by id and knows which services are public."""

    def find(self, identifier: str) -> KeyFacts | None:
        """The key with this id, if there is one that is not revoked."""

    def is_public(self, service: str) -> bool:
        """Whether a service needs no key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """200 lets through; `key` is the caller's, where one was sent."""

    status: int
    key: KeyFacts | None = None


Headers = Iterable[tuple[str, str]]


def decide(headers: Headers, *, scope: str, model: str | None, ring: Ring, now: float) -> Decision:
    """Whether a request with these headers may use a route of this scope."""
    if scope == "public":
        return Decision(status=200)
    if scope == "infer" and model is not None and ring.is_public(model):
        return Decision(status=200)
    key = _identify(headers, ring, now)
    if key is None:
        return Decision(status=401)
    return Decision(status=200 if _allows(key, scope, model) else 403, key=key)


def _identify(headers: Headers, ring: Ring, now: float) -> KeyFacts | None:
    sent = set(_sent_keys(headers))
    if len(sent) != 1:
        return None
    text = sent.pop()
    identifier = keys.key_id(text)
    known = ring.find(identifier) if identifier else None
    expected = known.digest if known else "0" * 64
    if not hmac.compare_digest(expected, keys.digest(text)) or known is None:
        return None
    return None if known.expires is not None and known.expires <= now else known


def _sent_keys(headers: Headers) -> Iterable[str]:
    for name, value in headers:
        lowered = name.lower()
        if lowered == "x-api-key":
            yield value.strip()
        elif lowered == "authorization":
            scheme, _, rest = value.partition(" ")
            if scheme.lower() == "bearer":
                yield rest.strip()


def _allows(key: KeyFacts, scope: str, model: str | None) -> bool:
    if scope == "any" or "admin" in key.scopes:
        return True
    if "manage" in key.scopes and scope in ("manage", "infer"):
        return True
    if scope == "infer" and "infer" in key.scopes:
        return model is None or "*" in key.services or model in key.services
    return scope == "metrics" and "metrics" in key.scopes


@dataclass(frozen=True, slots=True, kw_only=True)
class Hosts:
    """Which `Host` values are this server's: loopback names, the bound address, and those allowed at start."""

    bound: str
    allowed: frozenset[str] = frozenset()

    def accepts(self, header: str) -> bool:
        """Whether a `Host` header names this server; a rebound name of a web page never does."""
        host = host_name(header)
        if host is None:
            return False
        if host in _LOOPBACK_NAMES or host == self.bound.lower() or host in self.allowed or "*" in self.allowed:
            return True
        return self.bound in ("0.0.0.0", "::") and is_address(host)


def host_name(header: str) -> str | None:
    """The name in a `Host` header without its port; None if it is not one."""
    host, port = header.strip().lower(), ""
    if host.startswith("["):
        host, _, rest = host[1:].partition("]")
        port = rest.removeprefix(":")
    elif host.count(":") == 1:
        host, _, port = host.partition(":")
    plain = all(letter.isalnum() or letter in ".-:_" for letter in host) and host.isascii()
    return host if host and plain and (not port or port.isdigit()) else None


def is_address(host: str) -> bool:
    """Whether the text is an IP address: a web page cannot rebind one."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def is_cross_site(headers: Mapping[str, str], hosts: Hosts) -> bool:
    """Whether a browser says that another site's page makes this request."""
    site = headers.get("sec-fetch-site")
    if site is not None and site not in _SAME_SITE:
        return True
    origin = headers.get("origin")
    return origin is not None and not hosts.accepts(origin.partition("//")[2])


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """Why the gate closed, and the words for it."""

    status: int
    detail: str


class Gate:
    """Decides about one request: its headers, its verb, and the route that matched."""

    def __init__(
        self, ring: Ring, hosts: Hosts, access: Mapping[tuple[str, str], str], *, clock: Callable[[], float] = time.time
    ) -> None:
        self._ring = ring
        self._hosts = hosts
        self._access = access
        self._clock = clock

    def judge(self, verb: str, template: str | None, raw: Collection[tuple[str, str]]) -> Refused | KeyFacts | None:
        """`Refused`, or the caller's key (None on a public route). `template` is None where no route matched."""
        headers = dict(raw)
        if sum(name == "host" for name, _ in raw) != 1 or not self._hosts.accepts(headers["host"]):
            return Refused(status=421, detail="the 'Host' of the request is not this server's; see --allowed-host")
        if is_cross_site(headers, self._hosts):
            return Refused(status=403, detail="requests from another site's pages are refused")
        scope = self._access.get((verb, template), "admin") if template is not None else "any"
        decision = decide(raw, scope=scope, model=None, ring=self._ring, now=self._clock())
        if decision.status == 401:
            return Refused(status=401, detail=MISSING_KEY)
        if decision.status == 403:
            return Refused(status=403, detail=f"this key may not do this: scope '{scope}' is needed")
        return decision.key


def text_headers(scope: Mapping[str, Any]) -> list[tuple[str, str]]:
    """An ASGI scope's headers as lower-case text."""
    return [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in scope["headers"]]
