"""Small PyTorch models for tests, made where torch is installed; each is seeded, so that it can be made again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'naiad[torch]'")


class Digits(torch.nn.Module):
    """Images [N,1,28,28] to ten scores."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.convolution = torch.nn.Conv2d(1, 4, 3)
        self.linear = torch.nn.Linear(4 * 26 * 26, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.linear(torch.relu(self.convolution(image)).flatten(1))


class Frozen(Digits):
    """The same, but it takes one image only: a `view` holds the batch."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.linear(torch.relu(self.convolution(image)).view(1, 4 * 26 * 26))


class Tagger(torch.nn.Module):
    """Token ids [N,T] and a mask by keyword to a dictionary."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = torch.nn.Embedding(50, 4)

    def forward(self, ids: torch.Tensor, *, mask: torch.Tensor) -> dict[str, torch.Tensor]:
        hidden = self.embedding(ids)
        return {"hidden": hidden, "pooled": (hidden * mask.unsqueeze(-1).float()).sum(1)}


def export_digits(path: Path) -> Digits:
    """Writes an exported program for 1 to 256 images."""
    model = Digits().eval()
    batch = torch.export.Dim("batch", min=1, max=256)
    program = torch.export.export(model, (torch.zeros(2, 1, 28, 28),), dynamic_shapes={"image": {0: batch}})
    _save(program, path)
    return model


def export_tagger(path: Path) -> Tagger:
    """Writes an exported program for any batch and 2 to 128 tokens."""
    model = Tagger().eval()
    moves = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length", min=2, max=128)}
    example, keywords = torch.zeros(2, 6, dtype=torch.int64), {"mask": torch.ones(2, 6, dtype=torch.bool)}
    program = torch.export.export(model, (example,), keywords, dynamic_shapes={"ids": moves, "mask": moves})
    _save(program, path)
    return model


def compile_digits(path: Path, **metadata: str) -> Digits:
    """Writes a package of AOTInductor for 1 to 64 images; needs a C++ compiler and takes half a minute."""
    model = Digits().eval()
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(model, (torch.zeros(2, 1, 28, 28),), dynamic_shapes={"image": {0: batch}})
    options = {"aot_inductor.metadata": metadata}
    torch._inductor.aoti_compile_and_package(program, package_path=str(path), inductor_configs=options)
    return model


def _save(program: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.export.save(program, path)
