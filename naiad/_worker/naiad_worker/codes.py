"""The diagnosis code of an error that names none: by the words that frameworks use for it."""

from __future__ import annotations

import re

_RULES = (
    (
        "MISSING_OP",
        r"Unknown builtin op|not a registered (function|op)|Could not find any similar ops|Op type not registered",
        "install the package that registers the operator beside the framework, or export the model without it",
    ),
    (
        "IO_UNSUPPORTED",
        r"have no v2 datatype",
        "export the model with outputs of other types, such as the real and the imaginary part for complex numbers",
    ),
    (
        "HOST_OOM",
        r"MemoryError|out of memory|bad_alloc|[Cc]an(no|')t allocate memory|Unable to allocate",
        "give the machine more memory, or load a smaller model or fewer instances of it",
    ),
)
_COMPILED = tuple((code, re.compile(words), fix) for code, words, fix in _RULES)


def code_of(text: str) -> tuple[str, str]:
    """(code, what to do) of an error's text with its class; two empty strings where no rule knows it."""
    return next(((code, fix) for code, words, fix in _COMPILED if words.search(text)), ("", ""))
