"""Inference with binary tensors over HTTP, to the byte where it matters."""

from __future__ import annotations

import json
import struct
from typing import Any

import pytest

HEADER = "inference-header-content-length"
ROW = struct.pack("<4f", 1, 2, 3, 4)


def binary(name: str, size: int, shape: list[int], datatype: str = "FP32") -> dict[str, Any]:
    return {"name": name, "shape": shape, "datatype": datatype, "parameters": {"binary_data_size": size}}


def ask(wire, model: str, head: Any, tail: bytes = b"", length: str | None = None):
    text = head if isinstance(head, bytes) else json.dumps(head).encode()
    return wire.post(f"/v2/models/{model}/infer", text + tail, **{HEADER: str(len(text)) if length is None else length})


def blobs(answer) -> list[bytes]:
    """The bytes of each binary output, cut as stock clients cut them (W34)."""
    at = int(answer.headers[HEADER])
    found = []
    for output in json.loads(answer.body[:at])["outputs"]:
        size = output.get("parameters", {}).get("binary_data_size", 0)
        found.append(answer.body[at : at + size])
        at += size
    assert at == len(answer.body)
    return found


@pytest.mark.parametrize("name", ["Inference-Header-Content-Length", HEADER, HEADER.upper()])
def test_w27_the_header_says_where_the_bytes_begin(wire, name):
    text = json.dumps({"inputs": [binary("INPUT0", 16, [1, 4])]}).encode()
    answer = wire.send("POST", "/v2/models/m/infer", text + ROW, **{name.replace("-", "_"): str(len(text))})
    assert answer.json["outputs"][0]["data"] == [1.0, 2.0, 3.0, 4.0]


def test_w27_json_and_bytes_mix_and_come_in_order(wire):
    json_input = {"name": "INPUT1", "shape": [1, 4], "datatype": "FP32", "data": [5, 6, 7, 8]}
    answer = ask(wire, "two", {"inputs": [json_input, binary("INPUT0", 16, [1, 4])]}, ROW)
    assert [output["data"] for output in answer.json["outputs"]] == [[1, 2, 3, 4], [5, 6, 7, 8]]
    other = struct.pack("<4f", 9, 9, 9, 9)
    answer = ask(wire, "two", {"inputs": [binary("INPUT1", 16, [1, 4]), binary("INPUT0", 16, [1, 4])]}, ROW + other)
    assert [output["data"] for output in answer.json["outputs"]] == [[9, 9, 9, 9], [1, 2, 3, 4]]


def test_w27_without_the_header_there_are_no_bytes(wire):
    answer = wire.post("/v2/models/m/infer", {"inputs": [binary("INPUT0", 16, [1, 4])]})
    assert answer.status == 400
    assert "expecting 16 additional bytes" in answer.error


@pytest.mark.parametrize(
    ("length", "text"),
    [
        ("99999", "inference header size should be in range (0, {size}), got: 99999"),
        ("-1", "inference header size should be in range (0, {size}), got: -1"),
        ("x", "Unable to parse Inference-Header-Content-Length, got: x"),
        (
            "99999999999",
            "Unable to parse Inference-Header-Content-Length, value is out of range [ -2147483648, 2147483647 ], "
            "got: 99999999999",
        ),
    ],
)
def test_w28_the_header_lies_within_the_body(wire, length, text):
    head = json.dumps({"inputs": [binary("INPUT0", 16, [1, 4])]}).encode()
    answer = ask(wire, "m", head, ROW, length)
    assert (answer.status, answer.error) == (400, text.format(size=len(head) + len(ROW)))


@pytest.mark.parametrize(
    ("datatype", "form", "values"),
    [
        ("INT16", "<2h", (1, -2)),
        ("UINT64", "<2Q", (2**64 - 1, 1)),
        ("FP64", "<2d", (0.1, -2.5)),
        ("BOOL", "<2?", (True, False)),
    ],
)
def test_w29_bytes_are_little_endian(wire, datatype, form, values):
    bytes_ = struct.pack(form, *values)
    answer = ask(wire, datatype.lower(), {"inputs": [binary("INPUT0", len(bytes_), [2], datatype)]}, bytes_)
    assert answer.json["outputs"][0]["data"] == list(values)


def test_w29_an_element_of_bytes_is_its_length_and_itself(wire):
    bytes_ = b"\x03\0\0\0abc\0\0\0\0\x02\0\0\0\xc3\xa4"
    answer = ask(wire, "string", {"inputs": [binary("INPUT0", len(bytes_), [3], "BYTES")]}, bytes_)
    assert answer.json["outputs"][0]["data"] == ["abc", "", "ä"]


def test_w30_bf16_is_the_upper_half_of_a_float32(wire):
    bytes_ = struct.pack("<2f", 0.5, -1.25)
    halves = bytes_[2:4] + bytes_[6:8]
    answer = ask(wire, "bf16", {"inputs": [binary("INPUT0", 4, [2], "BF16")]}, halves)
    assert answer.json["outputs"][0]["data"] == [0.5, -1.25]


def test_w31_a_raw_request_is_the_only_input(wire):
    answer = wire.post("/v2/models/m/infer", ROW, **{HEADER: "0"})
    assert blobs(answer) == [ROW]
    assert json.loads(answer.body[: int(answer.headers[HEADER])])["outputs"][0]["shape"] == [1, 4]
    answer = wire.post("/v2/models/int32/infer", struct.pack("<3i", 1, 2, 3), **{HEADER: "0"})
    assert json.loads(answer.body[: int(answer.headers[HEADER])])["outputs"][0]["shape"] == [3]
    answer = wire.post("/v2/models/two/infer", ROW, **{HEADER: "0"})
    assert answer.status == 400


def test_w31_raw_bytes_are_one_element(wire):
    answer = wire.post("/v2/models/string/infer", b"anything", **{HEADER: "0"})
    assert blobs(answer) == [b"\x08\0\0\0anything"]


@pytest.mark.parametrize(
    ("outputs", "is_binary"),
    [
        (None, True),
        ([], True),
        ([{"name": "OUTPUT0"}], False),
        ([{"name": "OUTPUT0", "parameters": {"binary_data": True}}], True),
        ([{"name": "OUTPUT0", "parameters": {"binary_data": False}}], False),
    ],
)
def test_w32_the_request_speaks_only_for_outputs_that_it_does_not_list(wire, outputs, is_binary):
    head: dict[str, Any] = {"inputs": [binary("INPUT0", 16, [1, 4])], "parameters": {"binary_data_output": True}}
    if outputs is not None:
        head["outputs"] = outputs
    assert (HEADER in ask(wire, "m", head, ROW).headers) == is_binary


def test_w33_the_header_comes_with_the_first_binary_byte(wire):
    head = {"inputs": [binary("INPUT0", 16, [1, 4])], "parameters": {"binary_data_output": True}}
    answer = ask(wire, "m", head, ROW)
    assert answer.headers["content-type"] == "application/octet-stream"
    assert blobs(answer) == [ROW]
    head = {"inputs": [binary("INPUT0", 0, [0])], "parameters": {"binary_data_output": True}}
    answer = ask(wire, "fp32", head)
    assert answer.status == 200 and HEADER not in answer.headers
    assert answer.headers["content-type"] == "application/json"
    assert answer.json["outputs"][0]["parameters"] == {"binary_data_size": 0}


def test_w34_blobs_come_in_the_order_of_the_outputs(wire):
    other = struct.pack("<4f", 9, 9, 9, 9)
    inputs = [binary("INPUT0", 16, [1, 4]), binary("INPUT1", 16, [1, 4])]
    outputs = [{"name": name, "parameters": {"binary_data": True}} for name in ("OUTPUT1", "OUTPUT0")]
    answer = ask(wire, "two", {"inputs": inputs, "outputs": outputs}, ROW + other)
    assert blobs(answer) == [ROW, other]
    outputs[1]["parameters"] = {"binary_data": False}
    answer = ask(wire, "two", {"inputs": inputs, "outputs": outputs}, ROW + other)
    assert blobs(answer) == [b"", other]


@pytest.mark.parametrize(
    ("datatype", "form", "values", "classes"),
    [
        ("FP32", "<3f", (0.5, 2, 1), ["2.000000:1", "1.000000:2"]),
        ("INT32", "<3i", (-9, 9, 0), ["9:1", "0:2"]),
    ],
)
def test_w44_classes_by_value(wire, datatype, form, values, classes):
    head = {
        "inputs": [binary("INPUT0", 12, [3], datatype)],
        "outputs": [{"name": "OUTPUT0", "parameters": {"classification": 2}}],
    }
    output = ask(wire, datatype.lower(), head, struct.pack(form, *values)).json["outputs"][0]
    assert (output["datatype"], output["shape"], output["data"]) == ("BYTES", [2], classes)


@pytest.mark.parametrize("datatype", ["BYTES", "BOOL", "FP16", "BF16"])
def test_w44_types_without_classes(wire, datatype):
    data = {"BYTES": ["a"], "BOOL": [True]}.get(datatype, [1.0])
    body = {
        "inputs": [{"name": "INPUT0", "shape": [1], "datatype": datatype, "data": data}],
        "outputs": [{"name": "OUTPUT0", "parameters": {"classification": 1}}],
    }
    model = {"BYTES": "string"}.get(datatype, datatype.lower())
    assert wire.post(f"/v2/models/{model}/infer", body).status == 400
