"""Formats are known by their content, whatever the file is called, and whatever else it holds."""

from __future__ import annotations

import json
import os
import random
import struct
import zipfile
from pathlib import Path

import pytest

from naiad.errors import UnservableFile
from naiad.signature import formats
from naiad.signature.recognise import read, read_only_entry

ONNX = b"\x08\x0a\x12\x07pytorch\x1a\x053.0.0\x28\x01\x3a\x80\x20" + bytes(4096)
SAFETENSORS = struct.pack("<Q", 14) + b'{"w":{"a": 1}}'
OPENVINO = b'<?xml version="1.0"?>\n<net name="m" version="11">\n'

FILES = {
    "ONNX": ONNX,
    "TFLite": b"\x1c\0\0\0TFL3" + bytes(100),
    "TensorRT": b"ftrt" + bytes(100),
    "CatBoost": b"CBM1" + bytes(100),
    "LightGBM": b"tree\nversion=v4\nnum_class=1\n",
    "XGBoost": b'{"learner":{"attributes":{}}}',
    "OpenVINO": OPENVINO,
    "Keras HDF5": b"\x89HDF\r\n\x1a\n" + bytes(100),
    "GGUF": b"GGUF\x03\0\0\0",
    "safetensors": SAFETENSORS,
    "TensorFlow GraphDef": b"\x0a\x14\x0a\x01x\x12\x0bPlaceholder*\x02\x08\x01\x0a\x0b\x0a\x01y\x12\x08Identity",
    "treelite": bytes.fromhex("04000000 08000000 01000000 0303 0300000000000000 04000000 010101"),
}
SERVED = {"ONNX"}
ARCHIVES = {
    "torch.export of an older torch": ["serialized_exported_program.json", "version"],
}
FOLDERS = {
    "MLflow": {"MLmodel": b"flavors:\n"},
    "LoRA adapter": {"adapter_config.json": b'{"peft_type": "LORA"}', "adapter_model.safetensors": SAFETENSORS},
    "Hugging Face": {"config.json": json.dumps({"architectures": ["LlamaForCausalLM"]}).encode()},
    "OpenVINO": {"m.xml": OPENVINO, "m.bin": b""},
}


LANGUAGE = ("GGUF", "Hugging Face", "LoRA adapter")
"""What vLLM serves."""


def refusal(path: Path) -> UnservableFile:
    with pytest.raises(UnservableFile) as caught:
        read(path)
    assert caught.value.fix
    return caught.value


@pytest.mark.parametrize("name", sorted(FILES.keys() - SERVED))
def test_a_file_is_known_by_its_content(tmp_path, name):
    for called in ("model.pt", "model", "model.onnx"):
        (tmp_path / called).write_bytes(FILES[name])
        error = refusal(tmp_path / called)
        assert (error.kind, error.what) == ("later", f"'{called}' is a model of format {name}")
        assert error.code == "FORMAT_NOT_SERVED"
        assert ("engine: vllm" in error.fix) == (name in LANGUAGE)


@pytest.mark.parametrize("name", ARCHIVES)
def test_an_archive_is_known_by_its_members(tmp_path, name):
    with zipfile.ZipFile(tmp_path / "model.pt", "w") as archive:
        for member in ARCHIVES[name]:
            archive.writestr(member, b"{}")
    assert refusal(tmp_path / "model.pt").what == f"'model.pt' is a model of format {name}"


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_is_known_by_what_it_holds(tmp_path, name):
    folder = tmp_path / "model"
    folder.mkdir()
    for file, content in FOLDERS[name].items():
        (folder / file).write_bytes(content)
    error = refusal(folder)
    assert error.what == f"'model' is a model of format {name}"
    assert ("engine: vllm" in error.fix) == (name in LANGUAGE)


def test_the_documents_name_every_format_that_is_not_served():
    page = (Path(__file__).resolve().parents[3] / "docs/reference/formats.md").read_text()
    section = page.partition("## Recognised, not served")[2]
    served = {"ONNX", formats.KERAS, formats.SAVEDMODEL, formats.SKOPS}
    names = {row.name for row in (*formats.FILES, *formats.ARCHIVES, *formats.FOLDERS)} - served
    assert {name for name in names if name not in section} == set()


def test_a_version_folder_is_looked_into(tmp_path):
    """What lies in it alone, or what it is as a whole, is named before one says that a file is missing."""
    folder = tmp_path / "1"
    assert read_only_entry(folder, {}) is None
    folder.mkdir()
    assert read_only_entry(folder, {}) is None
    (folder / "weights.gguf").write_bytes(FILES["GGUF"])
    with pytest.raises(UnservableFile, match=r"'weights\.gguf' is a model of format GGUF"):
        read_only_entry(folder, {})
    (folder / "config.json").write_bytes(FOLDERS["Hugging Face"]["config.json"])
    with pytest.raises(UnservableFile, match="'1' is a model of format Hugging Face"):
        read_only_entry(folder, {})
    (folder / "config.json").unlink()
    (folder / "notes").write_bytes(b"x")
    assert read_only_entry(folder, {}) is None


def test_an_only_entry_that_is_a_link_out_of_its_folder_is_not_looked_into(tmp_path):
    (tmp_path / "secret").write_text("root:x:0:0")
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "weights").symlink_to(tmp_path / "secret")
    with pytest.raises(UnservableFile, match="'1/weights' is no file of that folder") as caught:
        read_only_entry(tmp_path / "1", {})
    assert caught.value.code == "PATH_REFUSED"


@pytest.mark.parametrize("name", ["model.onnx", "model.pt", "model.py", "weights"])
def test_a_pipe_is_not_waited_for(tmp_path, name):
    os.mkfifo(tmp_path / name)
    assert refusal(tmp_path / name).code == "FILE_UNREADABLE"


def test_code_is_known_by_its_name_alone(tmp_path):
    (tmp_path / "other.py").write_text("class TritonPythonModel:\n    def execute(self, requests): ...\n")
    assert read_only_entry(tmp_path, {}) is None


def test_a_folder_of_nothing_in_particular_is_refused(tmp_path):
    (tmp_path / "model.pt").mkdir()
    assert refusal(tmp_path / "model.pt").code == "UNKNOWN_FORMAT"
    (tmp_path / "model.pt" / "config.json").write_bytes(b'{"a":' * 100_000)
    assert refusal(tmp_path / "model.pt").code == "UNKNOWN_FORMAT", "a bottomless text is no configuration"


def test_what_only_begins_like_a_format_is_none_of_it():
    for head in (
        b"",
        b"\x08",
        b"\x08\x0a",
        b"\x08\x00\x3a\x01\x00",
        b"\x0a\x01a\x3a\x01\x00",
        b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        b"{}",
        b"<net>",
        b"<network version='1'>",
        struct.pack("<Q", 1 << 60) + b"{",
        b"tree\n",
        struct.pack("<iiiBBQ", 6, 0, 0, 2, 2, 1),
        struct.pack("<iiiBBQ", 4, 0, 0, 9, 2, 1),
        struct.pack("<iiiBBQ", 4, 0, 0, 2, 2, 0),
    ):
        assert formats.of_file(head) is None, head


def test_any_bytes_are_some_format_or_none():
    draw = random.Random(5)
    heads = [draw.randbytes(draw.randrange(200)) for _ in range(2000)]
    heads += [bytes([*ONNX[:at], ONNX[at] ^ flip, *ONNX[at + 1 : 200]]) for at in range(40) for flip in (1, 0x80, 0xFF)]
    heads += [b"\x08\x0a" + b"\x28\x01" * 2047, b" " * 4096, b"<?xml" * 800]
    for head in heads:
        assert formats.of_file(head) in (None, *formats.FILES)
