"""Files of weights: what they hold, and a script that really exports the model they belong to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from naiad.errors import UnservableFile
from naiad.signature.recognise import read

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'naiad[torch]'")


class Digits(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convolution = torch.nn.Conv2d(1, 4, 3)
        self.linear = torch.nn.Linear(4 * 26 * 26, 10)

    def forward(self, image):
        return self.linear(torch.relu(self.convolution(image)).flatten(1))


class Words(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(50, 8)
        self.linear = torch.nn.Linear(8, 3)

    def forward(self, ids):
        return self.linear(self.embedding(ids).mean(1))


class Rows(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = torch.nn.BatchNorm1d(6)
        self.linear = torch.nn.Linear(6, 3)

    def forward(self, rows):
        return self.linear(self.norm(rows))


class Steps(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.memory = torch.nn.GRU(5, 7, batch_first=True)

    def forward(self, steps):
        return self.memory(steps)[0][:, -1]


class Sound(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convolution = torch.nn.Conv1d(2, 4, 5)

    def forward(self, sound):
        return self.convolution(sound).mean(-1)


def plain(model):
    return model.state_dict()


def refused(path: Path) -> UnservableFile:
    with pytest.raises(UnservableFile) as caught:
        read(path)
    assert caught.value.code == "WEIGHTS_ONLY"
    return caught.value


@pytest.mark.filterwarnings("ignore:The tensor attributes .* were assigned during export")  # torch's own GRU
@pytest.mark.parametrize(
    ("kind", "wrap", "dims"),
    [
        (Digits, plain, (-1, 1, 28, 28)),
        (Words, plain, (-1, 16)),
        (Rows, lambda model: {"epoch": 3, "state_dict": model.state_dict()}, (-1, 6)),
        (Steps, lambda model: {f"module.{name}": value for name, value in model.state_dict().items()}, (-1, 16, 5)),
        (Sound, lambda model: dict(model.named_parameters()), (-1, 2, 28)),
    ],
)
def test_the_script_of_the_refusal_runs_as_pasted(tmp_path, monkeypatch, kind, wrap, dims):
    """All but the class is in it; what it writes is then served, and gives what the model gives."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    model = kind().eval()
    torch.save(wrap(model), "weights.pt")
    script = refused(tmp_path / "weights.pt").fix
    exec(compile(script, "pasted", "exec"), {"MyModel": kind})
    signature = read(tmp_path / "model.pt2")
    (tensor,) = signature.inputs
    assert tensor.dims == dims
    shape = [3 if dim == -1 else dim for dim in dims]
    example = torch.zeros(shape, dtype=torch.int64) if tensor.datatype == "INT64" else torch.rand(shape)
    given = torch.export.load("model.pt2").module()(example)
    np.testing.assert_allclose(given.detach(), model(example).detach(), rtol=1e-5, atol=1e-5)


def test_the_refusal_names_what_the_file_holds(tmp_path):
    torch.save(Digits().state_dict(), tmp_path / "weights.pt")
    assert refused(tmp_path / "weights.pt").what == (
        "'weights.pt' holds weights only (a state dict: convolution.weight [4, 1, 3, 3], convolution.bias [4], "
        "linear.weight [10, 2704] and 1 more), without the model's code"
    )


def test_a_class_beside_the_weights_is_offered(tmp_path):
    torch.save(Digits().state_dict(), tmp_path / "model.pt")
    (tmp_path / "model.py").write_text("")
    assert refused(tmp_path / "model.pt").fix.startswith('# or write backend: "pytorch" into config.pbtxt')


def test_a_checkpoint_that_cannot_be_read_is_refused_all_the_same(tmp_path):
    torch.save({"weights": torch.zeros(2), "when": np.float64(3)}, tmp_path / "weights.pt")
    error = refused(tmp_path / "weights.pt")
    assert error.what == "'weights.pt' holds weights only (a state dict), without the model's code"
    assert "a guess: write the shape" in error.fix
