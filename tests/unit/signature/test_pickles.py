"""Pickles are named and refused, plain or compressed, and never opened."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import sys
import zlib
from pathlib import Path

import pytest

from naiad.config import pbtxt
from naiad.config.recognition import parameters_of
from naiad.errors import UnservableFile
from naiad.signature.pickles import TRUST
from naiad.signature.recognise import read

CANARY = b"cposix\nsystem\n(S'touch canary'\ntR."
"""A pickle that runs a command when it is opened."""
MODERN = b"\x80\x04" + CANARY
LZ4 = b"\x04\x22\x4d\x18" + bytes(50)
FORMS = {
    "model.pkl": MODERN,
    "model.joblib": MODERN,
    "model.PKL": b"\x80\x02" + CANARY,
    "old.pkl": CANARY,
    "a list.pickle": b"]" + CANARY,
    "zlib.joblib": zlib.compress(MODERN),
    "gzip.joblib": gzip.compress(MODERN),
    "bzip.joblib": bz2.compress(MODERN),
    "xz.pkl": lzma.compress(MODERN),
    "lzma.pkl": lzma.compress(MODERN, format=lzma.FORMAT_ALONE),
    "lz4.joblib": LZ4,
    "cut.pkl": MODERN[:3],
}


def refusal(path: Path, told: dict[str, str] | None = None) -> UnservableFile:
    with pytest.raises(UnservableFile) as caught:
        read(path, told)
    return caught.value


@pytest.mark.parametrize("name", FORMS)
def test_a_pickle_is_refused_with_ways_out_and_never_opened(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_bytes(FORMS[name])
    before = set(sys.modules)
    error = refusal(tmp_path / name)
    assert (error.kind, error.code) == ("pickle", "UNSAFE_PICKLE")
    assert error.what == f"'{name}' is a pickle, which could run any code when it is opened"
    assert all(word in error.fix for word in ("skops.io.dump", "ONNX", TRUST))
    assert os.listdir(tmp_path) == [name]
    assert not {module for module in set(sys.modules) - before if module.split(".")[0] in ("sklearn", "joblib")}


@pytest.mark.parametrize("name", FORMS)
def test_trust_makes_it_a_model_that_tells_nothing(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_bytes(FORMS[name])
    signature = read(tmp_path / name, {TRUST: "true"})
    assert (signature.format, signature.backend, signature.inputs) == ("pickle", "sklearn", ())
    assert signature.describes, "only a worker that opens it tells more"
    assert os.listdir(tmp_path) == [name]
    for word in ("", "yes", "false", "1"):
        assert refusal(tmp_path / name, {TRUST: word}).code == "UNSAFE_PICKLE"


def test_other_pickles_are_not_trusted_with_it(tmp_path):
    """Trust is for scikit-learn's files: a torch file with weights stays what it is."""
    torch = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19." + bytes(20)
    for name, data in (("model.pt", MODERN), ("model.skops", MODERN), ("model.pkl", torch)):
        (tmp_path / name).write_bytes(data)
        error = refusal(tmp_path / name, {TRUST: "true"})
        assert error.code == "UNSAFE_PICKLE"
        assert "torch.jit.trace" in error.fix


def test_a_compressed_file_of_another_name_is_no_pickle(tmp_path):
    for name, code in (("model.gz", "UNKNOWN_FORMAT"), ("model.pt", "UNKNOWN_FORMAT")):
        (tmp_path / name).write_bytes(gzip.compress(b"text"))
        assert refusal(tmp_path / name).code == code


def test_only_a_configuration_in_the_repository_trusts():
    told = {TRUST: "true", "method": "x"}
    text = "".join(f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}' for key, value in told.items())
    for source in ("config.pbtxt", "configs/small.pbtxt"):
        assert parameters_of(pbtxt.parse(text, source)) == told
    document = json.dumps({"parameters": {key: {"string_value": value} for key, value in told.items()}})
    assert parameters_of(pbtxt.parse_json(document, "load parameter 'config'")) == {"method": "x"}
