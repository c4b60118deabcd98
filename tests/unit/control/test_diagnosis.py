from __future__ import annotations

import pytest

from naiad.control.diagnosis import Evidence, classify, diagnose

WORDS = [
    ("'model.pt' holds a state_dict: weights without the model", "WEIGHTS_ONLY"),
    ("the file is a pickle of a Python object", "UNSAFE_PICKLE"),
    ("the file is a Git LFS pointer, not the model", "FILE_UNREADABLE"),
    ("PytorchStreamReader failed finding central directory", "FILE_UNREADABLE"),
    ("No module named 'torch'", "ENV_MISSING_BACKEND"),
    ("ModuleNotFoundError: No module named 'transformers'", "MISSING_MODULE"),
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
    assert words in diagnosis.evidence
    assert diagnosis.title and diagnosis.title_zh
    for fix in diagnosis.fixes:
        assert "{" not in (fix.command or "")
