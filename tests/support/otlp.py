"""A receiver of OTLP/HTTP in JSON, read by the specification's field names."""

from __future__ import annotations

import contextlib
import http.server
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.support.server import until

INTERNAL, SERVER = 1, 2
ERROR = 2


@dataclass
class Span:
    """One span, its numbers read from their texts."""

    trace: str
    id: str
    parent: str
    name: str
    kind: int
    start: int
    end: int
    attributes: dict[str, Any]
    events: list[tuple[str, int]]
    status: dict[str, Any]
    resource: dict[str, Any]
    scope: str


@dataclass
class Receiver:
    """What has come so far."""

    url: str = ""
    status: int = 200
    """What it answers."""
    spans: list[Span] = field(default_factory=list)
    messages: list[int] = field(default_factory=list)
    """How many spans each message had."""

    def take(self, document: dict[str, Any]) -> None:
        """The spans of one message."""
        before = len(self.spans)
        for group in document["resourceSpans"]:
            resource = _attributes(group["resource"]["attributes"])
            for scoped in group["scopeSpans"]:
                self.spans += [_span(span, resource, scoped["scope"]["name"]) for span in scoped["spans"]]
        self.messages.append(len(self.spans) - before)

    def wait(self, count: int) -> dict[str, Span]:
        """So many spans, as soon as they are there; those of the last trace by their names."""
        until(lambda: len(self.spans) >= count, 30, lambda: f"{count} spans expected, got {self.spans}")
        assert len(self.spans) == count
        return {span.name: span for span in self.spans if span.trace == self.spans[-1].trace}


def _attributes(rows: list[dict[str, Any]]) -> dict[str, Any]:
    def value(row: dict[str, Any]) -> Any:
        ((kind, value),) = row["value"].items()
        return {"stringValue": str, "intValue": int}[kind](value)

    return {row["key"]: value(row) for row in rows}


def _span(span: dict[str, Any], resource: dict[str, Any], scope: str) -> Span:
    for name in ("startTimeUnixNano", "endTimeUnixNano"):
        assert isinstance(span[name], str), "64-bit numbers are strings in JSON"
    return Span(
        trace=span["traceId"],
        id=span["spanId"],
        parent=span.get("parentSpanId", ""),
        name=span["name"],
        kind=span["kind"],
        start=int(span["startTimeUnixNano"]),
        end=int(span["endTimeUnixNano"]),
        attributes=_attributes(span["attributes"]),
        events=[(event["name"], int(event["timeUnixNano"])) for event in span["events"]],
        status=span.get("status", {}),
        resource=resource,
        scope=scope,
    )


@contextlib.contextmanager
def receiver() -> Iterator[Receiver]:
    """Listens on a free port."""
    found = Receiver()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            assert (self.path, self.headers["content-type"]) == ("/v1/traces", "application/json")
            if found.status == 200:
                found.take(json.loads(body))
            self.send_response(found.status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    found.url = f"http://127.0.0.1:{server.server_address[1]}/v1/traces"
    try:
        yield found
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
