"""Builds model repositories for tests."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

IDENTITY = """backend: "identity"
max_batch_size: {max_batch}
input {{ name: "INPUT0" data_type: TYPE_{datatype} dims: [ {dims} ] }}
output {{ name: "OUTPUT0" data_type: TYPE_{datatype} dims: [ {dims} ] }}
{extra}
"""

PYTHON = """import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
"""


class Repository:
    """A folder of models."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True)

    def identity(
        self,
        name: str = "identity",
        *,
        datatype: str = "FP32",
        dims: str = "16",
        max_batch: int = 8,
        extra: str = "",
        versions: tuple[int, ...] = (1,),
    ) -> str:
        for version in versions:
            (self.root / name / str(version)).mkdir(parents=True, exist_ok=True)
        text = IDENTITY.format(max_batch=max_batch, datatype=datatype, dims=dims, extra=extra)
        (self.root / name / "config.pbtxt").write_text(text)
        return name

    def file(self, name: str, content: bytes, *, file: str = "model.pt") -> str:
        folder = self.root / name / "1"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(content)
        return name

    def torchscript(self, name: str, module, *examples) -> str:  # type: ignore[no-untyped-def]
        torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'naiad[torch]'")
        folder = self.root / name / "1"
        folder.mkdir(parents=True, exist_ok=True)
        torch.jit.trace(module, examples).save(str(folder / "model.pt"))
        return name

    def python(self, name: str, body: str, *, config: str | None = None, version: int = 1, **files: str) -> str:
        """A Triton Python model; `body` is what stands in its class, `files` are neighbours (`helper="x = 1"`)."""
        folder = self.root / name / str(version)
        folder.mkdir(parents=True, exist_ok=True)
        text = PYTHON + textwrap.indent(textwrap.dedent(body).strip("\n"), "    ") + "\n"
        (folder / "model.py").write_text(text)
        for file, content in files.items():
            (folder / f"{file}.py").write_text(content)
        if config is not None:
            (self.root / name / "config.pbtxt").write_text(config)
        return name
