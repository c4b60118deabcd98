"""What a scripted module is guessed to take, and what ends the search."""

from __future__ import annotations

import warnings

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'naiad[torch]'")
from naiad_worker.backends._torch_guess import Guess, guess  # noqa: E402 (it needs torch, too)

from tests.support import script_models as models  # noqa: E402

ROWS = Guess("FP32", [[-1, 4], [-1, -1, 4]])


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (models.Cnn, [Guess("FP32", [[-1, 1, -1, -1]])]),
        (models.Pooled, [Guess("FP32", [[-1, -1, -1, 4]])]),
        (models.Mlp, [Guess("FP32", [[-1, 784]])]),
        (models.Text, [Guess("INT64", [[-1, -1], [-1]])]),
        (models.Two, [ROWS, Guess("FP32", [[-1, 5], [-1, -1, 5]]), None]),
        (models.Signal, [Guess("FP32", [[-1, -1]])]),
        (models.Masked, [Guess("INT64", [[-1, -1], [-1]]), None]),
        (models.Bytes, [None]),
    ],
)
def test_the_first_operation_with_weights_tells(kind, expected):
    assert guess(models.reloaded(models.scripted(kind))) == expected


def test_a_frozen_file_tells_the_same():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        frozen = torch.jit.freeze(models.scripted(models.Cnn))
    assert guess(models.reloaded(frozen)) == [Guess("FP32", [[-1, 1, -1, -1]])]


class Recurrent(torch.nn.Module):
    def __init__(self, first: bool = True) -> None:
        super().__init__()
        self.gru = torch.nn.GRU(8, 6, batch_first=first)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.gru(x)[0]


class TimeFirst(Recurrent):
    def __init__(self) -> None:
        super().__init__(first=False)


class Turned(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = torch.nn.ConvTranspose2d(6, 2, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.a(torch.relu(x).transpose(1, 2))


class Half(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(4, 2, dtype=torch.bfloat16))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.weight


class Bag(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.bag = torch.nn.EmbeddingBag(100, 8, mode="mean")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.bag(x)


class Branches(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.dim() == 1:
            x = x.unsqueeze(1).squeeze(1)
        return self.linear(x)


class Long(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for _ in range(x.size(0)):
            x = torch.relu(x)
        return self.linear(x)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (Recurrent, Guess("FP32", [[-1, -1, 8]])),
        (TimeFirst, None),
        (Turned, Guess("FP32", [[-1, -1, 6, -1]])),
        (Half, Guess("BF16", [[-1, 4], [-1, -1, 4]])),
        (Bag, Guess("INT64", [[-1, -1]])),
        (Branches, ROWS),
        (Long, None),
    ],
)
def test_what_comes_before_the_weights_is_followed_back_where_that_is_certain(kind, expected):
    assert guess(models.reloaded(models.scripted(kind))) == [expected]


def test_a_chain_without_end_is_given_up():
    class Deep(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = torch.nn.Sequential(*[torch.nn.ReLU() for _ in range(2000)], torch.nn.Linear(4, 2))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layers(x)

    assert guess(models.scripted(Deep)) == [None]
