"""ONNX files are read by their wire format: the same as `onnx.load` says, and one clear refusal for what is broken."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from naiad.errors import UnservableFile
from naiad.signature import wire
from naiad.signature.model import Signature, TensorSignature
from naiad.signature.onnx import TYPES
from naiad.signature.recognise import read
from tests.support import onnx_models, real_models
from tests.support.onnx_models import affine, model, node, one, save, value
from tests.support.wire_bytes import varint

onnx: Any = pytest.importorskip("onnx", reason=onnx_models.REASON)


def refusal(path: Path) -> UnservableFile:
    with pytest.raises(UnservableFile) as caught:
        read(path)
    assert caught.value.fix
    return caught.value


# -- what a file says -------------------------------------------------------------------------------------------------


def test_a_file_tells_names_types_and_dims(tmp_path):
    inputs = [value("image", "FLOAT", ("N", 3, "H", None)), value("sr", "INT64", ()), value("any", "STRING", None)]
    made = model([node("Relu", "image", "y")], inputs, [value("y", "FLOAT16", ("N", 10))], ir_version=9)
    assert read(save(made, tmp_path / "model.onnx")) == Signature(
        format="ONNX (IR 9, opset 17)",
        backend="onnxruntime",
        inputs=(
            TensorSignature(name="image", type="tensor(float)", datatype="FP32", dims=(-1, 3, -1, -1)),
            TensorSignature(name="sr", type="tensor(int64)", datatype="INT64", dims=()),
            TensorSignature(name="any", type="tensor(string)", datatype="BYTES", dims=None),
        ),
        outputs=(TensorSignature(name="y", type="tensor(float16)", datatype="FP16", dims=(-1, 10)),),
    )


def test_every_type_of_the_specification_has_a_row():
    kinds = {number: name.lower() for name, number in onnx.TensorProto.DataType.items() if number}
    assert {number: name for number, (name, _) in TYPES.items() if number in kinds} == kinds


@pytest.mark.parametrize("number", [number for number, (_, datatype) in TYPES.items() if datatype])
def test_types_with_a_v2_name_are_served(tmp_path, number):
    made = one("Identity", kind=onnx.TensorProto.DataType.Name(number))
    assert read(save(made, tmp_path / "m.onnx")).inputs[0].datatype == TYPES[number][1]


@pytest.mark.parametrize("number", [14, 15, 17, 18, 19, 20, 21, 22])
def test_types_without_a_v2_name_are_refused_by_name(tmp_path, number):
    made = one("Identity", kind=onnx.TensorProto.DataType.Name(number))
    error = refusal(save(made, tmp_path / "m.onnx"))
    text = f"'m.onnx': input 'x' is of type {TYPES[number][0]}, for which the protocol has no datatype"
    assert (error.code, error.what) == ("IO_UNSUPPORTED", text)
    assert "Cast" in error.fix


def test_inputs_that_are_weights_are_no_inputs(tmp_path):
    made = affine(ir_version=3)
    made.graph.input.extend([value("two", shape=()), value("one", shape=(4,))])
    assert [tensor.name for tensor in read(save(made, tmp_path / "m.onnx")).inputs] == ["x"]


def test_sparse_weights_are_weights(tmp_path):
    made = affine()
    values = onnx.helper.make_tensor("sparse", onnx.TensorProto.FLOAT, [1], [1.0])
    indices = onnx.helper.make_tensor("", onnx.TensorProto.INT64, [1], [0])
    made.graph.sparse_initializer.append(onnx.helper.make_sparse_tensor(values, indices, [4]))
    made.graph.input.append(value("sparse", shape=(4,)))
    assert [tensor.name for tensor in read(save(made, tmp_path / "m.onnx")).inputs] == ["x"]


def test_an_output_that_is_no_tensor_is_refused_with_what_to_do(tmp_path):
    for maker, kind in (("sequence", "a sequence"), ("map", "a map"), ("optional", "an optional value")):
        tensor = onnx.helper.make_tensor_type_proto(1, ["N"])
        inner = (onnx.TensorProto.INT64, tensor) if maker == "map" else (tensor,)
        type_ = getattr(onnx.helper, f"make_{maker}_type_proto")(*inner)
        made = model([], [value("x")], [onnx.helper.make_value_info("probabilities", type_)])
        error = refusal(save(made, tmp_path / "m.onnx"))
        assert error.code == "IO_UNSUPPORTED"
        assert error.what == f"'m.onnx': output 'probabilities' is {kind}, and the protocol carries tensors only"
        assert ("zipmap" in error.fix) == (maker != "optional")


def test_operators_of_a_foreign_domain_are_told(tmp_path):
    made = one("Identity", opsets={"": 17, "ai.onnx.ml": 3, "acme.ops": 1})
    told = read(save(made, tmp_path / "m.onnx")).warnings
    assert told == ("it uses operators of 'acme.ops', which not every onnxruntime has",)


def test_a_long_text_before_the_graph_does_not_hide_it(tmp_path):
    made = affine()
    made.doc_string = "x" * 100_000
    assert read(save(made, tmp_path / "m.bin")).backend == "onnxruntime"


@pytest.mark.parametrize("form", ["model.onnx", "model.onnx/model.onnx"])
def test_a_model_may_be_a_folder(tmp_path, form):
    save(affine(), tmp_path / form)
    assert [tensor.name for tensor in read(tmp_path / "model.onnx").inputs] == ["x"]


def test_a_folder_whose_file_is_elsewhere_is_refused(tmp_path):
    (tmp_path / "model.onnx").mkdir()
    (tmp_path / "model.onnx/model.onnx").symlink_to(save(affine(), tmp_path / "other.onnx"))
    assert refusal(tmp_path / "model.onnx").code == "PATH_REFUSED"


# -- weights in other files -------------------------------------------------------------------------------------------


def test_weights_beside_the_model_are_found(tmp_path):
    (tmp_path / "w.data").write_bytes(bytes(16))
    assert read(save(onnx_models.external("w.data"), tmp_path / "m.onnx")).backend == "onnxruntime"


def test_weights_that_are_not_there_are_named(tmp_path):
    error = refusal(save(onnx_models.external("w.data"), tmp_path / "m.onnx"))
    assert (error.code, error.what) == ("PATH_NOT_FOUND", "'m.onnx' keeps weights in 'w.data', which is not there")


@pytest.mark.parametrize("location", ["../secret", "/etc/passwd", "a/../../secret", "..\\secret", "link"])
def test_weights_outside_the_folder_are_refused(tmp_path, location):
    (tmp_path / "secret").write_bytes(bytes(16))
    path = save(onnx_models.external(location), tmp_path / "in" / "m.onnx")
    (path.parent / "link").symlink_to(tmp_path / "secret")
    error = refusal(path)
    assert (error.code, error.what) == (
        "PATH_REFUSED",
        f"'m.onnx' keeps weights in '{location}', which is outside its folder",
    )


# -- against the library ----------------------------------------------------------------------------------------------


def shipped() -> list[Path]:
    packages = Path(onnx.__file__).parent.parent
    return [*(packages / "onnx/backend/test/data").rglob("*.onnx"), *packages.glob("onnxruntime/datasets/*.onnx")]


def declared(values: Any) -> list[tuple[str, str, tuple[int, ...] | None]]:
    told = []
    for one_of in values:
        tensor = one_of.type.tensor_type
        dims = tuple(dim.dim_value if dim.HasField("dim_value") else -1 for dim in tensor.shape.dim)
        kind = f"tensor({onnx.TensorProto.DataType.Name(tensor.elem_type).lower()})"
        told.append((one_of.name, kind, dims if tensor.HasField("shape") else None))
    return told


@pytest.mark.parametrize("where", ["shipped", "real"])
def test_the_library_says_the_same(where):
    files = shipped()
    if where == "real":
        files = [real_models.path(name) for name in real_models.FILES if name.endswith(".onnx")]
    assert len(files) >= 6
    for path in files:
        loaded = onnx.load(str(path), load_external_data=False)
        if any(not told.type.HasField("tensor_type") for told in loaded.graph.output):
            assert refusal(path).code == "IO_UNSUPPORTED"
            continue
        weights = {weight.name for weight in loaded.graph.initializer}
        signature = read(path)
        for tensors, values in ((signature.inputs, loaded.graph.input), (signature.outputs, loaded.graph.output)):
            expected = [row for row in declared(values) if row[0] not in weights]
            assert [(tensor.name, tensor.type, tensor.dims) for tensor in tensors] == expected, path.name


# -- hostile files ----------------------------------------------------------------------------------------------------


class Counted:
    """Counts what is read of a file."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.bytes = self.reads = 0
        genuine = wire.Message._read

        def read_counted(message: Any, at: int, size: int) -> bytes:
            self.bytes += size
            self.reads += 1
            return genuine(message, at, size)

        monkeypatch.setattr(wire.Message, "_read", read_counted)


GOOD = affine().SerializeToString()


def test_every_cut_and_every_flipped_byte_is_read_or_refused(tmp_path):
    path = tmp_path / "m.onnx"
    for length in range(len(GOOD)):
        path.write_bytes(GOOD[:length])
        refusal(path)
    for at in range(len(GOOD)):
        path.write_bytes(bytes([*GOOD[:at], GOOD[at] ^ 0xFF, *GOOD[at + 1 :]]))
        try:
            assert read(path).backend == "onnxruntime"
        except UnservableFile as error:
            assert error.fix, at


def graph(*fields: bytes) -> bytes:
    """A model whose graph has these fields."""
    body = b"".join(fields)
    return b"\x08\x08\x42\x02\x10\x11\x3a" + varint(len(body)) + body


def nested(depth: int) -> bytes:
    data = b""
    for _ in range(depth):
        data = b"\x0a" + varint(len(data)) + data
    return data


HOSTILE = {
    "ten gigabytes claimed": (b"\x08\x08\x42\x02\x10\x11\x3a" + varint(10 << 30), "claims 10737418240 bytes of the 0"),
    "ten gigabytes of weights claimed": (graph(b"\x2a" + varint(10 << 30)), "claims 10737418240 bytes"),
    "a number without end": (graph(b"\xff" * 11), "does not end"),
    "no graph": (b"\x08\x08\x42\x02\x10\x11", "it holds no graph"),
    "no opset": (b"\x08\x08\x3a\x00", "it names no opset"),
    "a name that is no text": (graph(b"\x5a\x04\x0a\x02\xff\xfe"), "is not UTF-8"),
    "a graph that is a number": (b"\x08\x08\x42\x02\x10\x11\x38\x01", "expected 2"),
    "countless inputs": (graph(b"\x5a\x00" * 20_000), "more than 10000 inputs or outputs"),
    "countless dims": (graph(b"\x5a" + varint(208) + b"\x12" + varint(205) + b"\x0a" + varint(202) + b"\x12"
                             + varint(199) + b"\x0a\x00" * 99 + b"\x00"), "a shape of more than 64 dims"),
    "countless fields": (graph(b"\x2a\x80\x80\x20" + b"\x08\x01" * (1 << 18)), "too many fields"),
    "a group": (graph(b"\x5b"), "wire type 3"),
    "a location without a value": (graph(b"\x2a\x0d\x6a\x0b\x0a\x08location\x12"), "does not end"),
    "a location that is cut": (graph(b"\x2a\x0f\x6a\x0d\x0a\x08location\x12\x02a"), "claims 2 bytes of the 1 left"),
    "a location that is no text": (graph(b"\x2a\x0f\x6a\x0d\x0a\x08location\x12\x01\xff"), "is not UTF-8"),
}  # fmt: skip


@pytest.mark.parametrize(("data", "text"), HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_files_end_in_one_refusal(tmp_path, data, text):
    (tmp_path / "m.onnx").write_bytes(data)
    error = refusal(tmp_path / "m.onnx")
    assert (error.kind, error.code) == ("truncated", "TRUNCATED")
    assert text in error.what


def test_deep_nesting_is_not_followed(tmp_path):
    """Subgraphs of nodes are of no interest, so nothing recurses."""
    (tmp_path / "m.onnx").write_bytes(graph(b"\x0a" + varint(len(nested(3000))) + nested(3000)))
    assert refusal(tmp_path / "m.onnx").what == "'m.onnx' has a graph without an input, so there is nothing to ask it"


@pytest.mark.parametrize("number", [1, 2])
def test_each_location_of_a_weight_counts(tmp_path, number):
    """Of a plain weight, and of both parts of a sparse one: readers differ in which of two they take."""
    made = affine()
    weight = onnx.TensorProto(name="w", data_type=onnx.TensorProto.FLOAT, dims=[4], data_location=1)
    for place in ("m.onnx", "../secret"):
        weight.external_data.add(key="x" * 300, value="y")
        weight.external_data.add(key="location", value=place)
    sparse = made.graph.sparse_initializer.add()
    (sparse.values if number == 1 else sparse.indices).CopyFrom(weight)
    assert "'../secret', which is outside" in refusal(save(made, tmp_path / "m.onnx")).what
    made.graph.ClearField("sparse_initializer")
    made.graph.initializer.append(weight)
    assert "'../secret', which is outside" in refusal(save(made, tmp_path / "m.onnx")).what


def test_weights_are_not_read(tmp_path, monkeypatch):
    made = affine()
    made.graph.initializer.append(
        onnx.helper.make_tensor("big", onnx.TensorProto.FLOAT, [1 << 20], bytes(4 << 20), raw=True)
    )
    path = save(made, tmp_path / "m.onnx")
    counted = Counted(monkeypatch)
    read(path)
    assert counted.reads < 100 and counted.bytes < 1000


def test_a_file_of_ten_gigabytes_is_seeked_over(tmp_path, monkeypatch):
    raw = 10 << 30
    weight = b"\x42\x01w\x4a" + varint(raw)
    body = GOOD[GOOD.index(b"\x3a") :]
    head = b"\x2a" + varint(len(weight) + raw) + weight
    path = tmp_path / "m.onnx"
    with path.open("wb") as file:
        file.write(b"\x08\x08\x42\x02\x10\x11\x3a" + varint(len(head) + raw) + head)
        file.seek(raw, 1)
        file.write(body)
    counted = Counted(monkeypatch)
    assert [tensor.name for tensor in read(path).inputs] == ["x"]
    assert counted.bytes < 1000
