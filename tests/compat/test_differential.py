"""One corpus to Naiad and to the real Triton 2.51: every difference is explained by a rule, or the test fails.

Triton 2.51 is older than the release that docs/reference/protocol.md refers to; what changed since is part of a rule.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from tests.support.corpus import LENGTH, Request, corpus
from tests.support.server import Answer, Serve

pytestmark = pytest.mark.timeout(300)


@dataclass(frozen=True)
class Reply:
    """An answer without what depends on the model's code, the clock or the product's name."""

    status: int
    body: Any
    tail: bytes = b""

    @property
    def error(self) -> str:
        return self.body.get("error", "") if isinstance(self.body, dict) else ""


def numbers(output: dict[str, Any]) -> dict[str, Any]:
    """W25: the two print FP32 differently; what counts is the number that a client reads."""
    if output["datatype"] != "FP32" or "data" not in output:
        return output
    return {**output, "data": struct.pack(f"<{len(output['data'])}f", *output["data"])}


def inferred(body: dict[str, Any]) -> Any:
    kept = {key: value for key, value in body.items() if key != "parameters"}
    return {**kept, "outputs": [numbers(each) for each in body["outputs"]]}


# By a key that only such a body has: what is left without the model's own words, its backend and its parameters.
PLAIN: dict[str, Callable[[dict[str, Any]], Any]] = {
    "outputs": lambda body: inferred(body) if "model_version" in body else {**body, "platform": ""},
    "model_stats": lambda body: [shape_of(each) for each in body["model_stats"] if each["name"] == "m"] or body,
    "max_batch_size": lambda body: sorted(set(body) - {"instance_group", "parameters", "model_warmup"}),
    "extensions": lambda body: body["extensions"],
}


def plain(body: Any) -> Any:
    found = [make for key, make in PLAIN.items() if isinstance(body, dict) and key in body]
    return found[0](body) if found else body


def shape_of(value: Any) -> Any:
    """The keys without the counts."""
    if isinstance(value, dict):
        return {key: shape_of(each) for key, each in value.items() if key not in ("batch_stats", "response_stats")}
    return type(value).__name__


def read(answer: Answer) -> Reply:
    length = int(answer.headers.get(LENGTH.lower(), len(answer.body)))
    try:
        body = json.loads(answer.body[:length])
    except ValueError:
        body = answer.body.decode(errors="replace")
    return Reply(answer.status, plain(body), answer.body[length:])


Predicate = Callable[[Request, Reply, Reply], bool]


def milder(request: Request, ours: Reply, theirs: Reply) -> bool:
    """The same text under 400 where Triton says 500."""
    return (ours.status, theirs.status) == (400, 500) and ours.error == theirs.error


def says(pattern: str, also: str = "") -> Predicate:
    """Ours matches the one pattern and theirs the other."""

    def predicate(request: Request, ours: Reply, theirs: Reply) -> bool:
        return bool(re.search(pattern, ours.error) and re.search(also, theirs.error) and theirs.status >= 400)

    return predicate


def at(pattern: str, our_status: int, their_status: int) -> Predicate:
    def predicate(request: Request, ours: Reply, theirs: Reply) -> bool:
        return bool(re.search(pattern, request.path)) and (ours.status, theirs.status) == (our_status, their_status)

    return predicate


NESTED = "JSON nesting depth exceeds"
NO_STRING_END = "expecting string of length"
COUNTS = "shape does not match true shape|Shape does not match true shape"

# What Naiad does differently, by the rule that says so. The first that fits explains.
EXPECTED: list[tuple[str, Predicate]] = [
    ("W9", at(r"/health/(live|ready)$", 200, 200)),
    ("W10", lambda request, ours, theirs: at(r"/ready$", 200, 200)(request, ours, theirs) and theirs.body == ""),
    (
        "W10",
        lambda request, ours, theirs: at(r"/ready$", 404, 400)(request, ours, theirs) and "not ready" in theirs.error,
    ),
    ("W4", lambda request, ours, theirs: "%" in request.path and ours.error != theirs.error and ours.status >= 400),
    ("W13", lambda request, ours, theirs: milder(request, ours, theirs) and "JSON buffer" in ours.error),
    ("W13", lambda request, ours, theirs: ours.status == 400 and NESTED in ours.error),
    ("W13", says("Invalid encoding in string")),
    ("W15", milder),
    ("W18", lambda request, ours, theirs: ours.status == 200 and "FP16 data via JSON is not supported" in theirs.error),
    ("W28", says("Unable to parse Inference-Header-Content-Length")),
    ("W31", says("byte size mismatch for input 'INPUT0'", "byte size mismatch for input 'raw_input'")),
    ("W31", lambda request, ours, theirs: ours.status == 200 and "BYTE datatype raw input" in theirs.error),
    ("E-value-count", says(COUNTS)),
    ("E-overflow", says("exceed(s|) maximum size of|exceeds the maximum of")),
    ("E-size-limit", says("Use --http-max-input-size", "Shape does not match")),
    ("E-bytes-elements", says(NO_STRING_END, "expected 2 string elements")),
    ("E-missing-input", says("missing required input", "missing required input")),
    (
        "E-missing-input",
        lambda request, ours, theirs: request.path.startswith("/v2/models/optional/") and theirs.status == 200,
    ),
    ("E-batch", says("batch size does not match other inputs", "batch size does not match other inputs")),
    ("W66", lambda request, ours, theirs: request.topic == "index" and ours.status == 400),
    ("W67", lambda request, ours, theirs: request.topic in ("load", "unload") and ours.status in (400, 500)),
]


def explain(request: Request, ours: Reply, theirs: Reply) -> str | None:
    """The rule that explains the difference; `None` where there is none."""
    return next((rule for rule, fits in EXPECTED if fits(request, ours, theirs)), None)


def differences(ours: Serve, theirs: Serve) -> tuple[int, dict[str, int], list[str]]:
    """How many requests were sent, how often each rule explained, and what none explains."""
    used: dict[str, int] = {}
    unexplained = []
    requests = corpus()
    for request in requests:
        mine, other = (
            read(server.send(request.verb, request.path, request.body, **request.headers)) for server in (ours, theirs)
        )
        if repr(mine) == repr(other):  # NaN is equal to itself here
            continue
        rule = explain(request, mine, other)
        if rule is None:
            unexplained.append(f"{request}\n  naiad  {str(mine)[:300]}\n  triton {str(other)[:300]}")
        else:
            used[rule] = used.get(rule, 0) + 1
    return len(requests), used, unexplained


def test_every_difference_over_http_has_its_rule(both):
    count, used, unexplained = differences(*both)
    assert count >= 300
    assert not unexplained, f"{len(unexplained)} of {count}:\n" + "\n".join(unexplained)
    assert set(used) == {rule for rule, _ in EXPECTED}, "a rule that explains nothing is to be taken out"
