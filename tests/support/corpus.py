"""Requests over HTTP, good and bad, made systematically: each goes to two servers and both answers are compared."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

LENGTH = "Inference-Header-Content-Length"
ROW = struct.pack("<4f", 1, 2, 3, 4)


@dataclass(frozen=True)
class Request:
    """One HTTP request; the topic says which part of the corpus made it."""

    topic: str
    verb: str
    path: str
    body: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        shown = "" if self.body is None else f" {self.body[:90]!r}"
        return f"[{self.topic}] {self.verb} {self.path}{shown} {self.headers or ''}"


def infer(topic: str, body: Any, model: str = "m", **headers: str) -> Request:
    sent = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Request(topic, "POST", f"/v2/models/{model}/infer", sent, headers)


def tensor(data: Any = (1, 2, 3, 4), shape: Any = (1, 4), datatype: Any = "FP32", **more: Any) -> dict[str, Any]:
    return {"name": "INPUT0", "shape": shape, "datatype": datatype, "data": data, **more}


def routes() -> Iterator[Request]:
    """Every route and near miss, with every verb; bodies where a route takes one."""
    paths = (
        "/ /v2 /v2/ /V2 //v2 /v2? /v2?a=b /v2/health/live /v2/health/ready /v2/health /v2/health/live/ /v2/models "
        "/v2/models/m /v2/models/m/ /v2/models/m/ready /v2/models/m/versions/1 /v2/models/m/versions/1/ready "
        "/v2/models/m/versions/x /v2/models/m/versions/ /v2/models/m/infer /v2/models/m/versions/1/infer "
        "/v2/models/m/config /v2/models/m/stats /v2/models/stats /v2/models/m/nothing /v2/repository/index "
        "/v2/repository/r/index /v2/repository/models/m/load/x /metrics /v2/systemsharedmemory/region/r/nothing"
    ).split()
    for path in paths:
        for verb in ("GET", "POST", "PUT", "DELETE", "OPTIONS"):
            if verb == "POST" and path.endswith("/infer"):
                continue  # a POST there is the rest of the corpus
            yield Request("routes", verb, path, b"" if verb in ("POST", "PUT") else None)


def versions() -> Iterator[Request]:
    for version in ("0", "1", "9", "01", "x", "-1", "1.0", "99999999999999999999", "18446744073709551615"):
        for rest in ("", "/ready", "/config", "/stats"):
            yield Request("versions", "GET", f"/v2/models/m/versions/{version}{rest}")
        yield Request(
            "versions", "POST", f"/v2/models/m/versions/{version}/infer", json.dumps({"inputs": [tensor()]}).encode()
        )
    for model in ("nope", "unloaded", "a b", "m%20"):
        name = model.replace(" ", "%20")
        for rest in ("", "/ready", "/config", "/stats", "/versions/1", "/versions/1/ready", "/versions/2/stats"):
            yield Request("models", "GET", f"/v2/models/{name}{rest}")
        yield infer("models", {"inputs": [tensor()]}, name)


SYNTAX = r"""{ } [] null 1 "x" {"inputs" {"inputs":} {"inputs":[} {"inputs":[{}]} {"inputs":{}} {"inputs":[1]}
{"inputs":null} {"inputs":[]}x {a:1} {'a':1} {"a":01} {"a":1.} {"a":.5} {"a":+1} {"a":1e} {"a":1e999} {"a":"\x"}
{"a":"\ud800"} {"a":"x {"a":[1,]} {"a":1,} {"a":["1""2"]} {"a":tru} {"a":True} {"a":nan} //comment {"a":/**/1}
{"a":1}{"b":2}""".split()


def syntax() -> Iterator[Request]:
    for text in SYNTAX:
        yield infer("syntax", text.encode())
    yield infer("syntax", b" ")
    yield infer("syntax", b"\xff\xfe")
    yield infer("syntax", b'{"a":"\xff"}')
    for depth in (50, 99, 101, 150):
        data = "[" * depth + "1,2,3,4" + "]" * depth
        yield infer(
            "syntax", f'{{"inputs":[{{"name":"INPUT0","shape":[1,4],"datatype":"FP32","data":{data}}}]}}'.encode()
        )


def fields() -> Iterator[Request]:
    """Members of a request that are missing, of another type, unknown or twice."""
    whole = tensor()
    for name in whole:
        yield infer("fields", {"inputs": [{key: value for key, value in whole.items() if key != name}]})
        for value in (None, 1, "x", True, [], {}, [None], 1.5, -1):
            yield infer("fields", {"inputs": [{**whole, name: value}]})
    for shape in (
        [1.0, 4],
        ["1", 4],
        [-1, 4],
        [1, 4, 1],
        [4],
        [0, 4],
        [9, 4],
        [8, 4],
        [1, 2**31],
        [1, 2**63],
        [2**62, 2**62],
    ):
        yield infer("shapes", {"inputs": [tensor(shape=shape)]})
    for count in (0, 1, 3, 5, 8):
        yield infer("counts", {"inputs": [tensor(data=[1] * count)]})
    for key, value in (
        ("id", 7),
        ("id", None),
        ("id", "x"),
        ("id", ""),
        ("model_name", "x"),
        ("unknown", [1]),
        ("outputs", 1),
    ):
        yield infer("fields", {key: value, "inputs": [whole]})
    outputs: tuple[Any, ...] = (
        [],
        [{}],
        [{"name": "X"}],
        [{"name": 1}],
        [{"name": "OUTPUT0"}],
        [{"name": "OUTPUT0", "x": 1}],
        [1],
    )
    for listed in outputs:
        yield infer("outputs", {"inputs": [whole], "outputs": listed})
    for names in ((), ("INPUT0",), ("INPUT1",), ("X",), ("INPUT0", "X"), ("INPUT0", "INPUT0"), ("INPUT1", "INPUT0")):
        for model in ("m", "two", "optional"):
            yield infer("inputs", {"inputs": [{**whole, "name": name} for name in names]}, model)
    yield infer("inputs", {"inputs": [whole, {**tensor(list(range(8)), [2, 4]), "name": "INPUT1"}]}, "two")
    yield infer("inputs", {"inputs": [tensor([1], [])]})


VALUES: dict[str, tuple[str, ...]] = {
    "BOOL": ("true,false", "1", "0", '"true"', "null"),
    "INT8": ("-128,127", "200", "-129", "1.0", '"1"', "true"),
    "UINT8": ("0,255", "256", "-1"),
    "INT32": ("-2147483648,2147483647", "2147483648", "1e3", "1.5"),
    "INT64": ("-9223372036854775808,9223372036854775807", "9223372036854775808", "1.0"),
    "UINT64": ("0,18446744073709551615", "18446744073709551616", "-1"),
    "FP16": ("0.5",),
    "FP32": ("0.1,1,-0.0,1e-45,3.4e38", "1e39", "NaN,Infinity,-Infinity,Inf", "true", '"1"', "null"),
    "FP64": ("0.1,1,1e-320,1.7976931348623157e308", "1", "123456789012345678"),
    "BYTES": ('"a","","ä","\\u0000","日本"', "1", "true", "null", '["a"]'),
    "STRING": ('"a"',),
    "fp32": ("1",),
    "": ("1",),
}


def values() -> Iterator[Request]:
    for datatype, texts in VALUES.items():
        model = {"BYTES": "string", "STRING": "string"}.get(datatype, datatype.lower() or "fp32")
        for text in texts:
            count = text.count(",") + 1
            head = f'"name":"INPUT0","shape":[{count}],"datatype":"{datatype}"'
            yield infer("values", f'{{"inputs":[{{{head},"data":[{text}]}}]}}'.encode(), model)


def parameters() -> Iterator[Request]:
    for value in (True, 7, -7, 2**63, 0.5, "x", None, [1], {"a": 1}):
        yield infer("parameters", {"parameters": {"a": value}, "inputs": [tensor()]})
    for key, value in (
        ("priority", -1),
        ("priority", 0),
        ("priority", "x"),
        ("priority", 1.5),
        ("timeout", "x"),
        ("timeout", 0),
        ("timeout", True),
        ("sequence_id", True),
        ("sequence_id", -1),
        ("sequence_start", 1),
        ("sequence_end", "x"),
        ("binary_data_output", 1),
        ("binary_data_output", "true"),
    ):
        yield infer("parameters", {"parameters": {key: value}, "inputs": [tensor()]})
    yield infer("parameters", {"parameters": [], "inputs": [tensor()]})
    for count in (0, 1, 3, 9, -1, "2", True, 1.5):
        listed = [{"name": "OUTPUT0", "parameters": {"classification": count}}]
        yield infer("classification", {"inputs": [tensor()], "outputs": listed})
    for value in (True, False, 1, "true"):
        yield infer(
            "binary", {"inputs": [tensor()], "outputs": [{"name": "OUTPUT0", "parameters": {"binary_data": value}}]}
        )


def binary() -> Iterator[Request]:
    def one(size: Any, tail: bytes, length: str | None = None, **more: Any) -> Request:
        sent = {"name": "INPUT0", "shape": [1, 4], "datatype": "FP32", "parameters": {"binary_data_size": size}}
        head = json.dumps({"inputs": [sent], **more}).encode()
        return infer("binary", head + tail, **{LENGTH: str(len(head)) if length is None else length})

    yield one(16, ROW)
    yield one(16, ROW, parameters={"binary_data_output": True})
    yield one(16, ROW, parameters={"binary_data_output": True}, outputs=[{"name": "OUTPUT0"}])
    for size in (0, 12, 15, 17, 20, 32, -1, "16", 1.5, True, None, 2**40):
        yield one(size, ROW)
    for tail in (b"", ROW[:12], ROW + b"1", ROW * 2):
        yield one(16, tail)
    for length in ("0", "1", "99999", "-1", "x", "", "99999999999", "12abc", "1e2", " 5"):
        yield one(16, ROW, length)
    for model, data in (
        ("m", ROW),
        ("m", ROW * 2),
        ("m", ROW[:15]),
        ("fp32", ROW),
        ("string", b"abc"),
        ("string", b""),
        ("two", ROW),
    ):
        yield infer("raw", data, model, **{LENGTH: "0"})
    for content in (
        b"\3\0\0\0abc\0\0\0\0",
        b"\3\0\0\0abc",
        b"\3\0\0\0ab",
        b"\3\0",
        b"\1\0\0\0a\1\0\0\0b\1\0\0\0c",
        b"\xff\xff\xff\xff",
    ):
        sent = {"name": "INPUT0", "shape": [2], "datatype": "BYTES", "parameters": {"binary_data_size": len(content)}}
        head = json.dumps({"inputs": [sent]}).encode()
        yield infer("strings", head + content, "string", **{LENGTH: str(len(head))})
    both = tensor(parameters={"binary_data_size": 16})
    yield infer("binary", json.dumps({"inputs": [both]}).encode())
    for encoding in ("identity", "br", "gzip, deflate", "nonsense"):
        yield infer("encoding", {"inputs": [tensor()]}, **{"Content-Encoding": encoding})
    for kind in ("text/plain", "application/json", "nonsense"):
        yield infer("headers", {"inputs": [tensor()]}, **{"Content-Type": kind})


def repository() -> Iterator[Request]:
    for body in (
        b"",
        b"{}",
        b'{"ready":true}',
        b'{"ready":false}',
        b'{"ready":1}',
        b'{"ready":"x"}',
        b"{",
        b"[]",
        b"null",
    ):
        yield Request("index", "POST", "/v2/repository/index", body)
    bodies = (
        b"",
        b"{}",
        b"{",
        b'{"parameters":{}}',
        b'{"parameters":1}',
        b'{"parameters":{"x":"y"}}',
        b'{"parameters":{"config":{}}}',
    )
    for body in (*bodies, b'{"parameters":{"config":"{"}}', b'{"parameters":{"config":1}}'):
        yield Request("load", "POST", "/v2/repository/models/loadable/load", body)
    for name in ("nope", "..%2fx", "a%2fb"):
        yield Request("load", "POST", f"/v2/repository/models/{name}/load", b"")
        yield Request("unload", "POST", f"/v2/repository/models/{name}/unload", b"")
    yield Request("load", "POST", "/v2/repository/r/models/loadable/load", b"")
    for body in (
        b"",
        b"{}",
        b"{",
        b'{"parameters":{"unload_dependents":true}}',
        b'{"parameters":{"unload_dependents":1}}',
    ):
        yield Request("unload", "POST", "/v2/repository/models/loadable/unload", body)


def corpus() -> list[Request]:
    """All of it, in an order in which the two servers stay alike."""
    parts = (routes(), versions(), syntax(), fields(), values(), parameters(), binary(), repository())
    return [request for part in parts for request in part]
