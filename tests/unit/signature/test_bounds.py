"""What a file may cost: every reader has a limit of its own, and large real files are below it."""

from __future__ import annotations

import json
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

from naiad.errors import UnservableFile
from naiad.signature import aotinductor
from naiad.signature.archive import MAX_MEMBERS, Archive, BadArchive
from naiad.signature.recognise import read
from tests.support.wire_bytes import block

from . import archives
from .archives import zipped

LIMIT = 50 << 20
"""Bytes of memory that reading any file may take."""
ARGUMENT = b'{"user_input": {"arg": {"as_tensor": {"name": "x"}}}}'
AOTI = "m/data/aotinductor/model/a"


def onnx_file(*fields: bytes) -> Callable[[Path], Path]:
    return file("m.onnx", b"\x08\x08\x42\x02\x10\x11" + block(7, b"".join(fields)))


def file(name: str, data: bytes) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path if name.count("/") == 0 else path.parent

    return write


def packed(name: str, member: str, data: bytes) -> Callable[[Path], Path]:
    return lambda folder: zipped(folder / name, {member: data}, method=zipfile.ZIP_DEFLATED)


def program(specs: bytes = ARGUMENT, *, nodes: bytes = b"", ranges: bytes = b"{}") -> Callable[[Path], Path]:
    text = (
        b'{"graph_module": {"graph": {"nodes": [' + nodes + b'], "tensor_values": {"x": {"dtype": 7, "sizes": []}}}, '
    )
    text += b'"signature": {"input_specs": [' + specs + b'], "output_specs": []}, "module_call_graph": []}, '
    return packed("m.pt2", "m/models/model.json", text + b'"range_constraints": ' + ranges + b"}")


def keras(config: bytes) -> Callable[[Path], Path]:
    return lambda folder: zipped(
        folder / "m.keras", {"config.json": config, "metadata.json": b"{}", "model.weights.h5": b""}
    )


def skops(schema: bytes) -> Callable[[Path], Path]:
    return lambda folder: zipped(folder / "m.skops", {"schema.json": schema}, method=zipfile.ZIP_DEFLATED)


def torchscript(**changes: bytes) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        content = archives.members() | {f"net/{name}": data for name, data in changes.items()}
        return zipped(folder / "m.pt", content, method=zipfile.ZIP_DEFLATED)

    return write


def compiled(source: bytes, metadata: bytes = b"{}") -> Callable[[Path], Path]:
    content = {f"{AOTI}.so": b"x", f"{AOTI}.wrapper.cpp": source, f"{AOTI}_wrapper_metadata.json": metadata}
    return lambda folder: zipped(folder / "m.pt2", content, method=zipfile.ZIP_DEFLATED)


def crowd(count: int, name: str = "m/{}") -> Callable[[Path], Path]:
    return lambda folder: zipped(folder / "m.pt", {name.format(at): b"" for at in range(count)})


HOSTILE: dict[str, Callable[[], Callable[[Path], Path]]] = {
    "onnx: tiny fields": lambda: onnx_file(b"\x08\x01" * 200_000),
    "onnx: tiny weights": lambda: onnx_file(b"\x2a\x00" * 200_000),
    "onnx: named weights": lambda: onnx_file(*(block(5, block(8, b"w%d" % at)) for at in range(50_000))),
    "onnx: long names": lambda: onnx_file(*(block(5, block(8, b"%05d" % at + b"w" * 65_000)) for at in range(1_500))),
    "savedmodel: tiny fields": lambda: file("m/saved_model.pb", b"\x08\x01" * 200_000),
    "savedmodel: graphs": lambda: file("m/saved_model.pb", b"\x12\x00" * 200_000),
    "savedmodel: long tags": lambda: file(
        "m/saved_model.pb", block(2, block(1, b"".join(block(4, b"%05d" % at + b"t" * 65_000) for at in range(1_500))))
    ),
    "pt2: lists for nodes": lambda: program(nodes=b"[]," * 5_000_000),
    "pt2: keys for nodes": lambda: program(nodes=b'": {"dtype": ' * 1_000_000),
    "pt2: lists for inputs": lambda: program(specs=b"[" + b"[]," * 600_000 + b"[]]"),
    "pt2: inputs": lambda: program(specs=b", ".join([ARGUMENT] * 30_000)),
    "pt2: numbers for symbols": lambda: program(ranges=b"{" + b'"s": 1.5,' * 200_000 + b'"s": 1}'),
    "keras: lists": lambda: keras(b'{"config":{"a":[' + b"[]," * 1_300_000 + b"[]]}}"),
    "keras: layers": lambda: keras(
        b'{"config":{"layers":[' + b'{"class_name":"InputLayer","config":{}},' * 100_000 + b"{}]}}"
    ),
    "skops: lists": lambda: skops(b"[" + b"[]," * 1_300_000 + b"[]]"),
    "skops: numbers": lambda: skops(b'{"content":[' + b'{"__loader__":"JsonNode","content":"1"},' * 100_000 + b"{}]}"),
    "torchscript: a pickle of 60 MB": lambda: torchscript(**{"data.pkl": b"\x80\x02" + b"N" * (60 << 20)}),
    "torchscript: arguments": lambda: torchscript(
        **{"code/__torch__.py": b"class Net(Module):\n  def forward(self, " + b"a: T, " * 600_000 + b") -> T:\n"}
    ),
    "torchscript: values in the record": lambda: torchscript(**{"traced_inputs.pkl": b"\x80\x02N" + b"\x85" * 900_000}),
    "weights: a pickle of 60 MB": lambda: packed("m.pt", "net/data.pkl", b"\x80\x02" + b"N" * (60 << 20)),
    "aotinductor: source": lambda: compiled(b"assert_size_stride(a, {" * 130_000),
    "aotinductor: metadata": lambda: compiled(b"", b'{"a":[' + b"[]," * 300_000 + b"[]]}"),
    "zip: members": lambda: crowd(MAX_MEMBERS + 10),
    "zip: long names": lambda: crowd(500, "m/{}" + "x" * 60_000),
    "zip: folders": lambda: crowd(5_000, "{}/a"),
    "python: statements": lambda: file("model.py", b"class TritonPythonModel: pass\n" + b"a=1;" * 30_000),
    "python: fields": lambda: file("model.py", b"class TritonPythonModel: pass\na=f'" + b"{a}" * 40_000 + b"'\n"),
    "class: elements": lambda: file("model.py", b"class Net(Module): pass\nx=[" + b"a," * 500_000 + b"]\n"),
    "hugging face: lists": lambda: file("m/config.json", b'{"a":[' + b"[]," * 1_300_000 + b"[]]}"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_no_file_takes_more_memory_than_a_reader_may(tmp_path, case):
    path = HOSTILE[case]()(tmp_path)
    tracemalloc.start()
    try:
        read(path)
    except UnservableFile as error:
        assert error.code
    finally:
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert most < LIMIT


@pytest.mark.timeout(30)
def test_the_checks_of_a_thousand_inputs_are_looked_for_in_one_pass(tmp_path):
    count = aotinductor.MAX_INPUTS
    leaf = {"type": None, "context": None, "children_spec": []}
    parts = [
        {"type": "builtins.tuple", "context": "null", "children_spec": [leaf] * count},
        {"type": "builtins.dict", "context": "[]", "children_spec": []},
    ]
    spec = json.dumps([1, {"type": "builtins.tuple", "context": "null", "children_spec": parts}])
    lines = [f'inputs_info_[{at}].name = "arg{at}_1";' for at in range(count)]
    lines += [f'in_spec_ = R"({spec})";', " " * (2 << 20)]
    for at in range(count):
        lines += [f"int32_t arg{at}_1_expected_dtype = aoti_torch_dtype_float32();"]
        lines += [f"assert_size_stride(arg{at}_1, {{s7, {at + 1}L}}, {{1L, 1L}});", f"if (arg{at}_1_size[0] > 9)"]
    signature = read(compiled("\n".join(lines).encode())(tmp_path))
    assert [tensor.dims for tensor in signature.inputs] == [(-1, at + 1) for at in range(count)]
    assert signature.max_batch == 9


# -- large files that are whole ---------------------------------------------------------------------------------------


def test_an_onnx_file_of_60000_nodes_is_read(tmp_path):
    """With a described value for each, and 2,000 weights in a file beside it."""
    helper, made = onnx.helper, onnx.GraphProto(name="large")
    for at in range(60_000):
        name = f"/model/layers.{at // 200}/self_attn/q_proj/MatMul_{at}"
        made.node.add(op_type="Relu", name=name, input=[f"{name}_in"], output=[f"{name}_output_0"])
        made.value_info.append(helper.make_tensor_value_info(f"{name}_output_0", 1, ["batch", "sequence", 4096]))
    for at in range(2_000):
        weight = made.initializer.add(name=f"model.layers.{at}.weight", data_type=1, dims=[4096, 4096], data_location=1)
        for key, value in (("location", "m.bin"), ("offset", str(at << 26)), ("length", str(1 << 26))):
            weight.external_data.add(key=key, value=value)
    made.input.append(helper.make_tensor_value_info("x", 1, ["batch", 4]))
    made.output.append(helper.make_tensor_value_info("y", 1, ["batch", 2]))
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)])
    (tmp_path / "m.bin").touch()
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    assert [tensor.dims for tensor in read(tmp_path / "m.onnx").inputs] == [(-1, 4)]


def test_a_program_of_ten_thousand_nodes_is_read(tmp_path):
    node = json.dumps({"target": "torch.ops.aten.add.Tensor", "inputs": [{"name": "self", "arg": {}}] * 8}).encode()
    values = b'"v": {"dtype": 7, "sizes": [{"as_int": 1}, {"as_int": 4096}], "layout": 7}'
    nodes = b", ".join([b'{"graph": {"tensor_values": {' + values + b"}, " + node[1:] + b"}"] * 10_000)
    assert [tensor.name for tensor in read(program(nodes=nodes)(tmp_path)).inputs] == ["x"]


# -- zip archives -----------------------------------------------------------------------------------------------------


def test_an_archive_is_read_as_python_reads_it(tmp_path):
    content = {"a": b"", "b/c.txt": b"text" * 1000, "naïve.txt": b"x", "big": bytes(3 << 20)}
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        path = zipped(tmp_path / "m.zip", content, method=method)
        with path.open("rb") as source:
            archive = Archive(source)
            assert archive.names == list(content)
            assert {name: archive.read(name, 4 << 20) for name in archive.names} == content
            assert archive.read("big", (3 << 20) - 1) is None
            assert archive.head("b/c.txt", 5) == b"textt"
            assert archive.read("gone", 9) is None


def test_an_archive_with_something_before_and_after_it_is_read(tmp_path):
    path = zipped(tmp_path / "m.zip", {"a": b"1" * 99})
    with zipfile.ZipFile(path, "a") as changed:
        changed.comment = b"a comment PK\5\6"
    path.write_bytes(b"before it" + path.read_bytes())
    with path.open("rb") as source:
        assert Archive(source).read("a", 100) == b"1" * 99


def test_an_archive_of_the_wide_form_is_read(tmp_path):
    path = tmp_path / "m.zip"
    with zipfile.ZipFile(path, "w") as made:
        with made.open("a", "w", force_zip64=True) as member:
            member.write(b"1" * 99)
        made.filelist[0].header_offset = 0
    data = bytearray(path.read_bytes())
    begin = data.index(b"PK\1\2")
    # The directory says all three numbers in the extra field, as it does from 4 GB on.
    name = 1
    entry, end = data[begin : begin + 46 + name], data.index(b"PK\5\6")
    entry[20:28], entry[42:46] = b"\xff" * 8, b"\xff" * 4
    entry[30:32] = struct.pack("<H", 28)
    entry += struct.pack("<HHQQQ", 1, 24, 99, 99, 0)
    tail = struct.pack("<4sQHHLLQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, 1, 1, len(entry), begin)
    tail += struct.pack("<4sLQL", b"PK\6\7", 0, begin + len(entry), 1)
    last = bytearray(data[end:])
    last[12:20] = b"\xff" * 8
    path.write_bytes(bytes(data[:begin] + entry + tail + last))
    with zipfile.ZipFile(path) as python:
        assert python.read("a") == b"1" * 99
    with path.open("rb") as source:
        assert Archive(source).read("a", 100) == b"1" * 99


def test_a_member_that_is_damaged_is_none(tmp_path):
    path = zipped(tmp_path / "m.zip", {"a": b"1" * 99, "b": b"2"})
    data = path.read_bytes()
    path.write_bytes(data.replace(b"1" * 99, b"1" * 98 + b"3"))
    with path.open("rb") as source:
        archive = Archive(source)
        assert (archive.read("a", 100), archive.read("b", 100)) == (None, b"2")


def test_a_directory_that_is_none_is_refused(tmp_path):
    data = zipped(tmp_path / "m.zip", {"a": b"1"}).read_bytes()
    (tmp_path / "m.zip").write_bytes(data.replace(b"PK\1\2", b"PK\1\3"))
    with (tmp_path / "m.zip").open("rb") as source, pytest.raises(BadArchive, match="its directory is damaged"):
        Archive(source)
