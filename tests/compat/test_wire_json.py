"""Inference with JSON tensors over HTTP, to the byte where it matters."""

from __future__ import annotations

import json
import struct
from typing import Any

import pytest


def tensor(data: Any, datatype: str = "FP32", shape: list[int] | None = None, **more: Any) -> dict[str, Any]:
    return {"name": "INPUT0", "shape": shape or [len(data)], "datatype": datatype, "data": data, **more}


def ask(wire, body: Any, model: str = "fp32"):
    return wire.post(f"/v2/models/{model}/infer", body)


def echo(wire, text: str, datatype: str) -> Any:
    """What comes back for data written as `text`; the model is the datatype's own."""
    model = {"BYTES": "string"}.get(datatype, datatype.lower())
    elements = text.count(",") + 1
    body = f'{{"inputs":[{{"name":"INPUT0","shape":[{elements}],"datatype":"{datatype}","data":[{text}]}}]}}'
    return ask(wire, body.encode(), model)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "The document is empty. at 0"),
        (b"{", "Missing a name for object member. at 1"),
        (b'{"inputs":[}', "Invalid value. at 11"),
        (b'{"inputs":[]} x', "The document root must not be followed by other values. at 14"),
    ],
)
def test_w13_what_is_no_json_is_400_with_its_place(wire, body, text):
    answer = ask(wire, body)
    if not body:  # without a body this is a raw request (W31)
        answer = wire.post("/v2/models/two/infer", b" ")
        text = "The document is empty. at 1"
    assert (answer.status, answer.error) == (400, f"failed to parse the request JSON buffer: {text}")


def test_w13_depth_is_bounded(wire):
    def nested(depth: int) -> bytes:
        data = "[" * depth + "1" + "]" * depth
        return f'{{"inputs":[{{"name":"INPUT0","shape":[1],"datatype":"FP32","data":{data}}}]}}'.encode()

    assert ask(wire, nested(90)).status == 200
    answer = ask(wire, nested(101))
    assert (answer.status, answer.error) == (400, "JSON nesting depth exceeds maximum allowed limit (100)")


@pytest.mark.parametrize("data", [[1, 2, 3, 4], [[1, 2], [3, 4]], [[[1], [2]], [[3], [4]]], [[1, 2, 3], [4]]])
def test_w14_data_is_flat_or_nested_in_any_way(wire, data):
    body = {"inputs": [tensor(data, shape=[1, 4])]}
    assert ask(wire, body, "m").json["outputs"][0]["data"] == [1.0, 2.0, 3.0, 4.0]


@pytest.mark.parametrize(
    ("datatype", "text"),
    [
        ("BOOL", "1"),
        ("INT32", "1.0"),
        ("INT64", "true"),
        ("UINT8", '"1"'),
        ("BYTES", "1"),
        ("FP32", '"1"'),
        ("FP32", "null"),
    ],
)
def test_w15_the_wrong_json_type_is_400(wire, datatype, text):
    assert echo(wire, text, datatype).status == 400


def test_w15_an_id_is_a_string_and_a_dimension_is_not_negative(wire):
    assert ask(wire, {"id": 7, "inputs": [tensor([1])]}).status == 400
    answer = ask(wire, {"inputs": [tensor([1], shape=[-1])]})
    text = "Unable to parse 'shape': attempt to access JSON non-unsigned-integer as unsigned-integer"
    assert (answer.status, answer.error) == (400, text)
    assert echo(wire, "1,2", "FP64").json["outputs"][0]["data"] == [1.0, 2.0]


@pytest.mark.parametrize(
    ("datatype", "sent", "got"),
    [
        ("INT64", "9223372036854775807,-9223372036854775808", "9223372036854775807,-9223372036854775808"),
        ("UINT64", "18446744073709551615,0", "18446744073709551615,0"),
        ("INT8", "200,-129", "-56,127"),
        ("UINT8", "256,257", "0,1"),
        ("INT16", "32768,65536", "-32768,0"),
        ("UINT32", "4294967296,4294967295", "0,4294967295"),
    ],
)
def test_w16_integers_keep_64_bits_or_their_low_ones(wire, datatype, sent, got):
    assert f'"data":[{got}]'.encode() in echo(wire, sent, datatype).body


def test_w17_numbers_that_json_lacks(wire):
    answer = echo(wire, "NaN,Infinity,-Infinity,Inf", "FP32")
    assert b'"data":[NaN,Infinity,-Infinity,Infinity]' in answer.body


@pytest.mark.parametrize("datatype", ["FP16", "BF16"])
def test_w18_half_floats_are_decimals(wire, datatype):
    assert echo(wire, "0.5,-2,1.25", datatype).json["outputs"][0]["data"] == [0.5, -2.0, 1.25]


@pytest.mark.parametrize(
    "fields",
    [
        {"parameters": {"binary_data_size": 4}},
        {"parameters": {"shared_memory_region": "r", "shared_memory_byte_size": 4}},
    ],
)
def test_w19_an_input_has_one_source(wire, fields):
    answer = ask(wire, {"inputs": [tensor([1], **fields)]})
    assert answer.status == 400
    assert answer.error.startswith("Input must set only one of the following fields: ")


def test_w20_unknown_fields_do_nothing_and_string_is_no_datatype(wire):
    more = {"model_name": "other", "model_version": "9", "foo": {"bar": [1]}}
    body = {"inputs": [tensor([1], foo="bar")], "outputs": [{"name": "OUTPUT0", "foo": None}], **more}
    assert ask(wire, body).json["model_name"] == "fp32"
    assert ask(wire, {"inputs": [tensor(["a"], "STRING")]}, "string").status == 400


@pytest.mark.parametrize("value", [True, 7, -7, 2**62, "text", 0.5])
def test_w21_parameters_are_scalars(wire, value):
    assert ask(wire, {"parameters": {"mine": value}, "inputs": [tensor([1])]}).status == 200


@pytest.mark.parametrize("value", [[1], {"a": 1}])
def test_w21_other_parameters_are_refused(wire, value):
    answer = ask(wire, {"parameters": {"a": value}, "inputs": [tensor([1])]})
    text = "parameter 'a' has invalid type. It should be either 'int', 'bool', or 'string'."
    assert (answer.status, answer.error) == (400, text)
    assert ask(wire, {"parameters": {"triton_x": 1}, "inputs": [tensor([1])]}).status == 400


@pytest.mark.parametrize("more", [{}, {"outputs": []}])
def test_w22_no_outputs_means_all(wire, more):
    row = [1, 2, 3, 4]
    inputs = [{**tensor(row, shape=[1, 4]), "name": name} for name in ("INPUT0", "INPUT1")]
    names = [output["name"] for output in ask(wire, {"inputs": inputs, **more}, "two").json["outputs"]]
    assert names == ["OUTPUT0", "OUTPUT1"]


def test_w24_order_of_keys_and_of_outputs(wire):
    row = [1, 2, 3, 4]
    inputs = [{**tensor(row, shape=[1, 4]), "name": name} for name in ("INPUT1", "INPUT0")]
    outputs = [{"name": "OUTPUT1"}, {"name": "OUTPUT0"}]
    answer = ask(wire, {"id": "7", "inputs": inputs, "outputs": outputs}, "two")
    assert b", " not in answer.body and b": " not in answer.body.replace(b"an example string parameter", b"")
    assert list(answer.json) == ["id", "model_name", "model_version", "parameters", "outputs"]
    assert answer.json["model_version"] == "1"
    assert [output["name"] for output in answer.json["outputs"]] == ["OUTPUT0", "OUTPUT1"]
    assert list(answer.json["outputs"][0]) == ["name", "datatype", "shape", "data"]
    assert answer.json["outputs"][0]["data"] == row
    assert "id" not in ask(wire, {"inputs": inputs}, "two").json


def test_w25_fp32_is_short_and_exact(wire):
    assert b'"data":[0.1,1.0,16777216.0,-0.0]' in echo(wire, "0.1,1,16777216,-0.0", "FP32").body
    largest, smallest = 3.4028234663852886e38, 1.1754943508222875e-38
    read = echo(wire, f"{largest},{smallest}", "FP32").json["outputs"][0]["data"]
    assert struct.pack("<2f", *read) == struct.pack("<2f", largest, smallest)


def test_w26_bytes_that_are_no_utf8_become_replacement_characters(wire):
    assert echo(wire, '"a","ä","日本"', "BYTES").json["outputs"][0]["data"] == ["a", "ä", "日本"]
    head = {"inputs": [{"name": "INPUT0", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": 6}}]}
    text = json.dumps(head).encode()
    body = text + b"\x02\0\0\0\xff\xfe"
    answer = wire.post("/v2/models/string/infer", body, Inference_Header_Content_Length=str(len(text)))
    assert answer.json["outputs"][0]["data"] == ["\ufffd\ufffd"]
