"""Small modules for `torch.jit.script`, whose files tell no shapes: what can be guessed of them and what not."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'naiad[torch]'")
nn = torch.nn


class Cnn(nn.Module):
    """Images of one size to ten scores; the rows of a wrong size become more rows."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.linear = nn.Conv2d(1, 6, 5), nn.Conv2d(6, 16, 5), nn.Linear(400, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = nn.functional.max_pool2d(torch.relu(self.a(image)), 2)
        x = nn.functional.max_pool2d(torch.relu(self.b(x)), 2)
        return self.linear(x.view(-1, 400))


class Pooled(nn.Module):
    """Images of any size, channels last, scaled before the first layer."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.a, self.linear = nn.BatchNorm2d(4), nn.Conv2d(4, 6, 3, groups=2), nn.Linear(6, 3)

    def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        x = self.norm((image.permute(0, 3, 1, 2) - 0.5) / 0.25)
        return {"scores": self.linear(self.a(x).mean((2, 3)))}


class Mlp(nn.Module):
    """Rows to scores; a row of twice the width would become two."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(784, 8), nn.ReLU(), nn.Linear(8, 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x.view(-1, 784))


class Text(nn.Module):
    """Token ids of any length to two scores."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.lstm = nn.Embedding(50, 8), nn.LSTM(8, 6, batch_first=True)
        self.linear = nn.Linear(6, 2)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        hidden, _ = self.lstm(self.embedding(ids))
        return self.linear(hidden[:, -1])


class Two(nn.Module):
    """Two inputs of different widths, and one that may be left out."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(4, 3), nn.Linear(5, 3)

    def forward(self, x: torch.Tensor, y: torch.Tensor, scale: float = 2.0) -> torch.Tensor:
        return (self.left(x) + torch.sigmoid(self.right(y / 2))) * scale


class Users(nn.Module):
    """One id a row: ids with a dim more do not run."""

    def __init__(self) -> None:
        super().__init__()
        self.users, self.items, self.linear = nn.Embedding(9, 4), nn.Embedding(7, 4), nn.Linear(8, 1)

    def forward(self, user: torch.Tensor, item: torch.Tensor) -> torch.Tensor:
        return self.linear(torch.cat([self.users(user), self.items(item)], 1))


class Signal(nn.Module):
    """Sound of any length, to which a channel is added."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv1d(1, 2, 3)

    def forward(self, sound: torch.Tensor) -> torch.Tensor:
        return self.a(nn.functional.pad(sound.unsqueeze(1), (1, 1)))


class Steps(nn.Module):
    """Time first: each step's answer depends on those before it."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.lstm = nn.Linear(3, 8), nn.LSTM(8, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.lstm(self.linear(x))[0]


class Masked(nn.Module):
    """A mask, of which no weight tells anything."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(50, 8)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return (self.embedding(ids) * mask.unsqueeze(-1)).sum(1)


class Bytes(nn.Module):
    """The datatype is converted first: the weights' is another."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 2, 3)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.a(image.float() / 255)


class Picky(nn.Module):
    """What is guessed does not run: its size is beyond those that are tried."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(1, 1, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.a(image).reshape(-1, 7919 * 7919)


def scripted(kind: type) -> torch.nn.Module:
    """The module, scripted; the same weights each time."""
    torch.manual_seed(3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated
        return torch.jit.script(kind().eval())


def reloaded(module: torch.nn.Module) -> torch.nn.Module:
    """A scripted module as a worker sees it: saved and loaded again."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        buffer = io.BytesIO()
        torch.jit.save(module, buffer)
        buffer.seek(0)
        return torch.jit.load(buffer).eval()


def write(kind: type, root: Path, name: str) -> torch.nn.Module:
    """Writes the module's file into a repository; the module."""
    module = scripted(kind)
    (root / name / "1").mkdir(parents=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(module, str(root / name / "1" / "model.pt"))
    return module
