"""Pickles, also compressed as joblib writes them: known by their first bytes, and never read.

A pickle is a program that builds an object, so nothing is told of one without running it. Sources: the opcodes in
CPython's `pickletools`, the magic bytes of the compressors that joblib offers.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePath

from naiad.errors import UnservableFile
from naiad.signature.model import Signature

TRUST = "naiad.trust_pickle"
"""Key of `parameters` in config.pbtxt: "true" lets a worker open a pickle."""
SUFFIXES = frozenset({".pkl", ".pickle", ".joblib"})

_COMPRESSED = (b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda", b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x5d\0\0",
               b"\x04\x22\x4d\x18")  # fmt: skip
_OLD = (b"(", b"]", b"}", b"c", b"ccopy_reg")
_TORCH = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9"

SAFE = """save the model in a form that holds no code:
  import skops.io; skops.io.dump(model, "model.skops")
or convert it to ONNX with skl2onnx; or, if you made this file, trust it in the model's config.pbtxt:
  parameters { key: "naiad.trust_pickle" value { string_value: "true" } }"""


def is_pickle(name: str, head: bytes) -> bool:
    """Whether a file of this name that begins like this is a pickle, plain or compressed.

    A protocol of 2 or more says so in the first byte; older ones and compressed ones only together with the name.
    """
    if head[:1] == b"\x80" and head[1:2] in (b"\2", b"\3", b"\4", b"\5"):
        return True
    named = PurePath(name).suffix.lower() in SUFFIXES
    return named and head.startswith((*_COMPRESSED, *_OLD))


def read_pickle(path: Path, head: bytes, parameters: Mapping[str, str], *, export: str) -> Signature:
    """What is known of a pickle that the configuration trusts: nothing, before a worker has opened it.

    Raises `UnservableFile` for any other, with `export` as the way out where the file is none of scikit-learn's.
    """
    ours = PurePath(path.name).suffix.lower() in SUFFIXES and not head.startswith(_TORCH)
    if ours and parameters.get(TRUST, "").strip().lower() == "true":
        return Signature(format="pickle", backend="sklearn", inputs=(), describes=True)
    raise UnservableFile(
        f"'{path.name}' is a pickle, which could run any code when it is opened",
        SAFE if ours or b"sklearn" in head else export,
        kind="pickle",
        code="UNSAFE_PICKLE",
    )
