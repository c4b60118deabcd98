"""Routes, verbs, statuses and health over HTTP, to the byte where it matters."""

from __future__ import annotations

import http.client
import json

import pytest

NOT_FOUND = b'{"error":"Not Found"}'


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/v2/",
        "/v2/models",
        "/v2/models/",
        "/v2/models/m/",
        "//",
        "//v2",
        "/v2/health",
        "/v2/models/m/nothing",
        "/V2",
    ],
)
def test_w1_a_path_is_a_route_or_not_found(wire, path):
    answer = wire.get(path)
    assert (answer.status, answer.body) == (404, NOT_FOUND)


def test_w1_the_query_is_not_looked_at(wire):
    assert wire.get("/v2/models/m?a=b").json["name"] == "m"
    assert wire.get("/v2/health/live?/x").status == 200


@pytest.mark.parametrize("version", ["x", "1x", "-1", "+1", "1.0", "%20"])
def test_w2_versions_are_digits(wire, version):
    answer = wire.get(f"/v2/models/m/versions/{version}")
    assert (answer.status, answer.body) == (404, NOT_FOUND)


@pytest.mark.parametrize("version", ["9223372036854775808", "99999999999999999999"])
@pytest.mark.parametrize("rest", ["", "/ready", "/config", "/stats"])
def test_w47_a_version_has_63_bits(wire, version, rest):
    answer = wire.get(f"/v2/models/m/versions/{version}{rest}")
    text = (
        f"failed to get model version from specified version string '{version}' (details: stol), version should be an"
    )
    assert (answer.status, answer.error) == (400, f"{text} integral value > 0")


@pytest.mark.parametrize(
    ("verb", "path"),
    [
        ("POST", "/v2"),
        ("PUT", "/v2/models/m/infer"),
        ("GET", "/v2/models/m/infer"),
        ("DELETE", "/v2/models/m"),
        ("GET", "/v2/repository/index"),
        ("GET", "/v2/repository/models/m/load"),
        ("OPTIONS", "/v2/models/m/infer"),
        ("HEAD", "/v2/models/m/infer"),
    ],
)
def test_w3_the_wrong_verb(wire, verb, path):
    answer = wire.send(verb, path, b"" if verb in ("POST", "PUT") else None)
    assert answer.status == 405
    assert answer.body == (b"" if verb == "HEAD" else b'{"error":"Method Not Allowed"}')


@pytest.mark.parametrize("path", ["/v2", "/v2/health/live", "/v2/health/ready", "/v2/models/m", "/v2/models/m/ready"])
def test_w3_head_is_answered_where_get_is(wire, path):
    answer = wire.send("HEAD", path)
    assert (answer.status, answer.body) == (200, b"")


def test_w4_names_are_decoded_and_then_checked(wire):
    assert wire.get("/v2/models/%6d").json["name"] == "m"
    assert wire.get("/v2/models/..%2f..%2fetc/config").status == 400
    assert wire.get("/v2/models/a%00b").status == 400


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "nonsense", "image/png"])
def test_w5_the_content_type_of_a_request_does_not_matter(wire, content_type):
    body = {"inputs": [{"name": "INPUT0", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}]}
    assert wire.post("/v2/models/m/infer", body, Content_Type=content_type).status == 200


@pytest.mark.parametrize(
    ("verb", "path", "body"),
    [
        ("GET", "/nothing", None),
        ("POST", "/v2", b""),
        ("GET", "/v2/models/nope", None),
        ("POST", "/v2/models/m/infer", b"{"),
    ],
)
def test_w5_every_refusal_is_json(wire, verb, path, body):
    answer = wire.send(verb, path, body)
    assert answer.headers["content-type"] == "application/json"
    assert list(answer.json) == ["error"]


def test_w6_a_connection_is_kept_and_a_body_may_be_chunked(wire):
    connection = http.client.HTTPConnection(wire.address, timeout=60)
    connection.connect()
    sock = connection.sock
    body = json.dumps({"inputs": [{"name": "INPUT0", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}]})
    for _ in range(3):
        connection.request("POST", "/v2/models/m/infer", (part.encode() for part in body), encode_chunked=True)
        answer = connection.getresponse()
        assert answer.status == 200 and json.loads(answer.read())["outputs"][0]["data"] == [1, 2, 3, 4]
        assert connection.sock is sock
    connection.close()


def test_w7_management_succeeds_with_an_empty_body(repository, start):
    repository.identity("m")
    server = start("--model-control-mode=explicit").wait_ready()
    for verb in ("load", "unload"):
        answer = server.post(f"/v2/repository/models/m/{verb}")
        assert (answer.status, answer.headers["content-length"], answer.body) == (200, "0", b"")


UNKNOWN = "Request for unknown model: 'nope' is not found"
NO_NINE = "Request for unknown model: 'm' version 9 is not found"


@pytest.mark.parametrize(
    ("verb", "path", "status", "text"),
    [
        ("POST", "/v2/models/nope/infer", 404, UNKNOWN),
        ("GET", "/v2/models/nope", 404, UNKNOWN),
        ("GET", "/v2/models/nope/config", 404, UNKNOWN),
        ("POST", "/v2/models/m/versions/9/infer", 404, NO_NINE),
        ("GET", "/v2/models/m/versions/9", 404, NO_NINE),
        ("GET", "/v2/models/m/versions/9/config", 404, NO_NINE),
        ("GET", "/v2/models/nope/stats", 400, "requested model 'nope' is not available"),
        ("GET", "/v2/models/m/versions/9/stats", 400, "requested model version is not available for model 'm'"),
    ],
)
def test_w8_an_unknown_model_by_route(wire, verb, path, status, text):
    answer = wire.send(verb, path, b'{"inputs":[]}' if verb == "POST" else None)
    assert (answer.status, answer.error) == (status, text)


def test_w9_health(wire):
    assert (wire.get("/v2/health/live").status, wire.get("/v2/health/live").json) == (200, {"live": True})
    assert (wire.get("/v2/health/ready").status, wire.get("/v2/health/ready").json) == (200, {"ready": True})


def test_w9_a_model_that_failed_makes_the_server_unready(repository, start):
    repository.identity("m")
    repository.file("bad", b"no model")
    server = start().wait_settled("m", "bad")
    assert server.get("/v2/health/ready").status == 400
    assert server.get("/v2/health/live").status == 200


def test_w10_a_model_s_ready(repository, start):
    repository.identity("m")
    server = start("--model-control-mode=explicit", "--load-model=m").wait_ready()
    assert server.get("/v2/models/m/ready").status == 200
    assert server.get("/v2/models/m/versions/1/ready").status == 200
    assert server.get("/v2/models/m/versions/9/ready").status == 404
    assert server.get("/v2/models/nope/ready").status == 404
    server.post("/v2/repository/models/m/unload")
    assert server.get("/v2/models/m/ready").status == 404
