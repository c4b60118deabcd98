"""Archives as TorchScript writes them, made by hand: without torch, and broken on purpose."""

from __future__ import annotations

import io
import pickletools
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path

CODE = """class Net(Module):
  __parameters__ = []
  def forward(self: __torch__.Net,
    image: Tensor,
    mask: Optional[Tensor]=None) -> Tuple[Tensor, Tensor]:
    return (image, image)
"""


def text(value: str) -> bytes:
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def number(value: int) -> bytes:
    return b"J" + struct.pack("<i", value)


def name(module: str, attribute: str) -> bytes:
    return f"c{module}\n{attribute}\n".encode()


def tensor(storage: str, shape: tuple[int, ...], *, rebuild: str = "torch._utils._rebuild_tensor_v2") -> bytes:
    """The call that rebuilds a tensor: storage by persistent id, offset, shape, stride, requires_grad, hooks."""
    module, _, attribute = rebuild.rpartition(".")
    kind, _, storage_name = storage.rpartition(".")
    persistent = b"(" + text("storage") + name(kind, storage_name) + text("0") + text("cpu") + number(0) + b"tQ"
    dims = b"(" + b"".join(number(dim) for dim in shape) + b"t"
    hooks = name("collections", "OrderedDict") + b")R"
    return name(module, attribute) + b"(" + persistent + number(0) + dims + dims + b"\x89" + hooks + b"tR"


def record(*tensors: bytes, method: str = "forward") -> bytes:
    """`traced_inputs.pkl`: a dictionary from method to the list of its inputs."""
    return b"\x80\x02}" + text(method) + b"](" + b"".join(tensors) + b"es."


def module_pickle(qualified: str = "__torch__.Net") -> bytes:
    module, _, attribute = qualified.rpartition(".")
    return b"\x80\x02" + name(module, attribute) + b")\x81}b."


def members(*, code: str = CODE, traced: bytes | None = None) -> dict[str, bytes]:
    found = {
        "net/data.pkl": module_pickle(),
        "net/code/__torch__.py": code.encode(),
        "net/constants.pkl": b"\x80\x02).",
        "net/version": b"3\n",
    }
    return found if traced is None else found | {"net/traced_inputs.pkl": traced}


def zipped(path: Path, content: Mapping[str, bytes], *, method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for member, data in content.items():
            archive.writestr(member, data)
    return path


def listing(data: bytes) -> str:
    """The opcodes, for a failing test's message."""
    out = io.StringIO()
    pickletools.dis(data, out)
    return out.getvalue()
