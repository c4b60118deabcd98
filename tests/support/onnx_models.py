"""Small ONNX models made with the `onnx` package."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

REASON = "onnx is not installed: pip install onnx"
Shape = Sequence[int | str | None] | None


def helper() -> Any:
    return pytest.importorskip("onnx", reason=REASON).helper


def value(name: str, kind: str = "FLOAT", shape: Shape = ("N", 4)) -> Any:
    """A tensor's declaration: `kind` as in TensorProto, the shape with numbers, symbols or None."""
    onnx = pytest.importorskip("onnx", reason=REASON)
    return onnx.helper.make_tensor_value_info(name, getattr(onnx.TensorProto, kind), shape)


def model(
    nodes: Sequence[Any],
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    *,
    opsets: dict[str, int] | None = None,
    ir_version: int = 8,
    **graph: Any,
) -> Any:
    """A ModelProto; `graph` are further arguments of `make_graph`."""
    make = helper()
    imports = [make.make_opsetid(domain, version) for domain, version in (opsets or {"": 17}).items()]
    made = make.make_model(make.make_graph(list(nodes), "g", list(inputs), list(outputs), **graph))
    del made.opset_import[:]
    made.opset_import.extend(imports)
    made.ir_version = ir_version
    return made


def node(op: str, inputs: str, outputs: str, **attributes: Any) -> Any:
    """A node; names are separated by blanks."""
    return helper().make_node(op, inputs.split(), outputs.split(), **attributes)


def one(op: str, *, kind: str = "FLOAT", shape: Shape = ("N", 4), **more: Any) -> Any:
    """A model of one node from `x` to `y`, which have the same type and shape."""
    return model([node(op, "x", "y")], [value("x", kind, shape)], [value("y", kind, shape)], **more)


def affine(*, batch: int | str = "N", **more: Any) -> Any:
    """y = 2x + 1 over four numbers."""
    onnx = pytest.importorskip("onnx", reason=REASON)
    weights = [
        onnx.helper.make_tensor("two", onnx.TensorProto.FLOAT, [], [2.0]),
        onnx.helper.make_tensor("one", onnx.TensorProto.FLOAT, [4], [1.0] * 4),
    ]
    nodes = [node("Mul", "x two", "scaled"), node("Add", "scaled one", "y")]
    shape = (batch, 4)
    return model(nodes, [value("x", shape=shape)], [value("y", shape=shape)], initializer=weights, **more)


def external(location: str) -> Any:
    """y = x + w, w being four floats in another file."""
    onnx = pytest.importorskip("onnx", reason=REASON)
    weight = onnx.TensorProto(name="w", data_type=onnx.TensorProto.FLOAT, dims=[4])
    weight.data_location = onnx.TensorProto.EXTERNAL
    for key, text in (("location", location), ("offset", "0"), ("length", "16")):
        weight.external_data.add(key=key, value=text)
    return model([node("Add", "x w", "y")], [value("x")], [value("y")], initializer=[weight])


def save(made: Any, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(made.SerializeToString())
    return path
