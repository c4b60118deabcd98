from __future__ import annotations

import json
from pathlib import Path

import pytest

from naiad.control.api.access import ACCESS
from naiad.control.api.app import create_app

BODY = {"name": "digits", "model": {"path": "repo/digits/1/model.pt"}}


def problem(answer) -> dict:
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    document = answer.json()
    assert set(document) == {"status", "code", "title", "detail", "request_id", "fields"}
    assert document["status"] == answer.status_code
    return document


@pytest.mark.parametrize(
    ("change", "path", "says"),
    [
        ({"name": "ResNet_50"}, "name", "resnet-50"),
        ({"name": "new"}, "name", "reserved"),
        ({"name": "x" * 64}, "name", "64"),
        ({"modle": {}}, "modle", "did you mean 'model'?"),
        ({"model": {}}, "model.path", "required"),
        ({"inputs": [{"name": "x", "dtype": "FP33", "dims": [1]}]}, "inputs[0].dtype", "FP33"),
        ({"inputs": [{"name": "x", "dtype": "FP32", "dims": [0]}]}, "inputs[0].dims[0]", "got 0"),
        ({"inputs": [{"name": "x", "dtype": "FP32", "dims": [1.5]}]}, "inputs[0].dims[0]", "1.5"),
        ({"inputs": [{"name": "x", "dtype": "FP32", "dims": [1]}] * 2}, "body", "twice"),
        ({"auth": {"mode": "secret"}}, "auth.mode", "secret"),
        ({"auth": {"keys": ["nobody"]}}, "auth.keys[0]", "nobody"),
    ],
)
def test_a_wrong_field_is_named(platform, change, path, says):
    answer = platform.client().post("/api/v1/services", json=BODY | change)
    assert answer.status_code == 422
    document = problem(answer)
    field = document["fields"][0]
    assert field["path"] == path
    assert says in field["message"] + field["fix"]


HOSTILE = [
    "/etc/passwd",
    "../../etc/passwd",
    "repo/../../secret",
    "..\\..\\x",
    "repo/\x00",
    "link/passwd",
    "~/x",
    "//etc/passwd",
]


@pytest.mark.parametrize("path", HOSTILE)
def test_a_path_never_leaves_the_roots(platform, path):  # C1
    (platform.models / "link").symlink_to("/etc")
    answer = platform.client().post("/api/v1/services", json={"name": "digits", "model": {"path": path}})
    assert answer.status_code == 422
    assert problem(answer)["code"].startswith("PATH_")
    assert "root:" not in answer.text


@pytest.mark.parametrize(
    "path", ["../x", "a/../../x", "%2e%2e/x", ".hidden", "a//b", "/etc/x", "a\\b", "x" * 200, "a/" * 20 + "b"]
)
def test_an_uploaded_file_never_leaves_its_folder(platform, path):  # C1
    client = platform.client()
    upload = client.post("/api/v1/uploads").json()["id"]
    answer = client.put(f"/api/v1/uploads/{upload}/files/{path}", content=b"x")
    assert answer.status_code in (401, 404, 405, 422)
    files = [file for file in Path(platform.state.root.parent).rglob("*") if file.is_file() and file.name in ("x", "b")]
    assert files == []


def test_a_missing_path_names_what_is_there(platform):
    wrong = {"name": "digits", "model": {"path": "repo/digits/1/Model.pt "}}
    answer = problem(platform.client().post("/api/v1/services", json=wrong))
    assert answer["code"] == "PATH_NOT_FOUND"
    assert "'model.pt' does" in answer["fields"][0]["message"]


def test_errors_name_no_internal_path(platform):  # H1
    client = platform.client()
    answers = [
        client.get("/api/v1/services/nobody"),
        client.post("/api/v1/services", json={"name": "aa", "model": {"path": "nowhere"}}),
        client.put("/api/v1/uploads/" + "0" * 32 + "/files/x", content=b"x"),
        client.get("/api/v1/nothing"),
    ]
    for answer in answers:
        assert answer.status_code in (404, 422)
        assert str(platform.state.root) not in answer.text


def test_only_json_is_read(platform):  # D2
    client = platform.client()
    answer = client.post("/api/v1/services", content=b"\x80\x04.", headers={"Content-Type": "application/x-pickle"})
    assert answer.status_code == 415
    problem(answer)
    half = client.post("/api/v1/services", content=b'{"name":', headers={"Content-Type": "application/json"})
    assert half.status_code == 422
    assert problem(half)["fields"][0]["code"] == "NOT_JSON"


def test_a_body_too_large_is_refused(platform):
    answer = platform.client().post("/api/v1/services", json=BODY | {"description": "x" * (5 << 20)})
    assert answer.status_code == 413
    problem(answer)


def test_an_upload_over_the_limit_is_refused(make_platform):
    platform = make_platform(most_upload_bytes=1000)
    client = platform.client()
    upload = client.post("/api/v1/uploads").json()["id"]
    declared = client.put(f"/api/v1/uploads/{upload}/files/x", content=b"x" * 1001)
    chunked = client.put(f"/api/v1/uploads/{upload}/files/x", content=iter([b"x" * 600, b"x" * 600]))
    assert (declared.status_code, chunked.status_code) == (413, 413)
    assert list((platform.state.uploads / upload).iterdir()) == []


def test_every_route_says_who_may_call_it(platform):  # A1
    app = create_app(*platform.platform.rooms(), version="0")
    document = app.openapi()
    described = {(verb.upper(), path) for path, verbs in document["paths"].items() for verb in verbs}
    listed = {(verb, path.replace(":path", "")) for verb, path in ACCESS}
    assert listed - described == {("GET", "/api/v1/openapi.json")}
    assert described - listed == set()


def test_the_openapi_document_is_served_and_needs_a_key(platform):
    assert platform.client(None).get("/api/v1/openapi.json").status_code == 401
    document = platform.client().get("/api/v1/openapi.json").json()
    assert "/api/v1/services" in document["paths"]
    json.dumps(document)
