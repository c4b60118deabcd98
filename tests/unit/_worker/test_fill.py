"""What dry runs and warm-ups feed to a model."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from naiad_worker.fill import filled
from naiad_worker.tensors import CODES, datatype_of


@pytest.mark.parametrize("datatype", CODES)
@pytest.mark.parametrize("data", ["zero", "random"])
def test_every_datatype_can_be_made(datatype, data):
    array = filled({"name": "x", "datatype": datatype, "data": data}, [40, 5])
    assert (array.shape, datatype_of(array)) == ((40, 5), datatype)
    values = array if datatype == "BYTES" else np.asarray(array).view(f"V{array.itemsize}")
    varies = len({bytes(value) for value in values.reshape(-1)}) > 1
    assert varies == (data == "random" and datatype != "BYTES")


def test_floats_are_numbers():
    array = filled({"name": "x", "datatype": "FP16", "data": "random"}, [1000])
    assert np.isfinite(array).all()


@pytest.mark.parametrize("rows", [1, 3])
def test_a_file_holds_the_batch_or_one_row(tmp_path, rows):
    content = np.arange(rows * 4, dtype="<f4").reshape(rows, 4)
    (tmp_path / "x").write_bytes(content.tobytes())
    array = filled({"name": "x", "datatype": "FP32", "data": "file", "path": str(tmp_path / "x")}, [3, 4])
    np.testing.assert_array_equal(array, np.resize(content, (3, 4)))


def test_a_file_of_bytes_is_as_on_the_wire(tmp_path):
    (tmp_path / "x").write_bytes(struct.pack("<I", 2) + b"hi" + struct.pack("<I", 0))
    array = filled({"name": "x", "datatype": "BYTES", "data": "file", "path": str(tmp_path / "x")}, [2, 2])
    assert array.tolist() == [[b"hi", b""], [b"hi", b""]]


@pytest.mark.parametrize("raw", [b"\x02\x00\x00\x00a", b"\x00\x00"])
def test_a_file_of_bytes_that_breaks_off_is_named(tmp_path, raw):
    (tmp_path / "x").write_bytes(raw)
    with pytest.raises(ValueError, match=f"^input 'x': the file: expected whole strings, .* got {len(raw)} bytes that"):
        filled({"name": "x", "datatype": "BYTES", "data": "file", "path": str(tmp_path / "x")}, [1])


@pytest.mark.parametrize(
    ("size", "text"), [(12, "expected 4 elements in the file or 8 for the whole batch, got 3"), (5, "no whole FP32")]
)
def test_a_file_of_another_size_is_named(tmp_path, size, text):
    (tmp_path / "x").write_bytes(bytes(size))
    with pytest.raises(ValueError, match=f"input 'x': .*{text}"):
        filled({"name": "x", "datatype": "FP32", "data": "file", "path": str(tmp_path / "x")}, [2, 4])


def test_a_file_that_cannot_be_read_is_named_without_its_place(tmp_path):
    with pytest.raises(ValueError, match=r"input 'x': the file cannot be read: No such file or directory$"):
        filled({"name": "x", "datatype": "FP32", "data": "file", "path": str(tmp_path / "none")}, [2])
