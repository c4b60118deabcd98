"""The error table of docs/reference/protocol.md: each row's text and status, as sent to clients."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc as stubs

NOTE = (
    "NOTE: Setting a non-zero max_batch_size in the model config requires a batch dimension to be prepended to each "
    "input shape. If you want to specify the full shape including the batch dim in your input dims config, try setting "
    "max_batch_size to zero. See the model configuration docs for more info on max_batch_size."
)
ROW = struct.pack("<4f", 1, 2, 3, 4)
WHO = "[request id: <id_unknown>] "


@dataclass(frozen=True)
class Input:
    """One input with its bytes."""

    name: str = "INPUT0"
    shape: tuple[int, ...] = (1, 4)
    bytes: bytes = ROW
    datatype: str = "FP32"


@dataclass(frozen=True)
class Case:
    """A request that is refused, and the text of the refusal."""

    row: str
    text: str
    model: str = "m"
    inputs: tuple[Input, ...] = (Input(),)
    outputs: tuple[str, ...] = ()
    id: str = ""
    also: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.row} {self.text[:40]}"


def strings(*elements: bytes) -> bytes:
    return b"".join(struct.pack("<I", len(each)) + each for each in elements)


CUT = "Please make sure the string length indicator is in one buffer."

CASES = [
    Case(
        "E-missing-input",
        WHO
        + "expected 2 inputs but got 1 inputs for model 'two'. Got input(s) ['INPUT0'], but missing required input(s) "
        "['INPUT1']. Please provide all required input(s).",
        model="two",
    ),
    Case(
        "E-missing-input",
        "[request id: abc] expected number of inputs between 1 and 2 but got 0 inputs for model 'optional'. Got "
        "input(s) [], but missing required input(s) ['INPUT0']. Please provide all required input(s).",
        model="optional",
        inputs=(),
        id="abc",
    ),
    Case("E-unknown-tensor", "unexpected inference input 'X' for model 'm'", inputs=(Input("X"),)),
    Case("E-unknown-tensor", "unexpected inference output 'X' for model 'm'", outputs=("X",)),
    Case("E-duplicate", WHO + "input 'INPUT0' already exists in request", inputs=(Input(), Input())),
    Case("E-duplicate", WHO + "output 'OUTPUT0' already exists in request", outputs=("OUTPUT0", "OUTPUT0")),
    Case(
        "E-datatype",
        WHO + "inference input 'INPUT0' data-type is 'INT32', but model 'm' expects 'FP32'",
        inputs=(Input(datatype="INT32"),),
    ),
    Case(
        "E-datatype",
        WHO + "inference input 'INPUT0' data-type is '<invalid>', but model 'm' expects 'FP32'",
        inputs=(Input(datatype="float"),),
    ),
    Case(
        "E-shape",
        WHO + f"unexpected shape for input 'INPUT0' for model 'm'. Expected [-1,4], got [4]. {NOTE}",
        inputs=(Input(shape=(4,)),),
    ),
    Case(
        "E-shape",
        "[request id: 1] unexpected shape for input 'INPUT0' for model 'matrix'. Expected [2,3], got [2,2]. ",
        model="matrix",
        inputs=(Input(shape=(2, 2)),),
        id="1",
    ),
    Case(
        "E-batch",
        WHO + "inference request batch-size must be <= 8 for 'm'",
        inputs=(Input(shape=(9, 4), bytes=ROW * 9),),
    ),
    Case(
        "E-batch",
        WHO + "input 'INPUT1' batch size does not match other inputs for 'two'",
        model="two",
        inputs=(Input(), Input("INPUT1", (2, 4), ROW * 2)),
    ),
    Case(
        "E-batch",
        WHO + "input 'INPUT0' has no shape but model requires batch dimension for 'm'",
        inputs=(Input(shape=(), bytes=ROW[:4]),),
    ),
    Case(
        "E-overflow",
        "invalid shape for input 'INPUT0': shape [4294967296,4294967296] causes total element count to exceed maximum "
        "size of 9223372036854775807",
        model="wide",
        inputs=(Input(shape=(2**32, 2**32)),),
    ),
    Case(
        "E-bytes-elements",
        WHO + "expected 2 string elements for inference input 'INPUT0' for model 'string', got 1",
        model="string",
        inputs=(Input(shape=(2,), bytes=strings(b"a"), datatype="BYTES"),),
    ),
    Case(
        "E-bytes-elements",
        WHO + "unexpected number of string elements 3 for inference input 'INPUT0' for model 'string', expecting 2",
        model="string",
        inputs=(Input(shape=(2,), bytes=strings(b"a", b"b", b"c"), datatype="BYTES"),),
    ),
    Case(
        "E-bytes-elements",
        WHO
        + "incomplete string length indicator for inference input 'INPUT0' for model 'string', expecting 4 bytes but "
        f"only 2 bytes available. {CUT}",
        model="string",
        inputs=(Input(shape=(2,), bytes=strings(b"a") + b"\1\0", datatype="BYTES"),),
    ),
]


def over_http(wire, case: Case) -> tuple[int, str]:
    """Status and text of the request with binary tensors."""
    inputs = [
        {"name": i.name, "shape": i.shape, "datatype": i.datatype, "parameters": {"binary_data_size": len(i.bytes)}}
        for i in case.inputs
    ]
    head = {"inputs": inputs, **case.also}
    if case.id:
        head["id"] = case.id
    if case.outputs:
        head["outputs"] = [{"name": name} for name in case.outputs]
    text = json.dumps(head).encode()
    body = text + b"".join(i.bytes for i in case.inputs)
    answer = wire.post(f"/v2/models/{case.model}/infer", body, Inference_Header_Content_Length=str(len(text)))
    return answer.status, answer.error


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_refusal_over_http(wire, case):
    assert over_http(wire, case) == (400, case.text)


@pytest.fixture(scope="module")
def stub(wire):
    with grpc.insecure_channel(wire.grpc) as channel:
        yield stubs.GRPCInferenceServiceStub(channel)


def over_grpc(stub, case: Case) -> tuple[str, str]:
    """Status and text of the same request."""
    tensor = pb.ModelInferRequest.InferInputTensor
    output = pb.ModelInferRequest.InferRequestedOutputTensor
    message = pb.ModelInferRequest(
        model_name=case.model,
        id=case.id,
        inputs=[tensor(name=i.name, shape=i.shape, datatype=i.datatype) for i in case.inputs],
        outputs=[output(name=name) for name in case.outputs],
        raw_input_contents=[i.bytes for i in case.inputs],
    )
    with pytest.raises(grpc.RpcError) as refused:
        stub.ModelInfer(message, timeout=30)
    return refused.value.code().name, refused.value.details()


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_same_refusal_over_grpc(stub, case):
    assert over_grpc(stub, case) == ("INVALID_ARGUMENT", case.text)


def test_dimensions_that_only_grpc_can_send(stub):
    """E-negative-dim."""
    text = WHO + "All input dimensions should be specified for input 'INPUT0' for model 'm', got [1,-4]"
    assert over_grpc(stub, Case("E-negative-dim", text, inputs=(Input(shape=(1, -4)),))) == ("INVALID_ARGUMENT", text)


def infer(wire, model: str, *inputs: dict[str, Any], **more: Any) -> tuple[int, str]:
    answer = wire.post(f"/v2/models/{model}/infer", {"inputs": inputs, **more})
    return answer.status, answer.error


def test_a_datatype_that_is_none_with_json_data(wire):
    """E-datatype."""
    tensor = {"name": "INPUT0", "shape": [1], "datatype": "float", "data": [1]}
    assert infer(wire, "fp32", tensor) == (400, "invalid datatype for input INPUT0")


def test_json_values_that_do_not_fill_the_shape(wire):
    """E-value-count."""
    tensor = {"name": "INPUT0", "shape": [2], "datatype": "FP32"}
    many = "Unable to parse 'data': Shape does not match true shape of 'data' field"
    few = "Failed to parse 'data' field: shape does not match true shape"
    assert infer(wire, "fp32", {**tensor, "data": [1, 2, 3]}) == (400, many)
    assert infer(wire, "fp32", {**tensor, "data": [1]}) == (400, few)


def test_a_shape_beyond_counting_with_json_data(wire):
    """E-overflow."""
    tensor = {"name": "INPUT0", "shape": [2**62], "datatype": "FP32", "data": [1]}
    status, text = infer(wire, "fp32", tensor)
    assert status == 400
    assert text.startswith(f"byte size overflow for input 'INPUT0': shape [{2**62}]")


def test_bytes_that_are_not_there_or_too_many(wire):
    """E-binary-length: the tail; E-byte-size: what the input says of itself."""
    tensor = {"name": "INPUT0", "shape": [1, 4], "datatype": "FP32"}

    def tail(size: int, content: bytes) -> tuple[int, str]:
        text = json.dumps({"inputs": [{**tensor, "parameters": {"binary_data_size": size}}]}).encode()
        answer = wire.post("/v2/models/m/infer", text + content, Inference_Header_Content_Length=str(len(text)))
        return answer.status, answer.error

    assert tail(16, ROW[:12]) == (400, "unexpected size for input 'INPUT0', expecting 4 additional bytes for model 'm'")
    assert tail(16, ROW + b"1") == (400, "unexpected additional input data for model 'm'")
    size = WHO + "input byte size mismatch for input 'INPUT0' for model 'm'. Expected 16, got 12"
    assert tail(12, ROW[:12]) == (400, size)


HINT = " Use --http-max-input-size to increase the limit."


def test_a_body_above_the_limit(wire):
    """E-size-limit: the JSON as sent, and a raw body; the server's limit is 100,000 bytes."""
    size, limit = 100_001, 100_000
    answer = wire.post("/v2/models/fp32/infer", b"{" + b" " * (size - 2) + b"}")
    text = f"request JSON size of {size} bytes exceeds the maximum allowed input size of {limit} bytes.{HINT}"
    assert (answer.status, answer.error) == (400, text)
    answer = wire.post("/v2/models/fp32/infer", b"1" * 100_004, Inference_Header_Content_Length="0")
    text = f"Raw input has a byte_size (100004 bytes) that exceeds the maximum allowed value of {limit} bytes.{HINT}"
    assert (answer.status, answer.error) == (400, text)


def test_a_tensor_that_json_makes_too_large(wire):
    """E-size-limit: 40,000 elements of FP64 are 80,002 bytes of JSON and 320,000 of tensor."""
    tensor = {"name": "INPUT0", "shape": [40_000], "datatype": "FP64", "data": [1] * 40_000}
    text = "JSON input 'INPUT0' has a byte_size (320000 bytes) that exceeds the maximum allowed value of 100000 bytes."
    body = json.dumps({"inputs": [tensor]}, separators=(",", ":")).encode()
    answer = wire.post("/v2/models/fp64/infer", body)
    assert (answer.status, answer.error) == (400, text + HINT)


def test_a_decoupled_model_has_no_single_response(stub):
    """E-decoupled, over gRPC."""
    text = "ModelInfer RPC doesn't support models with decoupled transaction policy"
    sent = Input("IN", (1,), struct.pack("<i", 2), "INT32")
    assert over_grpc(stub, Case("E-decoupled", text, "square", (sent,))) == ("UNIMPLEMENTED", text)


def test_loading_where_loading_is_not_explicit(wire):
    """E-control-mode."""
    text = "explicit model load / unload is not allowed if polling is enabled"
    for verb in ("load", "unload"):
        answer = wire.post(f"/v2/repository/models/m/{verb}")
        assert (answer.status, answer.error) == (503, text)
