"""What a file is: its signature, or one refusal that names the file, the cause and the fix."""

from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path

import pytest

from naiad.errors import UnservableFile
from naiad.signature.model import Signature, TensorSignature, output_names
from naiad.signature.recognise import read

from .archives import CODE, members, module_pickle, record, tensor, zipped

TRACE = record(tensor("torch.FloatStorage", (1, 3, 8, 8)), tensor("torch.BoolStorage", (1, 8)))


def test_a_traced_archive_tells_names_types_shapes_and_outputs(tmp_path):
    path = zipped(tmp_path / "model.pt", members(traced=TRACE))
    assert read(path) == Signature(
        format="TorchScript (traced)",
        backend="pytorch",
        inputs=(
            TensorSignature(name="image", type="Tensor", datatype="FP32", shape=(1, 3, 8, 8)),
            TensorSignature(name="mask", type="Optional[Tensor]", datatype="BOOL", shape=(1, 8), optional=True),
        ),
        output_type="Tuple[Tensor, Tensor]",
    )


def test_a_scripted_archive_tells_names_and_types(tmp_path):
    signature = read(zipped(tmp_path / "model.pt", members()))
    assert signature.format == "TorchScript (scripted, or traced without its inputs)"
    assert [(t.name, t.type, t.datatype, t.shape) for t in signature.inputs] == [
        ("image", "Tensor", None, None),
        ("mask", "Optional[Tensor]", None, None),
    ]
    assert not signature.complete


def test_the_first_argument_is_skipped_by_position(tmp_path):
    code = CODE.replace("self: __torch__.Net", "image: __torch__.Net").replace("    image: Tensor", "    self: Tensor")
    signature = read(zipped(tmp_path / "model.pt", members(code=code, traced=TRACE)))
    assert [t.name for t in signature.inputs] == ["self", "mask"]


def test_an_unreadable_record_is_a_warning_and_nothing_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    hostile = b"\x80\x02cos\nsystem\n(X\x0c\x00\x00\x00touch canarytR."
    signature = read(zipped(tmp_path / "model.pt", members(traced=hostile)))
    assert signature.warnings == ("the record of the traced inputs is not readable: a call of 'os.system'",)
    assert not signature.complete
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize(
    ("content", "warning"),
    [
        ({"net/data.pkl": b"\x80\x02}."}, "the archive does not say which class it holds"),
        ({"net/data.pkl": module_pickle("__torch__.gone.Net")}, "the code of '__torch__.gone.Net' is missing"),
        ({"net/code/__torch__.py": b"class Net(Module):\n  pass\n"}, "'__torch__.Net' has no forward()"),
        ({"net/code/__torch__.py": b"class Other(Module):\n" + CODE[18:].encode()}, "'__torch__.Net' has no forward()"),
        ({"net/code/__torch__.py": b"\xff\xfe\x00"}, "'__torch__.Net' has no forward()"),
    ],
)
def test_what_the_code_does_not_tell_is_a_warning(tmp_path, content, warning):
    signature = read(zipped(tmp_path / "model.pt", members() | content))
    assert (signature.inputs, signature.warnings) == ((), (warning,))


def raw(data: bytes) -> dict[str, bytes]:
    return {"": data}


def zip_bytes(content: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for member, data in content.items():
            archive.writestr(member, data)
    return buffer.getvalue()


GOOD = zip_bytes(members(traced=TRACE))
STATE_DICT = zip_bytes({"m/data.pkl": b"\x80\x02ccollections\nOrderedDict\n)R.", "m/data/0": b"1234"})
MODULE = zip_bytes({"m/data.pkl": b"\x80\x02ctorch.nn.modules.linear\nLinear\n)\x81.", "m/data/0": b"1234"})
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 4\n"

NO_CODE = "without the model's code"
KNOWN = "formats that Naiad knows"
UNKNOWN = "UNKNOWN_FORMAT"
PICKLE = "is a pickle, which could run any code when it is opened"
# name, content, kind, code, what
REFUSED = {
    "state dict": (
        "model.pt", STATE_DICT, "state-dict", "WEIGHTS_ONLY", f"holds weights only (a state dict), {NO_CODE}"),
    "pickled module": ("model.pt", MODULE, "state-dict", "UNSAFE_PICKLE", f"holds a pickled module, {NO_CODE}"),
    "old pickle": ("model.pt", b"\x80\x02\x8a\nl\xfc", "pickle", "UNSAFE_PICKLE", PICKLE),
    "joblib": ("model.pkl", b"\x80\x04\x95", "pickle", "UNSAFE_PICKLE", PICKLE),
    "pointer": ("model.pt", LFS, "lfs-pointer", "LFS_POINTER", "is a Git LFS pointer, not the file itself"),
    "empty": ("model.pt", b"", "empty", "EMPTY_FILE", "is empty"),
    "page": ("model.pt", b"\n<!DOCTYPE html><html>", "html", "NOT_A_MODEL", "is a web page, not a model"),
    "truncated": ("model.pt", GOOD[:400], "truncated", "TRUNCATED", "is a zip archive that breaks off (400 bytes)"),
    "text": (
        "model.pt", b"hello world", "unknown", UNKNOWN, f"is none of the {KNOWN} (it starts with b'hello wo')"),
    "plain zip": (
        "model.pt", zip_bytes({"a/b.txt": b"x"}), "unknown", UNKNOWN, "is a zip archive but no model"),
    "empty zip": ("model.pt", zip_bytes({}), "unknown", UNKNOWN, "is a zip archive but no model"),
}  # fmt: skip


@pytest.mark.parametrize(("name", "data", "kind", "code", "what"), REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_be_served_is_named_with_a_fix(tmp_path, name, data, kind, code, what):
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(UnservableFile) as caught:
        read(path)
    error = caught.value
    assert (error.kind, error.code, error.what) == (kind, code, f"'{name}' {what}")
    assert error.fix


def test_a_state_dict_is_told_how_to_export(tmp_path):
    path = tmp_path / "model.pt"
    path.write_bytes(STATE_DICT)
    with pytest.raises(UnservableFile, match=r"torch\.export\.save\(program, "):
        read(path)


def test_a_missing_file_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "none.pt")


# -- hostile archives -------------------------------------------------------------------------------------------------


def test_a_bomb_is_not_unpacked(tmp_path):
    bomb = bytes(64 << 20)
    content = members(traced=TRACE) | {"net/code/__torch__.py": bomb, "net/traced_inputs.pkl": bomb}
    path = zipped(tmp_path / "model.pt", content, method=zipfile.ZIP_DEFLATED)
    signature = read(path)
    assert signature.inputs == ()
    assert signature.warnings[0] == "the code of '__torch__.Net' is missing"


def test_a_directory_that_claims_many_members_is_refused(tmp_path):
    path = zipped(tmp_path / "model.pt", members())
    data = bytearray(path.read_bytes())
    end = data.rindex(b"PK\x05\x06")
    data[end + 8 : end + 12] = struct.pack("<HH", 65535, 65535)
    path.write_bytes(data)
    assert isinstance(_read_or_refuse(path), Signature | UnservableFile)


@pytest.mark.parametrize("member", ["/etc/passwd", "../../etc/passwd", "net/../../x", "c:\\x", "net/\x00x"])
def test_names_that_lead_out_are_never_followed(tmp_path, member):
    path = zipped(tmp_path / "model.pt", members() | {member: b"x"})
    assert read(path).format.startswith("TorchScript")
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.pt"]


def test_every_cut_and_every_flipped_byte_is_read_or_refused(tmp_path):
    path = tmp_path / "model.pt"
    for length in range(0, len(GOOD), 7):
        path.write_bytes(GOOD[:length])
        assert isinstance(_read_or_refuse(path), UnservableFile)
    for at in range(len(GOOD)):
        data = bytearray(GOOD)
        data[at] ^= 0xFF
        path.write_bytes(data)
        assert isinstance(_read_or_refuse(path), Signature | UnservableFile), at


def _read_or_refuse(path: Path) -> Signature | UnservableFile:
    try:
        return read(path)
    except UnservableFile as error:
        return error


# -- code that takes long to match ------------------------------------------------------------------------------------


@pytest.mark.timeout(10)
@pytest.mark.parametrize(
    "piece", ["\n  def forward(", "\n  def forward(self) -> ", "\n  def forward(self) -> T", "[" * 9]
)
def test_code_of_any_shape_is_matched_in_linear_time(tmp_path, piece):
    code = "class Net(Module):" + piece * ((4 << 20) // len(piece) - 9)
    signature = read(zipped(tmp_path / "model.pt", members(code=code), method=zipfile.ZIP_DEFLATED))
    assert signature.inputs == ()


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("Tensor", ("OUTPUT__0",)),
        ("Tuple[Tensor, Tensor]", ("OUTPUT__0", "OUTPUT__1")),
        ("Tuple[Tensor, List[Tensor]]", ()),
        ("Dict[str, Tensor]", ()),
        ("", ()),
    ],
)
def test_outputs_are_named_where_their_type_tells_their_number(kind, names):
    signature = Signature(format="", backend="pytorch", inputs=(), output_type=kind)
    assert output_names(signature) == names
