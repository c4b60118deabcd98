"""Calls over gRPC, good and bad, made systematically: each goes to two servers and both answers are compared."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tritonclient.grpc import service_pb2 as pb

ROW = struct.pack("<4f", 1, 2, 3, 4)


@dataclass(frozen=True)
class Call:
    """One call; the topic says which part of the corpus made it."""

    topic: str
    method: str
    message: Any

    def __str__(self) -> str:
        return f"[{self.topic}] {self.method} {str(self.message)[:200]!r}"


def tensor(name: str = "INPUT0", shape: tuple[int, ...] = (1, 4), datatype: str = "FP32", **more: Any) -> Any:
    return pb.ModelInferRequest.InferInputTensor(name=name, shape=shape, datatype=datatype, **more)


def infer(topic: str, *inputs: Any, raw: tuple[bytes, ...] = (), model: str = "m", **more: Any) -> Call:
    message = pb.ModelInferRequest(model_name=model, inputs=inputs, raw_input_contents=raw, **more)
    return Call(topic, "ModelInfer", message)


def named() -> Iterator[Call]:
    """Every call that names a model, with versions good and bad."""
    for method in ("ServerLive", "ServerReady", "ServerMetadata"):
        yield Call("server", method, getattr(pb, f"{method}Request")())
    for method in ("ModelReady", "ModelMetadata", "ModelConfig", "ModelStatistics"):
        request = getattr(pb, f"{method}Request")
        for name in ("m", "nope", "unloaded", ""):
            for version in ("", "1", "9", "0", "-1", "abc", "01", "1.0", "9223372036854775808"):
                if name == "" and method == "ModelStatistics":
                    continue  # all models: what their code counted differs
                yield Call("versions", method, request(name=name, version=version))
    for version in ("", "1", "9", "0", "-1", "abc", "9223372036854775808"):
        yield infer("versions", tensor(), raw=(ROW,), model_version=version)
    for model in ("nope", "unloaded", ""):
        yield infer("versions", tensor(), raw=(ROW,), model=model)


def shapes() -> Iterator[Call]:
    many = ((4,), (1, 4, 1), (9, 4), (0, 4), (-1, 4), (1, -4), (), (2, 4), (1, 2**31), (2**62, 2**62), (2**40, 2**40))
    for shape in many:
        yield infer("shapes", tensor(shape=shape), raw=(ROW,))
    for datatype in ("INT32", "float", "", "fp32", "FP64", "BYTES", "STRING"):
        yield infer("datatypes", tensor(datatype=datatype), raw=(ROW,))
    for raw in ((), (b"",), (ROW[:12],), (ROW + ROW,), (ROW, ROW), (ROW, b"")):
        yield infer("raw", tensor(), raw=raw)
    for names in ((), ("INPUT0",), ("INPUT1",), ("X",), ("INPUT0", "X"), ("INPUT0", "INPUT0"), ("INPUT1", "INPUT0")):
        for model in ("m", "two", "optional"):
            yield infer("inputs", *(tensor(name) for name in names), raw=(ROW,) * len(names), model=model)
    for outputs in (("OUTPUT0",), ("X",), ("OUTPUT0", "OUTPUT0"), ("",)):
        listed = [pb.ModelInferRequest.InferRequestedOutputTensor(name=name) for name in outputs]
        yield infer("outputs", tensor(), raw=(ROW,), outputs=listed)
    for content in (b"\3\0\0\0abc\0\0\0\0", b"\3\0\0\0abc", b"\3\0", b"\1\0\0\0a\1\0\0\0b\1\0\0\0c", b""):
        yield infer("strings", tensor(shape=(2,), datatype="BYTES"), raw=(content,), model="string")
    yield infer("id", tensor(), raw=(ROW,), id="a b")


CONTENTS: dict[str, dict[str, list[Any]]] = {
    "BOOL": {"bool_contents": [True, False]},
    "INT8": {"int_contents": [200, -129]},
    "INT16": {"int_contents": [32768, -1]},
    "INT32": {"int_contents": [2**31 - 1, -(2**31)]},
    "INT64": {"int64_contents": [2**63 - 1, -(2**63)]},
    "UINT8": {"uint_contents": [256, 255]},
    "UINT16": {"uint_contents": [65536, 1]},
    "UINT32": {"uint_contents": [2**32 - 1, 0]},
    "UINT64": {"uint64_contents": [2**64 - 1, 0]},
    "FP32": {"fp32_contents": [0.5, -1.5]},
    "FP64": {"fp64_contents": [0.1, 1e300]},
    "BYTES": {"bytes_contents": [b"a", b"\xff\x00"]},
    "FP16": {"fp32_contents": [0.5, 1.0]},
}


def contents() -> Iterator[Call]:
    """Typed data: each datatype in its own field, in another one, of another length, and beside raw data."""
    for datatype, fields in CONTENTS.items():
        model = {"BYTES": "string"}.get(datatype, datatype.lower())

        def one(*raw: bytes, datatype: str = datatype, model: str = model, **fields: list[Any]) -> Call:
            sent = tensor(shape=(2,), datatype=datatype, contents=pb.InferTensorContents(**fields))
            return infer("contents", sent, raw=raw, model=model)

        yield one(**fields)
        for field, values in fields.items():
            yield one(**{field: values[:1]})
            yield one(**{field: values * 2})
            yield one(b"12", **{field: values})
        for field, value in (
            ("bool_contents", True),
            ("int64_contents", 1),
            ("fp32_contents", 1.0),
            ("bytes_contents", b"a"),
        ):
            if field not in fields:
                yield one(**{field: [value, value]})
        yield one()


PARAMETERS: tuple[dict[str, Any], ...] = (
    {"bool_param": True},
    {"int64_param": 1},
    {"int64_param": -1},
    {"string_param": "x"},
    {"double_param": 0.5},
    {"uint64_param": 1},
    {},
)


def parameters() -> Iterator[Call]:
    keys = ("mine", "sequence_id", "sequence_start", "sequence_end", "priority", "timeout", "binary_data_output")
    for key in keys:
        for value in PARAMETERS:
            yield infer("parameters", tensor(), raw=(ROW,), parameters={key: pb.InferParameter(**value)})
    for value in PARAMETERS:
        count = {"classification": pb.InferParameter(**value)}
        listed = [pb.ModelInferRequest.InferRequestedOutputTensor(name="OUTPUT0", parameters=count)]
        yield infer("classification", tensor(), raw=(ROW,), outputs=listed)
    region = {"shared_memory_region": pb.InferParameter(string_param="nope")}
    yield infer("region", tensor(parameters=region))
    region["shared_memory_byte_size"] = pb.InferParameter(int64_param=16)
    yield infer("region", tensor(parameters=region))


def repository() -> Iterator[Call]:
    for name in ("", "r"):
        for ready in (False, True):
            yield Call("index", "RepositoryIndex", pb.RepositoryIndexRequest(repository_name=name, ready=ready))
    for name in ("loadable", "nope", "../x", ""):
        yield Call("load", "RepositoryModelLoad", pb.RepositoryModelLoadRequest(model_name=name))
        yield Call("load", "RepositoryModelUnload", pb.RepositoryModelUnloadRequest(model_name=name))
    for key, value in (("x", "y"), ("config", "{"), ("config", "")):
        sent = {key: pb.ModelRepositoryParameter(string_param=value)}
        yield Call("load", "RepositoryModelLoad", pb.RepositoryModelLoadRequest(model_name="loadable", parameters=sent))


def corpus() -> list[Call]:
    """All of it, in an order in which the two servers stay alike."""
    return [call for part in (named(), shapes(), contents(), parameters(), repository()) for call in part]
