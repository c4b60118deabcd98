from __future__ import annotations

import re
from pathlib import Path

import pytest

import naiad
from naiad.control.diagnosis import Evidence, classify, diagnose, make

WORDS = [
    ("'model.pt' holds a state_dict: weights without the model", "WEIGHTS_ONLY"),
    ("the file is a pickle of a Python object", "UNSAFE_PICKLE"),
    ("the file is a Git LFS pointer, not the model", "LFS_POINTER"),
    ("signature: 'model.pt' breaks off (400 bytes) (TRUNCATED) (fix: copy it again);\n", "TRUNCATED"),
    ("a dry run fails: no input 'x' (HOST_OOM)", "HOST_OOM"),
    ("input 'x': expected dims [3], got [2] (GPU)", "IO_MISMATCH"),
    ("PytorchStreamReader failed finding central directory", "FILE_UNREADABLE"),
    ("No module named 'torch'", "ENV_MISSING_BACKEND"),
    ("ModuleNotFoundError: No module named 'transformers'", "MISSING_MODULE"),
    (
        "environment 'x' has no 'tf', which a backend runs on (ENV_MISSING_BACKEND)",
        "ENV_MISSING_BACKEND",
    ),
    ("environment 'x' has no 'numpy', which every worker needs (MISSING_MODULE)", "MISSING_MODULE"),
    ("environment 'x': its Python does not run: it ended with exit code 3 (ENV_UNUSABLE)", "ENV_UNUSABLE"),
    ("Unknown builtin op: torchvision::nms", "MISSING_OP"),
    ("input 'x': expected dims [1, 32, 32], got [1, 28, 28]", "IO_MISMATCH"),
    ("input 'x': datatype TYPE_INT32, but the file expects TYPE_FP32", "DTYPE_MISMATCH"),
    ("the model does not batch: a trace froze the batch size", "BATCH_FROZEN"),
    ("worker ended with signal 11", "CRASH_LOOP"),
    ("RuntimeError: out of memory", "HOST_OOM"),
    ("[Errno 28] No space left on device", "DISK_FULL"),
    ("the dry run failed: boom", "PROBE_FAILING"),
    ("something nobody foresaw", "LOAD_FAILED"),
]


@pytest.mark.parametrize(("words", "code"), WORDS)
def test_a_failures_words_have_a_code(words, code):
    assert classify(words) == code


@pytest.mark.parametrize(("words", "code"), WORDS)
def test_a_diagnosis_says_what_was_seen_and_what_to_do(words, code):
    diagnosis = diagnose(Evidence(text=words, service="digits"))
    assert diagnosis.code == code
    assert diagnosis.evidence == [words.strip().replace(" (fix: copy it again)", "")]
    assert diagnosis.title and diagnosis.title_zh
    for fix in diagnosis.fixes:
        assert "{" not in (fix.command or "")


def test_the_servers_own_fix_comes_first():
    words = "load failed for model 'm': version 1 is at UNAVAILABLE state: Internal: signature: 'm.pkl' is a pickle "
    words += "(UNSAFE_PICKLE) (fix: save it as skops:\n  skops.io.dump(model, 'm.skops'));\n"
    diagnosis = diagnose(Evidence(text=words, service="digits"))
    assert (diagnosis.code, diagnosis.fixes[0].text) == (
        "UNSAFE_PICKLE", "save it as skops:\n  skops.io.dump(model, 'm.skops')"
    )  # fmt: skip
    assert diagnosis.evidence == ["signature: 'm.pkl' is a pickle (UNSAFE_PICKLE)"]


def test_the_package_to_install_is_the_one_that_the_server_names():
    words = "import: No module named 'skops' (ENV_MISSING_BACKEND) (fix: install it: pip install 'naiad[sklearn]')"
    (fix,) = diagnose(Evidence(text=words, service="digits")).fixes
    assert fix.command == "pip install 'naiad[sklearn]'"


def test_every_code_that_the_server_names_has_a_title():
    root = Path(naiad.__file__).parent
    rooms = ("backends", "config", "repository", "server", "signature", "_worker")
    lines = [line for room in rooms for file in (root / room).rglob("*.py") for line in file.read_text().splitlines()]
    telling = [line for line in lines if re.search(r'\bcode ?= ?"|\bcoded\(|"code": "', line)]
    named = {code for line in telling for code in re.findall(r'"([A-Z][A-Z_]{7,})"', line)}
    named |= {code for line in lines for code in re.findall(r' \(([A-Z]+(?:_[A-Z]+)+)\)[";]', line)}
    assert {"WEIGHTS_ONLY", "IO_MISMATCH", "LAYOUT_NO_VERSION", "TRUNCATED"} <= named
    assert {code for code in named if not make(code, Evidence(text="x", service="s")).title} == set()
