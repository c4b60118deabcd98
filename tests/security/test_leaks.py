"""H1-H3: what goes wrong tells clients nothing about the inside, writes one line of log, and shows no secret."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from naiad import keys

ROW = [0.0] * 16
INSIDE = re.compile(
    r"/tmp|/home|/root|/usr|/proc|/dev|\.rs:|\.py\"|memfd|(?<!client-)shm|0x[0-9a-f]{6,}|panicked|Traceback"
)

BROKEN = """name: "broken"
backend: "pytorch"
max_batch_size: 0
input { name: "INPUT__0" data_type: TYPE_FP32 dims: [ 1 ] }
output { name: "OUTPUT__0" data_type: TYPE_FP32 dims: [ 1 ] }
"""


@pytest.fixture(scope="module")
def server(module_repository, tmp_path_factory):
    from tests.support.server import serve

    module_repository.identity("m")
    module_repository.file("broken", b"no model")
    (module_repository.root / "broken" / "config.pbtxt").write_text(BROKEN)
    log = tmp_path_factory.mktemp("log") / "serve.log"
    options = ["--model-control-mode=explicit", "--load-model=m", "--log-format=json", "--allow-file-override=true"]
    with serve(module_repository.root, log, *options) as running:
        yield running.wait_ready()


def _infer(**change) -> dict:
    tensor = {"name": "INPUT0", "shape": [1, 16], "datatype": "FP32", "data": ROW, **change}
    return {"inputs": [tensor]}


FAILURES = [
    ("POST", "/v2/models/m/infer", body)
    for body in (
        b"", b"{", b"[]", b"{}", b"null", b'{"inputs":5}', b'{"inputs":[5]}', b'{"inputs":[{}]}', b"\xff\xfe",
        _infer(shape=[1]), _infer(shape=[-1, 16]), _infer(shape=[9, 16]), _infer(shape="x"), _infer(shape=[2**62, 4]),
        _infer(datatype="INT8"), _infer(datatype="x"), _infer(datatype=5), _infer(data=[]), _infer(data=["x"] * 16),
        _infer(data=5), _infer(data=[1] * 17), _infer(name="x"), _infer(name=5), b"\0" * 9,
        {**_infer(), "outputs": [{"name": "x"}]},
        {**_infer(), "parameters": {"a": []}}, {**_infer(), "parameters": {"triton_x": 1}}, {**_infer(), "id": 5},
        _infer(parameters={"shared_memory_region": "r", "shared_memory_byte_size": 64}),
        _infer(parameters={"binary_data_size": 64}), _infer(parameters={"binary_data_size": 2**63}),
    )
] + [
    (verb, path, None)
    for verb, path in (
        ("GET", "/v2/models/nope"), ("GET", "/v2/models/m/versions/9"), ("GET", "/nothing"), ("PUT", "/v2"),
        ("GET", "/v2/models/..%2f..%2fetc/config"), ("GET", "/v2/models/nope/stats"), ("GET", "/v2/models/m/infer"),
        ("POST", "/v2/repository/models/nope/load"), ("POST", "/v2/repository/models/broken/load"),
        ("POST", "/v2/models/broken/infer"), ("POST", "/v2/models/broken/generate"), ("POST", "/v2/models/m/generate"),
        ("POST", "/v2/systemsharedmemory/region/r/register"), ("POST", "/v2/cudasharedmemory/region/r/register"),
        ("POST", "/v2/repository/x/models/m/load"),
    )
] + [
    ("POST", "/v2/repository/models/m/load", {"parameters": parameters})
    for parameters in ({"config": "{"}, {"config": 5}, {"x": "y"}, {"config": "{}", "file:../x": "aGk="})
]  # fmt: skip


def test_h1_failures_name_nothing_of_the_inside(server):
    assert len(FAILURES) >= 50
    for verb, path, body in FAILURES:
        answer = server.send(verb, path, body)
        assert answer.status >= 400, (path, body)
        assert not INSIDE.search(answer.error), (path, body, answer.error)
    assert server.infer("m", ROW).status == 200


def test_h2_one_record_is_one_line(server):
    forged = 'x\n{"level":"info","message":"forged"}\r\n\x1b[31m'
    body = {**_infer(), "id": forged, "parameters": {forged: forged}}
    server.post("/v2/models/m/infer", body)
    server.post("/v2/repository/models/broken/load", {"parameters": {"config": json.dumps({"name": forged})}})
    for line in server.log.read_bytes().splitlines():
        record = json.loads(line)
        assert record.get("message") != "forged"
        assert b"\x1b" not in line


def test_h3_no_secret_is_shown(repository, start, tmp_path):
    repository.identity("m")
    key = keys.make_key().reveal()
    row = {"id": key[3:11], "digest": keys.digest(key), "scopes": ["admin"], "services": [], "expires": None}
    file = tmp_path / "keys.json"
    file.write_text(json.dumps({"keys": [row]}))
    restricted = "swordfish-of-the-day"
    server = start(f"--keys-file={file}", "--log-verbose=2", f"--http-restricted-api=metadata:door={restricted}")
    server.headers["X-API-Key"] = key
    server.wait_ready()
    bodies = [server.get("/v2").body, server.get("/v2", door=restricted).body, server.get("/naiad/v1/routes").body]
    bodies += [server.get("/v2", X_API_Key=key + "x").body, server.infer("m", ROW).body]
    told = b"".join(bodies) + server.log.read_bytes()
    assert key.encode() not in told and key[11:].encode() not in told
    assert restricted.encode() not in told
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and (process / "cmdline").exists():
            assert key.encode() not in _read(process / "cmdline")


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError:
        return b""
