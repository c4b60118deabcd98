"""Generate and generate_stream as HTTP clients use them (W38, W58-W61), decoupled models among them."""

from __future__ import annotations

import http.client
import json

import pytest

SQUARE = """backend: "square"
max_batch_size: 0
model_transaction_policy {{ decoupled: true }}
input {{ name: "IN" data_type: TYPE_INT32 dims: [ 1 ] }}
output {{ name: "OUT" data_type: TYPE_INT32 dims: [ 1 ] }}
"""

REPEAT = """backend: "repeat"
max_batch_size: 0
model_transaction_policy {{ decoupled: true }}
input [
  {{ name: "IN" data_type: TYPE_INT32 dims: [ -1 ] }},
  {{ name: "DELAY" data_type: TYPE_UINT32 dims: [ -1 ] }},
  {{ name: "WAIT" data_type: TYPE_UINT32 dims: [ 1 ] }}
]
output [
  {{ name: "OUT" data_type: TYPE_INT32 dims: [ 1 ] }},
  {{ name: "IDX" data_type: TYPE_UINT32 dims: [ 1 ] }}
]
"""

EVENTS = "text/event-stream; charset=utf-8"
HOUR = 3_600_000


@pytest.fixture(scope="module")
def server(module_repository, tmp_path_factory):
    from tests.support.server import serve

    module_repository.identity("m", datatype="INT32", dims="-1")
    module_repository.identity("words", datatype="STRING", dims="1")
    for name, text in (("square", SQUARE), ("repeat", REPEAT)):
        (module_repository.root / name / "1").mkdir(parents=True)
        (module_repository.root / name / "config.pbtxt").write_text(text.format())
    log = tmp_path_factory.mktemp("log") / "serve.log"
    with serve(module_repository.root, log) as running:
        yield running.wait_ready()


def _events(answer) -> list[dict]:
    frames = answer.body.decode().split("\n\n")
    assert frames.pop() == ""
    return [json.loads(frame.removeprefix("data: ")) for frame in frames]


def test_w58_one_response(server):
    answer = server.post("/v2/models/m/generate", {"INPUT0": [1, 2, 3], "id": "7", "stream": False})
    assert answer.status == 200 and answer.headers["transfer-encoding"] == "chunked"
    assert list(answer.json) == sorted(answer.json)
    assert answer.json["OUTPUT0"] == [1, 2, 3]
    assert (answer.json["id"], answer.json["model_name"], answer.json["model_version"]) == ("7", "m", "1")
    assert server.post("/v2/models/words/generate", {"INPUT0": "hi"}).json["OUTPUT0"] == "hi"
    assert server.post("/v2/models/square/generate", {"IN": 1}).json["OUT"] == 1


@pytest.mark.parametrize("count", [0, 2, 50])
def test_w59_not_one_response(server, count):
    answer = server.post("/v2/models/square/generate", {"IN": count})
    assert answer.status == 200
    assert answer.error == (
        "generate expects model to produce exactly 1 response, use generate stream for model that generates "
        "various number of responses"
    )


@pytest.mark.parametrize("count", [0, 1, 2, 500])
def test_w60_a_stream_of_responses(server, count):
    answer = server.post("/v2/models/square/generate_stream", {"IN": count, "id": "s"})
    assert (answer.status, answer.headers["content-type"]) == (200, EVENTS)
    events = _events(answer)
    assert len(events) == count
    assert all(event["OUT"] == count and event["id"] == "s" for event in events)
    assert b"[DONE]" not in answer.body


def test_w60_events_come_as_the_model_gives_them(server):
    connection = http.client.HTTPConnection(server.address, timeout=60)
    body = {"IN": [10, 20, 30], "DELAY": [0, 0, HOUR], "WAIT": 0}
    connection.request("POST", "/v2/models/repeat/generate_stream", json.dumps(body))
    answer = connection.getresponse()
    assert answer.status == 200
    for index, value in enumerate((10, 20)):
        event = json.loads(answer.readline().removeprefix(b"data: "))
        assert (event["OUT"], event["IDX"]) == (value, index)
        assert answer.readline() == b"\n"
    # The third is an hour away; a client that leaves cancels it, and the model is free for the next.
    connection.close()
    assert server.post("/v2/models/repeat/generate", {"IN": [5], "DELAY": [0], "WAIT": 0}).json["OUT"] == 5


def test_w60_an_error_before_the_first_response(server):
    body = {"IN": [1, 2], "DELAY": [0], "WAIT": 0}
    answer = server.post("/v2/models/repeat/generate_stream", body)
    assert answer.status == 500 and answer.headers["content-type"] == EVENTS
    assert "expected as many elements in DELAY" in _events(answer)[0]["error"]


def test_w61_what_cannot_be_mapped(server):
    answer = server.post("/v2/models/words/generate", {"INPUT0": ["a", "b", "c"] * 3})
    assert answer.status == 400
    answer = server.post("/v2/models/square/generate", {"IN": [1, 2]})
    text = "The schema can not convert input 'IN' to tensor with proper shape"
    assert (answer.status, answer.error) == (400, text)
    assert server.post("/v2/models/nope/generate", {}).status == 404
    assert server.post("/v2/models/m/generate", b"{").error.startswith("failed to parse the request JSON buffer")


def test_w38_compressed_requests(server):
    answer = server.post("/v2/models/m/generate", b"x", Content_Encoding="gzip")
    text = "Unsupported content-encoding, only 'identity' is supported."
    assert (answer.status, answer.error) == (400, text)
