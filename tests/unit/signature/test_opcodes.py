"""The restricted reader: plain values for a fixed list of names, everything else is not readable (D5)."""

from __future__ import annotations

import os
import random
import sys

import pytest

from naiad.signature.opcodes import NotReadable, Tensor, first_global, read

from .archives import name, number, record, tensor, text


@pytest.mark.parametrize(
    ("storage", "datatype"),
    [
        ("torch.FloatStorage", "FP32"), ("torch.LongStorage", "INT64"), ("torch.BoolStorage", "BOOL"),
        ("torch.HalfStorage", "FP16"), ("torch.BFloat16Storage", "BF16"), ("torch.ByteStorage", "UINT8"),
        ("torch.CharStorage", "INT8"), ("torch.ShortStorage", "INT16"), ("torch.IntStorage", "INT32"),
        ("torch.DoubleStorage", "FP64"),
    ],
)  # fmt: skip
def test_a_tensor_is_its_datatype_and_shape(storage, datatype):
    assert read(record(tensor(storage, (2, 3)))) == {"forward": [Tensor(datatype, (2, 3))]}


def test_a_scalar_tensor_has_no_dims():
    assert read(record(tensor("torch.FloatStorage", ()))) == {"forward": [Tensor("FP32", ())]}


def call(module: str, attribute: str, *arguments: bytes) -> bytes:
    return b"\x80\x02" + name(module, attribute) + b"(" + b"".join(arguments) + b"tR."


HOSTILE = {
    "os.system": (call("os", "system", text("touch canary")), "a call of 'os.system'"),
    "posix": (call("posix", "system", text("touch canary")), "a call of 'posix.system'"),
    "eval": (call("builtins", "eval", text("open('canary', 'w')")), "a call of 'builtins.eval'"),
    "torch.load": (call("torch", "load", text("x")), "a call of 'torch.load'"),
    "a name that ends alike": (
        call("evil", "restore_type_tag", text("x")), "a call of 'evil.restore_type_tag'"
    ),
    "getattr": (call("builtins", "getattr", name("os", "environ"), text("x")), "a call of 'builtins.getattr'"),
    "quantised storage": (
        record(tensor("torch.QInt8Storage", (1,))), "a tensor of 'QInt8Storage'"
    ),
    "another rebuild": (
        record(tensor("torch.FloatStorage", (1,), rebuild="torch._utils._rebuild_sparse_tensor")),
        "a call of 'torch._utils._rebuild_sparse_tensor'",
    ),
    "an instance": (b"\x80\x02" + name("os", "environ") + b")\x81.", "opcode NEWOBJ"),
    "build of a name": (b"\x80\x02" + name("os", "system") + b"}b.", "expected a dict on the stack"),
    "old instance": (b"(ios\nsystem\n.", "opcode INST"),
    "stack global": (b"\x80\x04" + b"\x8c\x02os\x8c\x06system\x93.", "opcode STACK_GLOBAL"),
    "extension": (b"\x80\x02\x82\x01.", "opcode EXT1"),
    "no end": (b"\x80\x02}", "it ends before STOP"),
    "empty": (b"", "it ends before STOP"),
    "empty stack": (b"\x80\x02.", "an empty stack"),
    "no mark": (b"\x80\x02)t.", "an empty stack"),
    "unhashable key": (b"\x80\x02}]]s.", "a key that is neither text nor a number"),
    "set on a list": (b"\x80\x02]" + text("a") + number(1) + b"s.", "expected a dict on the stack"),
    "append to a number": (b"\x80\x02" + number(1) + number(1) + b"a.", "expected a list on the stack"),
    "call of a value": (b"\x80\x02" + number(1) + b")R.", "a call of something that is no name"),
    "text shape": (
        b"\x80\x02" + name("torch._utils", "_rebuild_tensor_v2")
        + b"((" + text("storage") + name("torch", "FloatStorage") + b"tQ" + number(0) + b"(" + text("x") + b"t)tR.",
        "a tensor whose shape is not made of whole numbers",
    ),
    "cut argument": (b"\x80\x02X\xff\xff\x00\x00ab", "opcode BINUNICODE: expected 65535 bytes in a unicodestring4"),
    "endless name": (b"\x80\x02c" + b"a" * 5000, "opcode GLOBAL: a name that does not end within 4096 bytes"),
    "text opcode": (b"S'\\l'\n.", "opcode STRING"),
    "no opcode": (b"\x80\x02\xff.", "byte b'\\xff' is no opcode"),
    "too long": (b"\x80\x02" + b"0" * (1 << 20), "1048578 bytes of metadata, at most 1048576"),
    "too many opcodes": (b"\x80\x02" + b"N" * 200_000, "more than 40000 opcodes"),
}  # fmt: skip


@pytest.mark.parametrize(("data", "cause"), HOSTILE.values(), ids=HOSTILE.keys())
def test_anything_else_is_not_readable_and_never_runs(data, cause, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = set(sys.modules)
    with pytest.raises(NotReadable) as caught:
        read(data)
    assert str(caught.value).startswith(cause)
    assert os.listdir(tmp_path) == []
    assert not {module for module in set(sys.modules) - before if module.split(".")[0] in ("torch", "evil")}


def test_a_value_inside_itself_is_bounded():
    # l = []; l.append(l): a cycle is data, not an endless loop.
    value = read(b"\x80\x02]q\x00h\x00a.")
    assert value[0] is value


def test_shapes_are_whole_numbers_of_a_sane_size():
    for dims in ((-1,), (True,)):
        flag = b"\x88" if dims == (True,) else number(-1)
        data = (
            b"\x80\x02" + name("torch._utils", "_rebuild_tensor_v2")
            + b"((" + text("storage") + name("torch", "FloatStorage") + b"tQ" + number(0) + b"(" + flag + b"t)tR."
        )  # fmt: skip
        with pytest.raises(NotReadable):
            read(data)


def test_bytes_at_random_are_read_or_refused():
    chance = random.Random(7)
    good = record(tensor("torch.FloatStorage", (1, 2)), tensor("torch.LongStorage", (3,)))
    for _ in range(3000):
        data = bytearray(good)
        for _ in range(chance.randint(1, 6)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        try:
            read(bytes(data))
        except NotReadable:
            pass
        first_global(bytes(data), "__torch__")
