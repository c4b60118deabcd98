"""Errors that name no code are known by their words."""

from __future__ import annotations

import pytest
from naiad_worker.codes import code_of


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("torch cannot load 'model.pt': Unknown builtin op: torchvision::nms.", "MISSING_OP"),
        ("acme.ops:Frobnicate(-1) is not a registered function/op", "MISSING_OP"),
        ("Op type not registered 'Frobnicate' in binary", "MISSING_OP"),
        ("MemoryError: ", "HOST_OOM"),
        ("RuntimeError: [enforce fail] DefaultCPUAllocator: can't allocate memory: you tried", "HOST_OOM"),
        ("numpy._core._exceptions._ArrayMemoryError: Unable to allocate 9 GiB", "HOST_OOM"),
        ("ValueError: X has 5 features", ""),
        ("", ""),
    ],
)
def test_the_words_of_frameworks_have_a_code(text, code):
    found, fix = code_of(text)
    assert (found, bool(fix)) == (code, bool(code))
