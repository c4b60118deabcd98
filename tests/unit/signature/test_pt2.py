"""Archives of torch.export: what is read of files that torch wrote, and of files that nobody should."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from naiad.errors import UnservableFile
from naiad.signature.model import Signature, TensorSignature
from naiad.signature.recognise import read

from .archives import zipped

LEAF: dict[str, Any] = {"type": None, "context": None, "children_spec": []}
SAMPLE = "this file contains one sample input: whoever gets the file can read it"


def node(kind: str, *children: dict, keys: list[str] | None = None) -> dict[str, Any]:
    context = json.dumps(keys) if keys is not None else "null"
    return {"type": kind, "context": context, "children_spec": list(children)}


def call(*arguments: dict, **keywords: dict) -> str:
    keys = list(keywords)
    parts = node("builtins.tuple", *arguments), node("builtins.dict", *keywords.values(), keys=keys)
    return json.dumps([1, node("builtins.tuple", *parts)])


def value(*sizes: int | str, dtype: int = 7) -> dict[str, Any]:
    """A tensor's value; a text is a symbol."""
    written = [
        {"as_int": size}
        if isinstance(size, int)
        else {"as_expr": {"expr_str": f"Symbol('{size}', integer=True)", "hint": {"as_int": 2}}}
        for size in sizes
    ]
    return {"dtype": dtype, "sizes": written}


def tensor(name: str) -> dict[str, Any]:
    return {"as_tensor": {"name": name}}


def program(**changes: Any) -> dict[str, Any]:
    """A program with one input `x` of [batch, 4] and one output of [batch, 2]."""
    given = {
        "values": {"x": value("s0", 4), "y": value("s0", 2)},
        "inputs": [{"user_input": {"arg": tensor("x")}}],
        "outputs": [{"user_output": {"arg": tensor("y")}}],
        "in_spec": call(LEAF),
        "out_spec": json.dumps([1, LEAF]),
        "names": ["x"],
        "ranges": {"s0": {"min_val": 1, "max_val": 16}},
    } | changes
    signature = {"in_spec": given["in_spec"], "out_spec": given["out_spec"], "forward_arg_names": given["names"]}
    return {
        "graph_module": {
            "graph": {"tensor_values": given["values"]},
            "signature": {"input_specs": given["inputs"], "output_specs": given["outputs"]},
            "module_call_graph": [{"fqn": "", "signature": signature}],
        },
        "range_constraints": given["ranges"],
    }


def archive(path: Path, document: Any, **members: bytes) -> Path:
    content = document if isinstance(document, bytes) else json.dumps(document).encode()
    return zipped(path, {"m/models/model.json": content, **{f"m/{name}": data for name, data in members.items()}})


def refusal(path: Path) -> UnservableFile:
    with pytest.raises(UnservableFile) as caught:
        read(path)
    return caught.value


# -- what a program says ----------------------------------------------------------------------------------------------


def test_a_program_tells_names_datatypes_dims_and_the_largest_batch(tmp_path):
    assert read(archive(tmp_path / "model.pt2", program())) == Signature(
        format="torch.export",
        backend="pytorch",
        inputs=(TensorSignature(name="x", type="Tensor", datatype="FP32", dims=(-1, 4), shape=(2, 4), path="ARGS[0]"),),
        outputs=(TensorSignature(name="OUTPUT__0", type="Tensor", datatype="FP32", dims=(-1, 2), shape=(2, 2)),),
        max_batch=16,
    )


@pytest.mark.parametrize(
    "ranges", [{}, {"s0": {"min_val": 0, "max_val": None}}, {"s0": {}}, {"s0": {"max_val": 1 << 40}}, {"s0": 3}]
)
def test_a_range_without_an_end_bounds_no_batch(tmp_path, ranges):
    assert read(archive(tmp_path / "model.pt2", program(ranges=ranges))).max_batch is None


def test_keywords_and_what_lies_deeper_have_names(tmp_path):
    box = node("builtins.tuple", LEAF, node("builtins.dict", LEAF, keys=["k"]))
    names = ["a", "b", "c", "d"]
    document = program(
        values={name: value(2) for name in [*names, "y"]},
        inputs=[{"user_input": {"arg": tensor(name)}} for name in names],
        in_spec=call(LEAF, box, mask=LEAF),
        names=["image", "boxes", "mask"],
        outputs=[{"user_output": {"arg": tensor("y")}}] * 3 + [{"user_output": {"arg": {"as_none": True}}}],
        out_spec=json.dumps([1, node("builtins.dict", LEAF, node("builtins.list", LEAF, LEAF, LEAF), keys=["p", "q"])]),
    )
    signature = read(archive(tmp_path / "model.pt2", document))
    assert [(t.name, t.path) for t in signature.inputs] == [
        ("image", "ARGS[0]"),
        ("ARGS[1][0]", "ARGS[1][0]"),
        ("ARGS[1][1][k]", "ARGS[1][1][k]"),
        ("mask", "KWARGS[mask]"),
    ]
    assert [t.name for t in signature.outputs] == ["p", "RESULT[q][0]", "RESULT[q][1]"]


def test_fixed_arguments_buffers_and_samples_are_told(tmp_path):
    document = program(
        inputs=[
            {"user_input": {"arg": tensor("x")}},
            {"constant_input": {"name": "k", "value": {"as_int": 3}}},
            {"constant_input": {"name": "n", "value": {"as_none": True}}},
        ],
        in_spec=call(LEAF, LEAF, LEAF),
        names=["x", "k", "n"],
        outputs=[{"buffer_mutation": {}}, {"user_output": {"arg": tensor("y")}}],
    )
    path = archive(tmp_path / "model.pt2", document, **{"data/sample_inputs/model.pt": b"x"})
    signature = read(path)
    assert [t.name for t in signature.inputs] == ["x"]
    assert signature.warnings == (
        "argument 'k' is fixed at 3",
        "the program changes its buffers: each instance keeps a state of its own",
        SAMPLE,
    )


def test_what_cannot_be_sent_is_refused_by_name(tmp_path):
    number = program(inputs=[{"user_input": {"arg": {"as_sym_int": {"as_name": "n"}}}}])
    assert "takes a sym_int that varies as argument 'x'" in refusal(archive(tmp_path / "a.pt2", number)).what
    odd = program(values={"x": value(2, dtype=10), "y": value(2)})
    error = refusal(archive(tmp_path / "b.pt2", odd))
    assert (error.code, "tensor 'x' has torch's type number 10" in error.what) == ("IO_UNSUPPORTED", True)


def test_a_program_of_another_name_is_refused(tmp_path):
    path = zipped(tmp_path / "model.pt2", {"m/models/encoder.json": b"{}", "m/models/decoder.json": b"{}"})
    assert refusal(path).what == "'model.pt2' holds 'decoder', 'encoder'; expected a program called 'model'"


# -- what torch writes ------------------------------------------------------------------------------------------------


class Tagger:
    """Made where torch is there: token ids and a mask, two results and a number."""

    @staticmethod
    def make(torch: Any) -> Any:
        class Net(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.embedding = torch.nn.Embedding(50, 4)

            def forward(self, ids, scale=2, *, mask=None):
                hidden = self.embedding(ids) * scale
                return {"hidden": hidden, "pooled": (hidden * mask.unsqueeze(-1).float()).sum(1)}

        return Net().eval()


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'naiad[torch]'")
    batch, length = torch.export.Dim("batch", min=1, max=64), torch.export.Dim("length", min=2, max=128)
    ids, mask = torch.zeros(2, 6, dtype=torch.int64), torch.ones(2, 6, dtype=torch.bool)
    moves = {0: batch, 1: length}
    program = torch.export.export(
        Tagger.make(torch), (ids, 3), {"mask": mask}, dynamic_shapes={"ids": moves, "scale": None, "mask": moves}
    )
    path = tmp_path_factory.mktemp("exported") / "model.pt2"
    torch.export.save(program, path)
    return path


def test_a_program_that_torch_wrote(exported):
    assert read(exported) == Signature(
        format="torch.export",
        backend="pytorch",
        inputs=(
            TensorSignature(name="ids", type="Tensor", datatype="INT64", dims=(-1, -1), shape=(2, 6), path="ARGS[0]"),
            TensorSignature(
                name="mask", type="Tensor", datatype="BOOL", dims=(-1, -1), shape=(2, 6), path="KWARGS[mask]"
            ),
        ),
        outputs=(
            TensorSignature(name="hidden", type="Tensor", datatype="FP32", dims=(-1, -1, 4), shape=(2, 6, 4)),
            TensorSignature(name="pooled", type="Tensor", datatype="FP32", dims=(-1, 4), shape=(2, 4)),
        ),
        max_batch=64,
        warnings=("argument 'scale' is fixed at 3", SAMPLE),
    )


def test_a_name_of_any_kind_does_for_the_file(exported, tmp_path):
    path = tmp_path / "weights.bin"
    path.write_bytes(exported.read_bytes())
    assert read(path).format == "torch.export"


# -- packages of AOTInductor ------------------------------------------------------------------------------------------

LIBRARY = "m/data/aotinductor/model/a.wrapper.so"
METADATA = "m/data/aotinductor/model/a.wrapper_metadata.json"
SOURCE = "m/data/aotinductor/model/a.wrapper.cpp"
CODE = """
    inputs_info_[0].name = "arg0_1";
    in_spec_ = R"(SPEC)";
    int32_t arg0_1_expected_dtype = aoti_torch_dtype_int64();
    if (arg0_1_size[0] > 64) {
    if (check()) { assert_size_stride(arg0_1, {s77, 4L}, {4L, 1L}, "input"); }
"""
TOLD = {"naiad.inputs": json.dumps([{"name": "x", "datatype": "FP32", "dims": [-1, 4]}]), "naiad.max_batch": "8"}


def package(path: Path, **members: Any) -> Path:
    content = {LIBRARY: b"\x7fELF"}
    for name, given in members.items():
        member = {"metadata": METADATA, "source": SOURCE, "program": "m/models/model.json"}[name]
        content[member] = given.encode() if isinstance(given, str) else json.dumps(given).encode()
    return zipped(path, content)


def test_a_package_tells_what_its_packer_wrote(tmp_path):
    about = {"AOTI_DEVICE_KEY": "cpu", "AOTI_CPU_ISA": "AVX2"}
    signature = read(package(tmp_path / "m.pt2", metadata={**TOLD, **about, "other": 3}))
    assert (signature.format, signature.max_batch, signature.warnings) == ("AOTInductor (cpu, AVX2)", 8, ())
    assert signature.inputs == (TensorSignature(name="x", type="Tensor", datatype="FP32", dims=(-1, 4)),)


def test_a_package_tells_what_its_source_checks(tmp_path):
    signature = read(package(tmp_path / "m.pt2", source=CODE.replace("SPEC", call(LEAF))))
    assert signature.inputs == (
        TensorSignature(name="INPUT__0", type="Tensor", datatype="INT64", dims=(-1, 4), path="ARGS[0]"),
    )
    assert signature.max_batch == 64


def test_the_exported_program_in_a_package_says_more(tmp_path):
    signature = read(package(tmp_path / "m.pt2", program=program(), metadata=TOLD))
    assert (signature.format, signature.max_batch) == ("AOTInductor", 16)
    assert [t.name for t in signature.inputs] == ["x"]


def test_the_source_bounds_the_batch_whatever_else_is_told(tmp_path):
    source = CODE.replace("SPEC", call(LEAF)).replace("> 64", "> 5")
    assert read(package(tmp_path / "a.pt2", program=program(), source=source)).max_batch == 5
    assert read(package(tmp_path / "b.pt2", metadata=TOLD, source=source)).max_batch == 5
    assert read(package(tmp_path / "c.pt2", metadata=TOLD, source=source.replace("> 5", "> 50"))).max_batch == 8


@pytest.mark.parametrize(
    "members",
    [
        {},
        {"metadata": "not json"},
        {"metadata": "[" * 100_000},
        {"metadata": {"naiad.inputs": "[1]"}},
        {"metadata": {"naiad.inputs": json.dumps([{"name": "x", "datatype": "FP3", "dims": [1]}])}},
        {"metadata": {"naiad.inputs": json.dumps([{"name": "x", "datatype": "FP32", "dims": ["1"]}])}},
        {"source": CODE.replace("SPEC", call(LEAF, LEAF))},
        {"source": CODE.replace("SPEC", "[1, 2]")},
        {"source": CODE.replace("int64", "complex64").replace("SPEC", call(LEAF))},
        {"source": CODE.replace("assert_size_stride", "other").replace("SPEC", call(LEAF))},
    ],
)
def test_a_package_that_tells_nothing_says_so(tmp_path, members):
    signature = read(package(tmp_path / "m.pt2", **members))
    assert signature.inputs == ()
    assert "the package does not tell its inputs" in signature.warnings[-1]


# -- hostile files ----------------------------------------------------------------------------------------------------

DEEP = LEAF
for _ in range(60):
    DEEP = node("builtins.tuple", DEEP)

BROKEN = {
    "no json": b"{",
    "no text": b"\xff\xfe\x00",
    "another kind": [],
    "nothing in it": {},
    "brackets without end": b"[" * 900_000,
    "values of another kind": program(values=[]),
    "a tensor that is not there": program(values={}),
    "sizes of another kind": program(values={"x": {"dtype": 7, "sizes": 3}, "y": value(2)}),
    "a negative dim": program(values={"x": value(-5), "y": value(2)}),
    "a dim of 10 GB": program(values={"x": value(10 << 40), "y": value(2)}),
    "a dim that is true": program(values={"x": {"dtype": 7, "sizes": [{"as_int": True}]}, "y": value(2)}),
    "too many dims": program(values={"x": value(*[1] * 65), "y": value(2)}),
    "a dtype of another kind": program(values={"x": {"dtype": "7", "sizes": []}, "y": value(2)}),
    "more places than inputs": program(in_spec=call(LEAF, LEAF)),
    "a call that is none": program(in_spec="[1, 2]"),
    "a call of another version": program(in_spec=json.dumps([2, LEAF])),
    "a call with a wrong node": program(in_spec=json.dumps([1, {"type": None}])),
    "a call that is nested too deeply": program(in_spec=call(DEEP)),
    "a call that is not read to its end": program(in_spec="[" * 100_000),
    "no object for an argument": program(inputs=[{"user_input": {"arg": 3}}]),
}


@pytest.mark.parametrize("document", BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_program_is_refused(tmp_path, document):
    error = refusal(archive(tmp_path / "model.pt2", document))
    assert (error.code, error.what.startswith("'model.pt2' is a damaged zip archive: ")) == ("TRUNCATED", True)


def test_a_program_of_too_many_values_is_refused_before_they_take_memory(tmp_path):
    document = program(inputs=[{"user_input": {"arg": {"as_tensor": {"name": "x"}}}}, *[[]] * 110_000])
    assert "values at offset" in refusal(archive(tmp_path / "model.pt2", document)).what


def test_a_program_is_read_without_its_nodes(tmp_path):
    """Whatever their graphs call their tensors, and however many there are."""
    inner = {"graph": {"tensor_values": {"x": value(9), "input_specs": value(1)}, "inputs": [[]] * 500_000}}
    document = program()
    graph = document["graph_module"]["graph"]
    document["graph_module"]["graph"] = {"nodes": [inner, {"doc": '"input_specs": ['}], **graph}
    archive(tmp_path / "plain.pt2", program())
    archive(tmp_path / "large.pt2", document)
    assert read(tmp_path / "large.pt2") == read(tmp_path / "plain.pt2")


@pytest.mark.parametrize("name", ["tensor_values", "input_specs", "module_call_graph", "dtype", "naïve"])
def test_a_tensor_may_be_called_like_a_part_of_the_program(tmp_path, name):
    document = program(values={name: value(2, 3), "y": value(2)}, inputs=[{"user_input": {"arg": tensor(name)}}])
    signature = read(archive(tmp_path / "model.pt2", document))
    assert [tensor.dims for tensor in signature.inputs] == [(2, 3)]


def test_a_program_that_unpacks_to_more_than_is_read_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "model.pt2", "w", zipfile.ZIP_DEFLATED) as target:
        with target.open("m/models/model.json", "w") as member:
            for _ in range(17):
                member.write(b" " * (1 << 20))
    assert "damaged or larger than" in refusal(tmp_path / "model.pt2").what


def test_every_cut_and_every_flipped_byte_is_read_or_refused(tmp_path):
    good = archive(tmp_path / "good.pt2", program()).read_bytes()
    path = tmp_path / "model.pt2"
    for length in range(0, len(good), 13):
        path.write_bytes(good[:length])
        refusal(path)
    for at in range(0, len(good), 3):
        data = bytearray(good)
        data[at] ^= 0xFF
        path.write_bytes(data)
        try:
            read(path)
        except UnservableFile:
            pass
