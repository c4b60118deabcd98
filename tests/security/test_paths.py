"""C1: no name and no path of a request leads out of its folder; one corpus on every field that holds one."""

from __future__ import annotations

import base64
import json
from urllib.parse import quote

import pytest

NAMES = [
    "..", ".", "../m", "..\\m", "../../etc/passwd", "/etc/passwd", "\\etc\\passwd", "m/../m", "m/..", "a..b", "..m",
    "m\0", "\0", "m\n", "m\r\n", "m\t", "\x7f", "C:\\m", "C:m/x", "//host/share", "~root/x", "$(id)", ";id", "`id`",
    "|id", "m;rm", "-rf", "--help", "*", "?", "m*", "[m]", "{m}", "<m>", '"m"', "'m'", "&", "#", "%", "%2e%2e",
    "%252e%252e", ".hidden", "\u2024\u2024", "\uff0e\uff0e", "m\u2215x", "m\uff0fx", "\u202em", "\ufeffm", "m\u0000",
    "a" * 256, "a" * 5000, "....//", "..;/", "file:///etc/passwd", "http://evil.test/x", "m\u2028", " m", "",
]  # fmt: skip

ROUTES = [
    ("GET", "/v2/models/{}"), ("GET", "/v2/models/{}/config"), ("GET", "/v2/models/{}/ready"),
    ("GET", "/v2/models/{}/stats"), ("GET", "/v2/models/{}/versions/1"), ("POST", "/v2/models/{}/infer"),
    ("POST", "/v2/models/{}/generate"), ("POST", "/v2/models/{}/generate_stream"),
    ("POST", "/v2/repository/models/{}/load"), ("POST", "/v2/repository/models/{}/unload"),
]  # fmt: skip

PATHS = [
    "../canary", "1/../../canary", "/canary", "1/../../../canary", "..\\canary", "1\\..\\..\\canary", "1//../../canary",
    "./../canary", "1/\0", "1/canary\n", "", ".", "..", "1/..", "C:\\canary", "1/../config.pbtxt/../../../canary",
]  # fmt: skip


@pytest.fixture(scope="module")
def server(fenced):
    return fenced


@pytest.mark.parametrize(("verb", "route"), ROUTES)
def test_c1_names_in_urls(server, verb, route):
    for name in NAMES:
        answer = server.send(verb, route.format(quote(name, safe="")), b"{}" if verb == "POST" else None)
        assert answer.status in (400, 404, 431), (name, answer.status)
        assert b"root:" not in answer.body
        if answer.status == 404 and answer.error != "Not Found":
            pytest.fail(f"{name!r} was looked up: {answer.error}")


def test_c1_names_that_are_not_encoded(server):
    for name in ("..", "%2e%2e", "..%2f..%2fetc", "..%5c", "%00", "m%2f..", "%c0%ae%c0%ae", "%zz", "%"):
        answer = server.get(f"/v2/models/{name}/config")
        assert answer.status == 400, name


def test_c1_c3_files_in_a_load_call(server):
    config = 'backend: "identity" max_batch_size: 8'
    content = base64.b64encode(b"overwritten").decode()
    for path in PATHS:
        parameters = {"config": json.dumps({"backend": "identity"}), f"file:{path}": content}
        answer = server.post("/v2/repository/models/m/load", {"parameters": parameters})
        assert answer.status in (400, 500), (path, answer.status, config)
        assert "/tmp" not in answer.body.decode(), answer.body


def test_c1_names_of_repositories(server):
    for name in NAMES:
        if not name:
            continue
        answer = server.post(f"/v2/repository/{quote(name, safe='')}/models/m/load")
        assert answer.status in (400, 404, 431, 501), (name, answer.status)
